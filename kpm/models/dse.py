"""The deep spectral encoder: a learnt state of an observed process, with linear dynamics in a learnt dictionary of it.

An encoder turns each frame (of a signal: each delay window) into a code ``m[t]``. Block features of the codes before
and after a time go into a stochastic realization, whose states ``x[t]`` are what the past tells about the future. A
dictionary ``phi`` of states evolves linearly, ``phi(x[t+1]) ~ phi(x[t]) @ transition``, and shows in a dictionary
``psi`` of codes, ``psi(m[t]) ~ phi(x[t]) @ output``; both operators are ridge solutions. Eigenvalues of the first are
the spectrum of the process, and with noise covariances the two make a Kalman filter. Training is in
`kpm.training.dse`.

Readings
--------
The method is the *clean* reading; the *published* one is what the paper's code does. They differ in this:

==================  ==========================================  ==================================================
..                  clean                                       published
==================  ==========================================  ==================================================
frames of signals   scaled to unit variance per channel         as they are
states of presets   Van der Pol 16; Stuart-Landau 2, with the   Van der Pol 9; Stuart-Landau 13
                    harmonics of their angle given
networks for        smaller encoder (64-32-16), one frame at a  as for Van der Pol (128-128-64-50), from 10 delays
Stuart-Landau       time, blocks of 5, linear block features
past and future     share no frame: `delays - 1` codes between  adjacent codes, whose windows overlap
decoder of images   reaches every pixel                         leaves 1008 of 2304 the same for all codes
codes of images     principal components beside a network's     those of the network
block features      trained with the encoder; of images, four   as initialised, one per code
                    per code
states              centred; signs and axes kept over training  not centred; axes as they come
state dictionary    has the constant, the state, harmonics      network only
pairs               state t with the first code it has not      with the codes at t + 1 (training), t - 1 (final
                    seen, everywhere                            output operator) and t (noise)
realization         that of the training data, for all data     found again on the data the filter is given
transition          filter: regression on all training data     filter: mean over the folds
spectrum            past against future (see                    of the transition of the last epoch, before its last
                    `dse_operators.fit_spectrum`)               updates
noise covariances   residuals of the training data              residuals of the data the filter is given
filter's start      mean and covariance of training features    codes of the first ten frames, cut to size
losses, schedule    see `kpm.training.dse`                      see `kpm.training.dse_published`
==================  ==========================================  ==================================================

The filter recursion is one for both: Joseph form, in float64. (The published one subtracts, and lifts the eigenvalues
of every covariance to 1e-6.)
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from kpm.models import dse_filtering
from kpm.models import dse_image_networks as images
from kpm.models import dse_networks as networks
from kpm.models.dse_networks import DSEConfig
from kpm.solvers import checks, spectra
from kpm.solvers.linear_gaussian import LinearGaussian
from kpm.solvers.realization import Realization, realize


@dataclasses.dataclass(frozen=True)
class DSEModes:
    """Koopman modes: a frame is nearly the sum of ``amplitudes[j] * frames[j]``.

    Attributes
    ----------
    spectrum : Spectrum
        Discrete eigenvalues, largest first; its `amplitudes` takes features ``(*batch, time, state_features)``.
    frames : Tensor
        complex128 ``(m, *element)``: how each mode looks, in the units of the data, by linear regression of frames on
        features.
    """

    spectrum: spectra.Spectrum
    frames: Tensor


class DSE(nn.Module):
    """Networks, realization, operators and noise of a deep spectral encoder.

    All fitted quantities are buffers, so that a state dict is the whole model. Until `kpm.training.dse.train` or
    `kpm.models.dse_operators.fit_operators` has set them they are NaN, and what needs them raises `ValueError`.
    """

    def __init__(self, config: DSEConfig | None = None):
        super().__init__()
        self.config = c = config or DSEConfig()
        if c.components:
            self.encoder = images.FilmEncoder(c.code, c.components)
            self.decoder = images.FilmDecoder(c.code, self.encoder.components)
        elif c.is_image:
            self.encoder = images.ImageEncoder(c.code)
            self.decoder = images.ImageDecoder(c.code, c.is_published)
        else:
            self.encoder, self.decoder = networks.signal_encoder(c), networks.signal_decoder(c)
        self.heads = networks.BlockHeads(c.code, c.window, c.head_hidden, c.heads)
        self.heads.requires_grad_(not c.is_published)
        self.dictionary = networks.StateDictionary(c)
        sizes = [c.code, *c.observation_hidden, c.observation_features]
        self.observation_dictionary = networks.beside(sizes, c.components, c.dropout)
        self.state_readout = networks.mlp([c.state_features, *c.readout_hidden, c.rank], nn.ReLU)
        sizes = [c.observation_features, *c.readout_hidden, c.code]
        self.observation_readout = networks.beside(sizes, c.components)
        d, p, m, r = c.state_features, c.observation_features, c.block_features, c.rank
        shapes = {"centre": c.element[:1], "scale": c.element[:1], "transition": (d, d), "output": (d, p)}
        shapes |= {"spectral_transition": (d, d), "fold_transition": (d, d), "frame_map": (d, math.prod(c.element))}
        shapes |= {"process_noise": (d, d), "observation_noise": (p, p)}
        shapes |= {"initial_mean": (d,), "initial_covariance": (d, d)}
        vectors = dict.fromkeys(("correlations", "past_mean", "future_mean"), (m,))
        matrices = dict.fromkeys(("past_whitening", "future_whitening"), (m, m))
        directions = dict.fromkeys(("past_directions", "future_directions"), (m, r))
        numbers = dict.fromkeys(("past_condition", "future_condition"), ())
        for name, shape in (shapes | vectors | matrices | directions | numbers).items():
            self.register_buffer(name, torch.full(shape, torch.nan, dtype=torch.float64))

    # From frames to features

    def set_scale(self, y: Tensor) -> None:
        """Take mean and standard deviation of each channel of a signal as those that the encoder is trained for.

        Raises `ValueError` for a constant channel, or images that are all one colour.
        """
        y = self.sequences(y)
        flat = y.reshape(-1, self.config.element[0]) if not self.config.is_image else y.reshape(-1, 1)
        mean, deviation = flat.double().mean(0), flat.double().std(0)
        if not (deviation > 1e-12 * (1 + mean.abs())).all():
            raise ValueError(f"y: a channel is constant, there is nothing to learn (shape {tuple(y.shape)})")
        scaled = not (self.config.is_image or self.config.is_published)
        if self.config.components:
            self.encoder.components.fit(y)
        self.centre.copy_(mean if scaled else torch.zeros_like(mean))
        self.scale.copy_(deviation if scaled else torch.ones_like(deviation))

    def encode(self, y: Tensor, chunk: int | None = None) -> Tensor:
        """Codes ``(n, time - delays + 1, code)`` of sequences ``(n, time, *element)``; code t sees frames from t on."""
        inputs = self.inputs(y)
        flat = inputs.flatten(0, 1)
        codes = torch.cat([self.encoder(part) for part in flat.split(chunk)]) if chunk else self.encoder(flat)
        return codes.unflatten(0, inputs.shape[:2])

    def inputs(self, y: Tensor) -> Tensor:
        """What the encoder is given and the decoder aims at: images in [0, 1], or scaled windows ``(n, t, inputs)``."""
        dtype = networks.dtype_of(self.encoder)
        if self.config.is_image:
            return y.to(dtype) / 255 if y.dtype == torch.uint8 else y.to(dtype)
        scaled = ((y.double() - self.fitted("centre")) / self.scale).to(dtype)
        return scaled.unfold(1, self.config.delays, 1).transpose(-1, -2).flatten(-2)

    def blocks(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Past and future features ``(n, time - span + 1, code * heads)`` of codes ``(n, time, code)``.

        Entry i has the codes from i on as its past, and its state belongs to time ``i + window + gap``, that of the
        first code of its future.
        """
        past, future = self.heads(codes) if self.config.realized else (codes, codes)
        start = self.config.window + self.config.gap
        return past[:, : past.shape[1] - start], future[:, start:]

    def present(self, codes: Tensor) -> Tensor:
        """Codes at the times of the states: the first of each future block, ``(n, time - span + 1, code)``."""
        start = self.config.window + self.config.gap
        return codes[:, start : codes.shape[1] - self.config.window + 1]

    def find_realization(self, past: Tensor, future: Tensor, previous: Realization | None = None) -> Realization:
        """Realization of block features; its axes turned to those of a `previous` one as well as they can be."""
        if not self.config.realized:
            return standardised(past, self.config.rank)
        found = realize(past, future, self.config.rank, loading=self.config.loading)
        if previous is None or self.config.is_published:
            return found
        with torch.no_grad():
            x = past.detach().double().flatten(0, -2)
            root = found.correlations[: found.rank].sqrt()
            old = previous.past_directions * previous.correlations[: found.rank].sqrt()
            new = found.past_directions * root
            x = x - x.mean(0)
            u, _, vh = torch.linalg.svd((x @ new).mT @ (x @ old))
            turn = root[:, None] * (u @ vh) / root
            return dataclasses.replace(
                found,
                past_directions=found.past_directions @ turn,
                future_directions=found.future_directions @ turn,
            )

    def states(self, past: Tensor, realization: Realization | None = None) -> Tensor:
        """States ``(n, time, rank)`` of past features; float64, differentiable with respect to these."""
        found = realization or self.realization
        if self.config.is_published:
            past = past + found.past_mean.to(past.dtype)
        return found.transform(past)

    def observe(self, codes: Tensor) -> Tensor:
        """Observation features ``(*batch, observation_features)`` of codes, float64."""
        return self.observation_dictionary(codes).double()

    # Closed form

    @property
    def realization(self) -> Realization:
        """That of the training data."""
        return Realization(**{f.name: self.fitted(f.name) for f in dataclasses.fields(Realization)})

    @realization.setter
    def realization(self, found: Realization) -> None:
        for field in dataclasses.fields(Realization):
            getattr(self, field.name).copy_(getattr(found, field.name).detach())

    @property
    def has_realization(self) -> bool:
        return bool(self.past_mean.isfinite().all())

    @property
    def penalty(self) -> Tensor:
        """Ridge of the transition for each feature ``(state_features,)``: none on the constant."""
        penalty = torch.full_like(self.initial_mean, self.config.ridge_transition)
        if not self.config.is_published:
            penalty[0] = 0
        return penalty

    @property
    def purge(self) -> int:
        """Pairs of states before and after a given one that share a frame with it, or with its present code."""
        return self.config.window + self.config.gap + self.config.delays

    # What the fitted model is for

    @property
    def system(self) -> LinearGaussian:
        """The linear Gaussian model of state features and observation features."""
        names = [f.name for f in dataclasses.fields(LinearGaussian)]
        return LinearGaussian(**{name: self.fitted(name) for name in names})

    def filter(self, y: Tensor, mask: Tensor | None = None) -> dse_filtering.DSEFiltered:
        """Filter sequences ``(*batch, time, *element)``; see `kpm.models.dse_filtering.filter_sequences`."""
        return dse_filtering.filter_sequences(self, y, mask)

    def predict(self, y: Tensor, steps: int, mask: Tensor | None = None) -> dse_filtering.DSEForecast:
        """Frames 1 to `steps` steps after the end of `y`; see `kpm.models.dse_filtering.predict_sequences`."""
        return dse_filtering.predict_sequences(self, y, steps, mask)

    def eigenvalues(self, dt: float | None = None, folds: bool = False) -> Tensor:
        """Spectrum of the process, complex128 ``(state_features,)``, largest modulus first.

        Parameters
        ----------
        dt : float, optional
            Time between frames. If given, rates ``log(lambda) / dt`` instead of factors per frame.
        folds : bool
            That of the mean of the operators of the folds, instead of the operator of all data.
        """
        values = spectra.eigenvalues(self.fitted("fold_transition" if folds else "spectral_transition"))
        values = values[values.abs().argsort(descending=True, stable=True)]
        return values if dt is None else spectra.continuous(values, dt).values

    def modes(self) -> DSEModes:
        """Eigenvalues with the amplitude functions and frames that go with them; see `DSEModes`."""
        spectrum = spectra.decompose(self.fitted("spectral_transition"))
        frames = spectrum.left @ self.fitted("frame_map").to(spectrum.left.dtype)
        return DSEModes(spectrum, frames.unflatten(-1, self.config.element))

    def decode(self, features: Tensor) -> Tensor:
        """Newest frames ``(*batch, *element)``, in the units of the data, of state features ``(*batch, d)``."""
        batch, dtype = features.shape[:-1], networks.dtype_of(self.decoder)
        flat = (features.double() @ self.fitted("output")).to(dtype).reshape(-1, self.config.observation_features)
        frames = self.decoder(self.observation_readout(flat))
        if not self.config.is_image:
            channels = self.config.element[0]
            frames = frames[:, -channels:] * self.scale.to(dtype) + self.centre.to(dtype)
        return frames.reshape(*batch, *self.config.element)

    # Checks and helpers

    @property
    def fewest_frames(self) -> int:
        """Frames of a sequence below which there is no pair of states."""
        return self.config.span + self.config.delays

    def sequences(self, y: Tensor, least: int = 2, mask: Tensor | None = None) -> Tensor:
        """Checked sequences ``(n, time, *element)``, a batch axis added where there is none."""
        element = self.config.element
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        if not isinstance(y, Tensor) or y.ndim - len(element) not in (1, 2) or y.shape[-len(element) :] != element:
            raise ValueError(f"y: expected ([n,] time, {', '.join(map(str, element))}), got {shape}")
        y = y if y.ndim - len(element) == 2 else y[None]
        if y.numel() == 0 or y.shape[1] < least:
            raise ValueError(f"y: at least {least} frames are needed, got shape {shape}")
        if mask is not None:
            mask = mask if mask.ndim == 2 else mask[None]
            if mask.dtype != torch.bool or mask.shape != y.shape[:2]:
                raise ValueError(f"mask: expected bool {tuple(y.shape[:2])}, got {mask.dtype} {tuple(mask.shape)}")
            y = torch.where(mask.reshape(*mask.shape, *[1] * len(element)), y, torch.zeros_like(y))
        if y.is_floating_point():
            checks.finite(y, "y")
        return y

    def fitted(self, name: str) -> Tensor:
        """A buffer by name; `ValueError` if it has not been set."""
        value = getattr(self, name)
        if torch.isnan(value).any():
            raise ValueError(f"{name}: this model is not fitted; see kpm.training.dse.train")
        return value


@torch.no_grad()
def standardised(codes: Tensor, rank: int) -> Realization:
    """No realization: states are the first `rank` of the codes ``(n, time, code)`` themselves, with variance 1.

    Raises `ValueError` where one of them is constant.
    """
    rows = codes.double().flatten(0, 1)
    deviation = rows.std(0, correction=0)
    if not (deviation[:rank] > 0).all():
        raise ValueError(f"codes: {int((deviation[:rank] <= 0).nonzero()[0])} is constant, and was to be a state")
    eye = torch.eye(rows.shape[1]).to(rows)
    directions, ones = eye[:, :rank] / deviation[:rank], torch.ones(rows.shape[1]).to(rows)
    both = {"mean": rows.mean(0), "whitening": eye, "directions": directions, "condition": ones[0]}
    return Realization(ones, **{f"{side}_{name}": value for side in ("past", "future") for name, value in both.items()})
