"""Koopman autoencoder of video: CNN + LSTM encoder, linear dynamics in the latent space, LSTM + CNN decoder.

With one operator for the whole batch (``scope="batch"``) it is SKD (Berman, Naiman, Azencot, ICLR 2023) with the
corrections of the SSM-SKD thesis; with one operator per sequence (``scope="sequence"``) it is SSM-SKD.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from kpm.models import koopman, shared_batch
from kpm.models.layers import Conv2d, ConvTranspose2d, Seed2d, block
from kpm.models.similar_motion import lend_motion
from kpm.models.training_swaps import SwapPlan, Swaps, swap_with_next
from kpm.solvers import Split, checks

Scope = Literal["batch", "sequence"]


@dataclasses.dataclass(frozen=True)
class KoopmanAutoencoderConfig:
    """Sizes of the model; the defaults are SSM-SKD on Sprites ([SSM-SKD] Tables 5-7).

    Attributes
    ----------
    scope : {"sequence", "batch"}
        One Koopman operator per sequence (SSM-SKD) or one for the whole batch (SKD).
    latent_dim : int
        K, size of a frame's latent vector.
    hidden_dim : int
        H, output size of the decoder's LSTM.
    static_size : int
        s, how many eigenvalues are held at 1.
    dropout : float
        On the latents that are decoded for the reconstruction loss.
    static_noise : float
        On the same latents, in training: a random shift of each film, constant in time, of so many standard deviations
        of the films' mean latents. What motion tells as well is then better read from the motion, so that the static
        part need not carry it. Not in the thesis.
    width : int
        Channels of the first convolution; each further one doubles it.
    channels : int
        Colour channels of a frame. Frames are 64 x 64.
    recurrent : bool
        Whether encoder and decoder end and begin with an LSTM over time; without, each frame is coded by itself and a
        linear layer leads from K to H (the ablation of [SSM-SKD] sec. 7.3).
    axes : bool
        Whether a linear map of the latents, K to K and without offset, ends the encoder. An LSTM cannot turn its own
        outputs; with it the channels can lie along axes that vary independently (`kpm.models.channel_basis.turn`).
        Not in the thesis.
    """

    scope: Scope = "sequence"
    latent_dim: int = 15
    hidden_dim: int = 170
    static_size: int = 1
    dropout: float = 0.2
    static_noise: float = 0.0
    width: int = 32
    channels: int = 3
    recurrent: bool = True
    axes: bool = False


class Output(NamedTuple):
    """What a forward pass gives: latents (n, t, K), frames (n, t, c, h, w), eigenvalues.

    `prediction` may hold the first films only (`KoopmanAutoencoder.forward`). `swapped`, if asked for, are latents of
    the first films with a part of another film, and `returned` what the encoder makes of the frames they decode to.
    `drawn` ``(k, t, c, h, w)`` are these frames, and `looks_like` ``(k,)`` the films whose static part is in them, -1
    where it is of two films.
    `between` are frames of the same films with a part from between two others, and `ends` ``(2, n, t, c, h, w)`` with
    that part of either. `mirrored` ``(m, t, c, h, w)`` are frames of some films' looks with the motion of others, and
    `mirror_images` these others. `borrowed` ``(k, t, c, h, w)`` are frames of the films `borrowers` with the dynamic
    part of another film that moves alike.
    A named tuple, since Fabric rebuilds outputs to convert their precision and refuses frozen dataclasses.
    """

    latents: Tensor
    predicted_latents: Tensor
    reconstruction: Tensor
    prediction: Tensor
    eigenvalues: Tensor
    swapped: Tensor | None = None
    returned: Tensor | None = None
    drawn: Tensor | None = None
    looks_like: Tensor | None = None
    between: Tensor | None = None
    ends: Tensor | None = None
    mirrored: Tensor | None = None
    mirror_images: Tensor | None = None
    borrowed: Tensor | None = None
    borrowers: Tensor | None = None


def _like(net: nn.Module, x: Tensor) -> Tensor:
    """`x` in the precision of `net`, which is float32 unless it was made for inference."""
    return x.to(next(net.parameters()).dtype)


class Encoder(nn.Module):
    """Frames ``(n, t, c, 64, 64)`` to latents ``(n, t, K)``: five convolutions per frame, an LSTM over time, axes."""

    def __init__(self, config: KoopmanAutoencoderConfig):
        super().__init__()
        w, k = config.width, config.latent_dim
        sizes = [config.channels, w, 2 * w, 4 * w, 8 * w]
        self.cnn = nn.Sequential(
            *(block(Conv2d(a, b, 4, 2, 1), b) for a, b in zip(sizes, sizes[1:])),
            nn.Sequential(Conv2d(8 * w, k, 4, 1, 0), nn.BatchNorm2d(k), nn.Tanh()),
        )
        self.lstm = nn.LSTM(k, k, batch_first=True) if config.recurrent else None
        self.axes = nn.Linear(k, k, bias=False) if config.axes else None
        if self.axes is not None:
            nn.init.eye_(self.axes.weight)

    def forward(self, frames: Tensor) -> Tensor:
        n, t = frames.shape[:2]
        features = self.cnn(_like(self.cnn, frames.flatten(0, 1))).view(n, t, -1)
        with torch.autocast(frames.device.type, enabled=False):
            if self.lstm is not None:
                latents = self.lstm(_like(self.lstm, features))[0]
            else:
                latents = features if features.dtype == torch.float64 else features.float()  # convolutions may be bf16
            return latents if self.axes is None else self.axes(latents)


class Decoder(nn.Module):
    """Latents ``(n, t, K)`` to frames ``(n, t, c, 64, 64)``: an LSTM over time, then five transposed convolutions."""

    def __init__(self, config: KoopmanAutoencoderConfig):
        super().__init__()
        w, h = config.width, config.hidden_dim
        sizes = [8 * w, 4 * w, 2 * w, w]
        self.lstm = nn.LSTM(config.latent_dim, h, batch_first=True) if config.recurrent else None
        self.linear = None if config.recurrent else nn.Linear(config.latent_dim, h)
        self.cnn = nn.Sequential(
            block(Seed2d(h, 8 * w, 4), 8 * w),
            *(block(ConvTranspose2d(a, b, 4, 2, 1), b) for a, b in zip(sizes, sizes[1:])),
            nn.Sequential(ConvTranspose2d(w, config.channels, 4, 2, 1), nn.Sigmoid()),
        )

    def forward(self, latents: Tensor) -> Tensor:
        n, t = latents.shape[:2]
        with torch.autocast(latents.device.type, enabled=False):
            if self.lstm is None:
                hidden = self.linear(_like(self.linear, latents))
            else:
                hidden = self.lstm(_like(self.lstm, latents))[0]
        frames = self.cnn(_like(self.cnn, hidden.reshape(n * t, -1, 1, 1)))
        return frames.unflatten(0, (n, t))


class KoopmanAutoencoder(nn.Module):
    """SKD and SSM-SKD in one model; see `KoopmanAutoencoderConfig`."""

    def __init__(self, config: KoopmanAutoencoderConfig | None = None):
        super().__init__()
        self.config = config = config or KoopmanAutoencoderConfig()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.drop = nn.Dropout(config.dropout)
        self.shared = False  # whether `kpm.models.shared_batch.share_batch` cut the batches among processes
        # Convolutions are up to twice as fast when the channels of a pixel lie together in memory.
        self.to(memory_format=torch.channels_last)

    def encode(self, frames: Tensor) -> Tensor:
        """Latents ``(n, t, K)`` of frames ``(n, t, c, 64, 64)`` in [0, 1]."""
        shape = tuple(frames.shape)
        if frames.ndim != 5 or shape[-2:] != (64, 64) or shape[2] != self.config.channels or 0 in shape:
            raise ValueError(f"frames: expected (n, t, {self.config.channels}, 64, 64), got {shape}")
        if not frames.is_floating_point():
            raise ValueError(f"frames: expected floats in [0, 1], got {frames.dtype} (see SequenceDataset.to_float)")
        if not self.training:  # in training the loss is looked at anyway
            checks.finite(frames, "frames")
        return self.encoder(frames)

    def learn(self, decoder_only: bool = False) -> None:
        """Training mode; with `decoder_only` encoder, operators and means of batch norm stay what they are."""
        self.train()
        self.encoder.requires_grad_(not decoder_only).train(not decoder_only)
        self.decoder.train(not decoder_only)

    def decode(self, latents: Tensor) -> Tensor:
        """Frames ``(n, t, c, 64, 64)`` of latents ``(n, t, K)``."""
        if latents.ndim != 3 or latents.shape[-1] != self.config.latent_dim or 0 in latents.shape:
            raise ValueError(f"latents: expected (n, t, {self.config.latent_dim}), got {tuple(latents.shape)}")
        if not self.training:
            checks.finite(latents, "latents")
        return self.decoder(latents)

    def forward(
        self,
        frames: Tensor,
        predictions: int | None = None,
        swaps: SwapPlan | None = None,
        static_map: Tensor | None = None,
        mirrored: Tensor | None = None,
        mirror_images: Tensor | None = None,
        borrowing: int = 0,
    ) -> Output:
        """Encode, fit the operator(s), predict one step ahead, decode both versions in one pass of the decoder.

        Parameters
        ----------
        frames : Tensor
            ``(n, t, c, 64, 64)`` in [0, 1].
        predictions : int, optional
            The prediction is decoded for so many films only, the first: decoding costs more than all the rest.
        swaps : SwapPlan, optional
            Films that are also decoded after swaps, and what is done with these (`kpm.models.training_swaps`).
        static_map : Tensor, optional
            ``(K, K)``, of latents to their static part, instead of the operator of these few films
            (`kpm.models.parts.static_map`).
        mirrored, mirror_images : Tensor, optional
            Numbers ``(m,)`` of films that are also decoded with the dynamic part of others, and these others, ``(m, t,
            c, 64, 64)``.
        borrowing : int
            Of so many films, the first, those that another one moves like (`kpm.models.similar_motion`) are also
            decoded with its dynamic part; mirror images then lend the dynamic part of such a film instead of their own.
        """
        if predictions is not None and not 1 <= predictions <= len(frames):
            raise ValueError(f"predictions: expected 1 to {len(frames)} films, got {predictions}")
        if swaps and not (1 <= swaps.films <= len(frames) and len(frames) > 1):
            raise ValueError(f"swaps: expected at most {len(frames)} films, of at least 2, got {swaps.films}")
        images = frames[:0] if mirror_images is None else mirror_images
        z, seen = self.encode(torch.cat([frames, images])).split([len(frames), len(images)])
        together = self.shared and self.training and self.config.scope == "batch"
        with torch.autocast(frames.device.type, enabled=False):
            predicted, eigenvalues = koopman.predict(z, self.config.scope, shared_batch.whole(z) if together else None)
        swapped = self._swapped(z, swaps, static_map) if swaps else None
        # What is only the wanted picture of a point between is decoded below, without a gradient.
        seen_again = swaps is not None and (swaps.returns or swaps.looks)
        extra: list[Tensor] = []
        if swaps and swapped:
            extra += [swapped.nearer, swapped.other][: 1 + swaps.between] if seen_again else []
            extra += [swapped.between] if swaps.between else []
        latents = [self._spoilt(z), predicted[:predictions], *extra]
        lent = None
        if len(images) or borrowing:
            with torch.autocast(frames.device.type, enabled=False):
                which = z.new_zeros(0, dtype=torch.long) if mirrored is None else mirrored
                lent = lend_motion(*self._parts(torch.cat([z, seen]), static_map), which, borrowing)
            latents += [lent.mirrored.to(z.dtype), lent.borrowed.to(z.dtype)]
        reconstruction, prediction, *after = self.decode(torch.cat(latents)).split([len(x) for x in latents])
        output = Output(z, predicted, reconstruction, prediction, eigenvalues)
        if lent is not None:
            *after, looks, borrowed = after
            output = output._replace(mirrored=looks, mirror_images=images) if len(images) else output
            output = output._replace(borrowed=borrowed, borrowers=lent.borrowers) if len(borrowed) else output
        if swaps and swapped and seen_again:
            output = output._replace(swapped=swapped.nearer.detach(), drawn=after[0], looks_like=swapped.looks_like)
            output = output._replace(returned=self.encode(after[0])) if swaps.returns else output
        if swaps and swapped and swaps.between:
            *whole, blend = after
            if not seen_again:
                with torch.no_grad():
                    whole = [*self.decode(torch.cat([swapped.nearer, swapped.other])).chunk(2)]
            output = output._replace(ends=torch.stack(whole).detach(), between=blend)
        return output

    def _swapped(self, z: Tensor, plan: SwapPlan, static_map: Tensor | None) -> Swaps:
        """Swaps of latents in their precision; a gradient runs on through those that are looked at, and no others."""
        learns = torch.set_grad_enabled(plan.looks and torch.is_grad_enabled())
        with learns, torch.autocast(z.device.type, enabled=False):
            swaps = swap_with_next(*self._parts(z, static_map), plan)
        nearer, other, between = (x.to(z.dtype) for x in swaps[:3])
        nearer = torch.where((swaps.looks_like >= 0).view(-1, 1, 1), nearer, nearer.detach())
        return Swaps(nearer, other.detach(), between.detach(), swaps.looks_like)

    def _parts(self, z: Tensor, static_map: Tensor | None) -> tuple[Tensor, Tensor]:
        if static_map is None:
            parts = koopman.split(z, self.config.scope, self.config.static_size)
            return parts.static, parts.dynamic
        static = z.to(static_map) @ static_map
        return static, z - static

    def _spoilt(self, z: Tensor) -> Tensor:
        z = self.drop(z)
        if not (self.training and self.config.static_noise):
            return z
        means = z.detach().mean(1, keepdim=True)
        means = shared_batch.whole(means) if self.shared else means
        noise = torch.randn_like(means)
        noise = shared_batch.own(noise) if self.shared else noise
        return z + self.config.static_noise * means.std(0, correction=0, keepdim=True) * noise

    @torch.no_grad()
    def split(self, frames: Tensor) -> Split:
        """Static and dynamic parts of the latents of `frames`; put the model in eval mode first."""
        return koopman.split(self.encode(frames), self.config.scope, self.config.static_size)
