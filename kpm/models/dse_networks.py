"""The networks of the deep spectral encoder, their sizes as published ([DSE] tables 8 and 9)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kpm.errors import pick
from kpm.solvers import checks
from kpm.solvers.cross_fitting import ridge

READINGS = ("clean", "published")


@dataclasses.dataclass(frozen=True)
class DSEConfig:
    """Sizes and constants of a deep spectral encoder; by default those published for Van der Pol's oscillator.

    Attributes
    ----------
    element : tuple of int
        Shape of a frame: ``(channels,)`` of a signal, or ``(1, 48, 48)``.
    delays : int
        Frames that the encoder sees at a time (1 for images).
    encoder_hidden : tuple of int
        Hidden sizes of the encoder of signals (tanh); its decoder has them in reverse. Those of images are fixed.
        Without hidden sizes a network is linear, here and below.
    code : int
        Outputs of the encoder, m.
    window : int
        Codes in a past or future block.
    head_hidden : int
        Hidden units of the block features of each code coordinate; 0 makes them linear.
    heads : int
        Block features of each code coordinate; published is one, so that position and speed of a coordinate cannot both
        be known.
    components : int
        Clean reading of images: so many codes are principal components of the frames, which are among the observation
        features as they are, and of which frames are made again; networks add to both. 0 for networks alone, as
        published.
    rank : int
        Coordinates of the state.
    realized : bool
        Clean reading: states by realization. If not, they are the first codes of the last frame, whatever comes after
        it: an ablation. Blocks have one code then.
    state_features, observation_features : int
        Sizes of the two dictionaries. In the clean reading the first has the constant and the state among its features.
    harmonics : int
        Clean reading, with a state of two coordinates: the first dictionary also has the harmonics 2 ... of the angle
        of the state. What is left of `state_features` is learned.
    state_hidden, observation_hidden, readout_hidden : tuple of int
        Hidden sizes of dictionaries and read-outs (ReLU).
    dropout : float
        In the dictionaries.
    ridge_transition, ridge_output : float
        Of the two operators, beside sums (not means) of squares.
    loading : float
        Added to the diagonal of the covariances of the block features.
    jitter : float
        Added to the diagonal of both noise covariances.
    reading : {"clean", "published"}
        See `kpm.models.dse`.
    """

    element: tuple[int, ...] = (1,)
    delays: int = 30
    encoder_hidden: tuple[int, ...] = (128, 128, 64)
    code: int = 50
    window: int = 20
    head_hidden: int = 32
    heads: int = 1
    components: int = 0
    rank: int = 9
    realized: bool = True
    state_features: int = 30
    observation_features: int = 30
    harmonics: int = 0
    state_hidden: tuple[int, ...] = (128, 64)
    observation_hidden: tuple[int, ...] = (64, 32)
    readout_hidden: tuple[int, ...] = (32, 32)
    dropout: float = 0.0
    ridge_transition: float = 1e-2
    ridge_output: float = 1e-3
    loading: float = 1e-3
    jitter: float = 1e-6
    reading: str = "clean"

    def __post_init__(self) -> None:
        for name in ("element", "encoder_hidden", "state_hidden", "observation_hidden", "readout_hidden"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # lists, where read from JSON
        pick("reading", self.reading, READINGS)
        if len(self.element) != 1 and self.element != (1, 48, 48):
            raise ValueError(f"element: expected (channels,) or (1, 48, 48), got {self.element}")
        if self.is_image and self.delays != 1:
            raise ValueError(f"delays: expected 1 for images, got {self.delays}")
        for name in ("delays", "code", "window", "heads", "rank", "state_features", "observation_features"):
            object.__setattr__(self, name, checks.count(getattr(self, name), name, 1))  # numpy's become Python's
        for name in ("head_hidden", "components", "harmonics"):
            object.__setattr__(self, name, checks.count(getattr(self, name), name, 0))
        for name in ("ridge_transition", "ridge_output", "loading", "jitter"):
            checks.nonnegative(getattr(self, name), name)
        if not 0 <= checks.nonnegative(self.dropout, "dropout") < 1:
            raise ValueError(f"dropout: expected a share from 0 to below 1, got {self.dropout!r}")
        if self.rank > self.block_features:
            raise ValueError(f"rank: {self.rank} states cannot come from {self.block_features} features")
        if not self.realized and (self.is_published or self.window > 1 or self.heads > 1):
            raise ValueError("realized: only the clean reading, with window and heads 1, can do without")
        if self.components and (self.is_published or not self.is_image):
            raise ValueError(f"components: only of images in the clean reading, got {self.components}")
        if self.components and not 0 < self.components < min(self.code, self.observation_features + 1):
            raise ValueError(
                f"components: expected fewer than the {self.code} codes and at most the {self.observation_features} "
                f"observation features, got {self.components}"
            )
        if self.harmonics and (self.is_published or self.rank != 2 or self.harmonics < 2):
            raise ValueError(
                f"harmonics: 2 or more, of the angle of a state with rank 2 in the clean reading, "
                f"got {self.harmonics} with rank {self.rank} in the {self.reading} one"
            )
        if not self.is_published and self.state_features < self.explicit:
            raise ValueError(
                f"state_features: expected at least {self.explicit} (a constant, the state, harmonics), "
                f"got {self.state_features}"
            )

    @property
    def is_image(self) -> bool:
        return len(self.element) == 3

    @property
    def block_features(self) -> int:
        """Numbers that a block of codes is summed up in."""
        return self.code * self.heads

    @property
    def is_published(self) -> bool:
        return self.reading == "published"

    @property
    def explicit(self) -> int:
        """Features of the state that are not learned: in the clean reading constant, state and harmonics."""
        return 0 if self.is_published else 1 + self.rank + 2 * max(0, self.harmonics - 1)

    @property
    def gap(self) -> int:
        """Codes left out between past and future, so that they share no frame; none in the published reading."""
        return 0 if self.is_published else self.delays - 1

    @property
    def span(self) -> int:
        """Codes from the first of a past block to the last of the future block that goes with it."""
        return 2 * self.window + self.gap

    @property
    def inputs(self) -> int:
        """Numbers that the encoder of signals sees at a time."""
        return self.delays * math.prod(self.element)

    @classmethod
    def van_der_pol(cls, **changes) -> DSEConfig:
        """Published sizes, but in the clean reading 16 coordinates of the state: 9 hold the harmonics up to 4 only."""
        return cls._preset({"rank": 16}, {}, changes)

    @classmethod
    def stuart_landau(cls, **changes) -> DSEConfig:
        """Published sizes, or in the clean reading a small network.

        The state is the angle only, from 5 frames at a time, and its harmonics are given. Modes of large networks last
        too long there, and forecast frames they have not seen less well.
        """
        small = {"delays": 1, "encoder_hidden": (64, 32), "code": 16, "window": 5, "head_hidden": 0, "rank": 2}
        small |= {"harmonics": 6, "state_features": 13, "observation_features": 16}
        published = {"delays": 10, "head_hidden": 64, "rank": 13}
        return cls._preset({"element": (2,), **small}, {"element": (2,), **published}, changes)

    @classmethod
    def quad_link(cls, **changes) -> DSEConfig:
        """Published sizes, or in the clean reading components beside a network, and smaller blocks.

        The published encoder tells less of a film than its principal components do, and one feature of a block cannot
        hold both place and speed of a coordinate; with its blocks of 30 frames canonical correlations come near 1 that
        do not hold for another film.
        """
        sizes = {"element": (1, 48, 48), "delays": 1, "code": 100, "window": 30, "rank": 20}
        sizes |= {"state_features": 50, "observation_features": 50}
        clean = {"code": 50, "components": 30, "window": 10, "head_hidden": 0, "heads": 4}
        return cls._preset(sizes | clean, sizes, changes)

    @classmethod
    def linear(cls, channels: int, window: int, rank: int, **changes) -> DSEConfig:
        """No hidden layer anywhere: classical subspace identification and the Kalman filter.

        Block features are as many as a block has numbers, ``channels * window``, of which `rank` may be at most so
        many. Training starts from codes and observation features that are the scaled frames themselves, see
        `kpm.training.dse.prepared`.
        """
        sizes = {"element": (channels,), "delays": 1, "code": channels, "window": window, "heads": window}
        sizes |= {"rank": rank, "state_features": 1 + rank, "observation_features": channels, "head_hidden": 0}
        none = dict.fromkeys(("encoder_hidden", "state_hidden", "observation_hidden", "readout_hidden"), ())
        return cls(**(sizes | none | changes))

    @classmethod
    def _preset(cls, clean: dict, published: dict, changes: dict) -> DSEConfig:
        sizes = {"dropout": 0.1, **published} if changes.get("reading") == "published" else clean
        return cls(**(sizes | changes))


class BlockHeads(nn.Module):
    """Block features: one small network per code coordinate reads its window, most recent code first for the past.

    Parameters
    ----------
    code, window, hidden : int
        Published: 50 heads 20-32-1 for Van der Pol. Linear if ``hidden = 0``.
    heads : int
        Outputs of each of the networks.
    """

    def __init__(self, code: int, window: int, hidden: int, heads: int = 1):
        super().__init__()
        sizes = [window, hidden, heads] if hidden else [window, heads]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in zip(sizes, sizes[1:]):  # torch's own initialisation of linear layers
            bound = fan_in**-0.5
            self.weights.append(nn.Parameter(torch.empty(code, fan_in, fan_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(code, 1, fan_out).uniform_(-bound, bound)))

    def forward(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Features of all windows of codes ``(*batch, time, code)``, as a past and as a future.

        Returns
        -------
        tuple of Tensor
            ``(*batch, time - window + 1, code * heads)`` both; entry t is of the window that begins at t.
        """
        batch, window = codes.shape[:-2], self.weights[0].shape[1]
        # (code, batch, windows, window): a window is read as it lies for the future, backwards for the past.
        rows = codes.reshape(-1, *codes.shape[-2:]).permute(2, 0, 1).contiguous().unfold(-1, window, 1)
        count = rows.shape[2]
        rows = rows.flatten(1, 2)
        first, bias = self.weights[0], self.biases[0]
        # Both directions in one product; their hidden layers then lie one below the other, (code, 2 rows, hidden).
        x = torch.baddbmm(torch.cat([bias, bias], -1), rows, torch.cat([first.flip(1), first], -1))
        if len(self.weights) > 1:
            x = torch.baddbmm(self.biases[1], x.relu_().reshape(len(x), -1, first.shape[-1]), self.weights[1])
        heads = self.weights[-1].shape[-1]
        features = x.reshape(len(x), -1, count, 2, heads).permute(3, 1, 2, 0, 4).reshape(2, *batch, count, -1)
        return features[0], features[1]


class StateDictionary(nn.Module):
    """Features of states: in the clean reading the constant 1, the state itself, harmonics; and those of a network."""

    def __init__(self, config: DSEConfig):
        super().__init__()
        self.explicit, self.harmonics = config.explicit > 0, config.harmonics
        learned = config.state_features - config.explicit
        sizes = [config.rank, *config.state_hidden, learned]
        self.net = mlp(sizes, nn.ReLU, config.dropout) if learned else None

    def forward(self, states: Tensor) -> Tensor:
        """``(*batch, rank) -> (*batch, size)``, float64."""
        parts = [torch.ones_like(states[..., :1]), states] if self.explicit else []
        if self.harmonics:
            orders = torch.arange(2, self.harmonics + 1, device=states.device)
            angle = torch.atan2(states[..., 1], states[..., 0])[..., None] * orders
            parts += [angle.cos(), angle.sin()]
        if self.net is not None:
            parts.append(self.net(states.to(dtype_of(self.net))))
        return torch.cat([part.double() for part in parts], -1)


class Beside(nn.Module):
    """What a network makes of ``(..., n)``, behind the first `kept` of these numbers themselves."""

    def __init__(self, net: nn.Sequential, kept: int):
        super().__init__()
        self.net, self.kept = net, kept

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[..., : self.kept], self.net(x)], -1)


def beside(sizes: Sequence[int], kept: int, dropout: float = 0.0) -> nn.Module:
    """`mlp` with ReLU, the first `kept` of its outputs being its first inputs."""
    if not kept:
        return mlp(sizes, nn.ReLU, dropout)
    return Beside(mlp([*sizes[:-1], sizes[-1] - kept], nn.ReLU, dropout), kept)


def signal_encoder(config: DSEConfig) -> nn.Sequential:
    """30-128-128-64-50 with tanh, for Van der Pol: 31,986 parameters."""
    return initialise(mlp([config.inputs, *config.encoder_hidden, config.code], nn.Tanh), "tanh")


def signal_decoder(config: DSEConfig) -> nn.Sequential:
    """50-64-128-128-30 with tanh, for Van der Pol: 31,966 parameters."""
    return initialise(mlp([config.code, *reversed(config.encoder_hidden), config.inputs], nn.Tanh), "tanh")


def mlp(sizes: Sequence[int], activation: type[nn.Module], dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with the activation, and dropout if there is any, between them; Xavier-uniform weights."""
    layers: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:])):
        if i:
            layers += [activation(), nn.Dropout(dropout)] if dropout else [activation()]
        linear = nn.Linear(fan_in, fan_out)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
    return nn.Sequential(*layers)


@torch.no_grad()
def solve_last(net: nn.Sequential, x: Tensor, target: Tensor, penalty: float) -> None:
    """Set the last layer of a network, linear, to the ridge solution for ``(rows, n)`` to ``(rows, p)``.

    The penalty is per row, in units of the mean variance of what goes into the layer.
    """
    hidden = net[:-1](x.to(dtype_of(net))).double()
    mean, aim = hidden.mean(0), target.double().mean(0)
    scale = (hidden - mean).square().mean()
    weight = ridge(hidden - mean, target.double() - aim, penalty * len(x) * scale)
    net[-1].weight.copy_(weight.mT)
    net[-1].bias.copy_(aim - mean @ weight)


def initialise(net: nn.Module, activation: str) -> nn.Module:
    """Kaiming-normal weights by fan-out for ReLU, Xavier-normal ones for tanh, zero biases."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if activation == "relu":
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


def dtype_of(net: nn.Module) -> torch.dtype:
    return next(net.parameters()).dtype
