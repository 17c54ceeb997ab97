"""What defines a training run. Every field is a flag of ``kpm train``."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from kpm.errors import UserError, pick
from kpm.models.koopman_autoencoder import KoopmanAutoencoderConfig

METHODS = ("skd", "ssm-skd")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A run of SKD or SSM-SKD; the defaults are SSM-SKD on Sprites ([SSM-SKD] Tables 5-7) unless said otherwise."""

    method: str = "ssm-skd"
    """skd (one operator per batch) or ssm-skd (one per sequence)."""
    dataset: str = "sprites"
    """Dataset name, see `kpm data list`."""
    source: Literal["auto", "real", "synthetic"] = "auto"
    """Where the frames come from; auto takes the real data if it is there."""
    train_split: str = "train"
    """Split to learn from."""
    validation_split: str = "validation"
    """Held-out split that chooses the best weights."""
    latent_dim: int = 15
    """K, size of a frame's latent vector."""
    hidden_dim: int = 170
    """H, size of the decoder's LSTM."""
    static_size: int = 1
    """s, eigenvalues held at 1."""
    dropout: float = 0.2
    """On the latents of the reconstruction branch."""
    static_noise: float = 0.0
    """Random shift of each film's latents there, in standard deviations over films (not in the thesis)."""
    width: int = 32
    """Channels of the first convolution."""
    recurrent: bool = True
    """LSTMs over time in encoder and decoder; without them each frame is coded by itself (ablation)."""
    axes: bool = False
    """A linear layer at the encoder's end (not in the thesis); weights without one (--init) get it along independent
    axes of the training films, found by component analysis without labels."""
    turn_axes: bool = False
    """Turn the axes that the weights of --init have already to such axes once more before training."""
    w_reconstruction: float = 16.0
    """Weight of the reconstruction loss."""
    w_absolute: float = 0.0
    """Weight of the mean absolute error of both decoded films, or of the reconstruction alone if w_prediction is 0 (not
    in the thesis): small errors of colour count too."""
    w_predicted_latents: float = 1.0
    """Weight of the latent prediction loss, eq. 1 (zero by construction for one operator per sequence)."""
    w_prediction: float = 1.0
    """Weight of the ambient prediction loss, eq. 2."""
    prediction_share: float = 1.0
    """Share of a batch whose prediction is decoded, at a lower cost; the loss of these films stands for all. In ssm-skd
    without dropout the prediction of a film is the film itself, so nothing is lost; elsewhere the term is a rougher
    estimate. In one process, without --accumulate (not in the thesis)."""
    w_eigenvalues: float = 1.0
    """Weight of the spectral loss, eq. 4."""
    w_swap: float = 0.0
    """Weight of the swap loss (not in the thesis): films with a partner's static or dynamic part are decoded and
    encoded again, and both parts have to come back. In one process, without --accumulate."""
    swap_share: float = 0.25
    """Share of a batch that is swapped for this loss and the next two."""
    swap_motion: float = 0.5
    """Such a share of these swaps takes the partner's dynamic part, the others its static part."""
    w_between: float = 0.0
    """Weight of a loss on these swaps (not in the thesis): a part from between two films is to be decoded as that of
    one of the two, so that no picture is a ghost of two motions. Without w_swap and w_looks only such points learn."""
    between_middle: float = 0.0
    """Such a share of these points between is from the middle third, where ghosts are."""
    between_pixels: float = 0.0
    """In such a share of this loss every pixel is to be that of one of the two, the nearer in its colour, instead of
    the whole film."""
    w_looks: float = 0.0
    """Weight of a loss on these swaps (not in the thesis): a swap has to look like the film whose static part it has,
    by a network that learns beforehand, without labels, what frames of one film have in common. The gradients of this
    and of the swap loss then run on to the latents that a swap was put together of. Not for the swaps of
    `swap_channels`. In one process, without --accumulate."""
    looks_steps: int = 2000
    """Steps that this network learns for."""
    looks_spoil: float = 1.0
    """How much the frames that it sees are shifted, zoomed, blurred and noisy; less for small forms in large scenes."""
    looks_colour_blind: float = 0.0
    """Such a share of films is shown to it without their colours, for films whose colours say all there is to say."""
    w_mirror: float = 0.0
    """Weight of a loss on films that are mirror images of each other (not in the thesis): the look of the one with the
    motion of the other is to be decoded as the other. In one process, without --accumulate."""
    mirror_share: float = 0.25
    """At most such a share of a batch is looked at for this loss."""
    w_borrowed: float = 0.0
    """Weight of a loss on films with the dynamic part of another that moves alike (not in the thesis): they are to be
    decoded as they are, so that no motion tells who moves. In one process, without --accumulate."""
    borrowed_share: float = 0.25
    """Such a share of a batch is looked at for this loss."""
    swap_channels: bool = False
    """In half of these swaps the partner gives the dynamic part and a random half of the static channels, so that
    channels can be exchanged one by one."""
    threshold: float = 0.75
    """alpha, real part above which a dynamic eigenvalue is penalised."""
    init: str = ""
    """Checkpoint (a name in data/checkpoints or a file) whose weights to start from, instead of random ones."""
    decoder_only: bool = False
    """The encoder keeps the weights of --init, and batch norm its means: a last stage, which leaves latents and
    operators as they are and learns to draw what swaps make of them (not in the thesis). In one process."""
    epochs: int = 250
    """Passes over the training split."""
    steps: int | None = None
    """Stop after so many steps instead of `epochs`."""
    batch_size: int = 32
    """Sequences per step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from zero."""
    patience: int = 10
    """Validations without improvement before the learning rate falls (ReduceLROnPlateau)."""
    lr_factor: float = 0.5623413
    """By which it then falls (10^(-1/4))."""
    ema: float = 0.0
    """Decay per step of a running average of the weights that is validated and saved as the best; 0 for none."""
    clip: float = 5.0
    """Largest gradient norm."""
    seed: int = 7253
    """Of weights, data order and dropout."""
    precision: Literal["auto", "32-true", "bf16-mixed", "64-true"] = "auto"
    """auto probes whether this machine is faster with bf16; 64-true is for comparisons."""
    accumulate: int = 1
    """Parts of a batch that are worked on one after the other, to save memory; each is normalised by itself (and has
    its own operator in skd)."""
    validate_every: int = 1
    """Epochs between validations."""
    validation_sequences: int = 900
    """At most so many held-out sequences are looked at."""

    def __post_init__(self) -> None:
        pick("method", self.method, METHODS)
        for name in ("latent_dim", "hidden_dim", "static_size", "width", "epochs", "batch_size", "looks_steps"):
            _bounds(self, name, 1)
        for name in ("warmup_steps", "patience", "seed"):
            _bounds(self, name, 0)
        for name in ("accumulate", "validate_every", "validation_sequences"):
            _bounds(self, name, 1)
        if self.steps is not None:
            _bounds(self, "steps", 1)
        if self.seed >= 1 << 63:
            raise UserError(f"seed must be below 2^63, got {self.seed}")
        weights = [f.name for f in dataclasses.fields(self) if f.name.startswith("w_")]
        for name in (*weights, "threshold", "learning_rate", "clip", "dropout", "static_noise", "ema", "lr_factor"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} must be finite, got {getattr(self, name)}")
        for name in (*weights, "static_noise"):
            _bounds(self, name, 0)
        for name in ("learning_rate", "clip"):
            if getattr(self, name) <= 0:
                raise UserError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("between_middle", "between_pixels", "swap_motion", "looks_colour_blind", "looks_spoil"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        for name in ("dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("prediction_share", "swap_share", "mirror_share", "borrowed_share"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if self.prediction_share < 1 and self.accumulate > 1:
            raise UserError(
                "prediction_share below 1 does not go with accumulate: each part would decode its own share"
            )
        if self.turn_axes and not (self.axes and self.init):
            raise UserError("turn_axes: there is nothing to turn without axes and init")
        if self.decoder_only and not self.init:
            raise UserError("decoder_only: without init there is no encoder to keep")
        for name in ("w_swap", "w_between", "w_looks"):
            if getattr(self, name) and (self.accumulate > 1 or self.batch_size < 2):
                raise UserError(f"{name}: a swap needs two films, and the whole batch at once (no accumulate)")
        for name in ("between_middle", "between_pixels"):
            if getattr(self, name) and not self.w_between:
                raise UserError(f"{name}: there are no points between without w_between")
        defaults = {f.name: f.default for f in dataclasses.fields(self) if f.name.startswith("looks_")}
        for name, default in defaults.items():
            if getattr(self, name) != default and not self.w_looks:
                raise UserError(f"{name}: nothing looks at swaps without w_looks")
        for name in ("w_mirror", "w_borrowed"):
            if getattr(self, name) and self.accumulate > 1:
                raise UserError(f"{name}: looks at the whole batch at once (no accumulate)")
        if not 0 < self.lr_factor < 1:
            raise UserError(f"lr_factor must lie between 0 and 1, got {self.lr_factor}")
        if self.static_size >= self.latent_dim:
            raise UserError(f"static_size {self.static_size} leaves no dynamic mode in latent_dim {self.latent_dim}")
        if self.method == "ssm-skd" and self.static_size != 1:
            raise UserError(f"static_size: ssm-skd has one static mode per sequence, got {self.static_size}")

    def model(self, channels: int = 3) -> KoopmanAutoencoderConfig:
        return KoopmanAutoencoderConfig(
            scope="sequence" if self.method == "ssm-skd" else "batch",
            latent_dim=self.latent_dim,
            hidden_dim=self.hidden_dim,
            static_size=self.static_size,
            dropout=self.dropout,
            static_noise=self.static_noise,
            width=self.width,
            channels=channels,
            recurrent=self.recurrent,
            axes=self.axes,
        )

    def quick(self) -> TrainConfig:
        """A minute on two cores: enough to see the losses fall, not to learn the data."""
        return dataclasses.replace(
            self,
            steps=120,
            batch_size=16,
            learning_rate=2e-3,
            warmup_steps=20,
            validation_sequences=64,
            **({"looks_steps": 100} if self.w_looks else {}),
        )


def _bounds(config: TrainConfig, name: str, least: float) -> None:
    if getattr(config, name) < least:
        raise UserError(f"{name} must be at least {least}, got {getattr(config, name)}")


# SSM-SKD: [SSM-SKD] Table 7. SKD: K, H and s with which its results can be reproduced (thesis 2.2.2, items 2 and 6),
# weights, threshold and epochs of its published code; clipping and schedule as the thesis adds to both (items 3 and 5).
# The thesis has SKD on Sprites only: elsewhere it gets the same.
def _table_7(k: int, h: int, weight: float, threshold: float, epochs: int = 250) -> dict:
    """A column of the table; ``w_pred`` and ``w_eig`` are the same number throughout."""
    weights = dict.fromkeys(("w_predicted_latents", "w_prediction", "w_eigenvalues"), weight)
    return {"latent_dim": k, "hidden_dim": h, **weights, "threshold": threshold, "epochs": epochs}


_SKD = {"latent_dim": 40, "hidden_dim": 80, "static_size": 12}
_SKD |= {"w_reconstruction": 15.0, "threshold": 0.5, "epochs": 1000}
_SSM_SKD = {
    "sprites": _table_7(15, 170, 1.0, 0.75),
    "dsprites": _table_7(24, 200, 4.0, 0.125),
    "moving_dsprites": _table_7(28, 160, 4.0, 0.875),
    "shapes3d": _table_7(28, 200, 4.0, 0.875, epochs=75),
}
_LIKE = {"puppets": "sprites", "sprites_extended": "sprites", "puppets_extended": "sprites"}
_LIKE |= {f"{name}_rerender": name for name in ("dsprites", "moving_dsprites", "shapes3d")}
# What there are settings for: the datasets of films.
FILMS = (*_SSM_SKD, *_LIKE)


def preset(method: str = "ssm-skd", dataset: str = "sprites") -> TrainConfig:
    """The published settings of a method on a dataset."""
    pick("method", method, METHODS)
    pick("dataset", dataset, FILMS)
    settings = _SKD if method == "skd" else _SSM_SKD[_LIKE.get(dataset, dataset)]
    return TrainConfig(method=method, dataset=dataset, **settings)


def command(train: dict, steps: int) -> str:
    """The ``kpm train`` line of a run up to `steps`: the flags that differ from the method's preset.

    Films of one's own have no preset: there the flags are what differs from the defaults of `TrainConfig`.
    """
    known = train["dataset"] in FILMS
    default = dataclasses.asdict(preset(train["method"], train["dataset"]) if known else TrainConfig())
    if unknown := sorted(set(train) - set(default)):
        raise UserError(f"the run is of another version of kpm: no {', '.join(unknown)} is known here")
    changed = {k: v for k, v in train.items() if default[k] != v and k not in ("method", "dataset", "epochs", "steps")}
    flags = [_flag(k.replace("_", "-"), v) for k, v in (changed | {"steps": steps}).items()]
    return " ".join([f"kpm train {train['method']} --dataset {train['dataset']}", *flags])


def _flag(name: str, value: object) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {value}"
