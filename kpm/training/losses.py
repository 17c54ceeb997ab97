"""The five losses of [SSM-SKD] eqs. 1-5, and more that are not in the thesis."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kpm.models import koopman
from kpm.models.koopman_autoencoder import Output
from kpm.models.looks import Looks
from kpm.training.config import TrainConfig
from kpm.training.looks import looks_loss


def koopman_losses(
    output: Output, frames: Tensor, config: TrainConfig, looks: Looks | None = None
) -> dict[str, Tensor]:
    """Weighted loss terms by name; their sum is what is minimised.

    Parameters
    ----------
    output : Output
        Of `KoopmanAutoencoder` on `frames`; where it predicts the first films only, they stand for all.
    frames : Tensor
        ``(n, t, c, h, w)`` in [0, 1].
    config : TrainConfig
        Weights, static size and threshold.
    looks : Looks, optional
        Says which film a swap looks like, where that counts.
    """
    later = frames[: len(output.prediction)]
    static, dynamic = koopman.spectral_loss(output.eigenvalues, config.static_size, config.threshold, config.latent_dim)
    terms = {
        "reconstruction": config.w_reconstruction * F.mse_loss(output.reconstruction.to(frames.dtype), frames),
        "predicted_latents": config.w_predicted_latents * F.mse_loss(output.predicted_latents, output.latents),
        "prediction": config.w_prediction * F.mse_loss(output.prediction.to(frames.dtype), later),
        "static_eigenvalues": config.w_eigenvalues * static.to(frames.dtype),
        "dynamic_eigenvalues": config.w_eigenvalues * dynamic.to(frames.dtype),
    }
    if config.w_absolute:
        films = [(output.reconstruction, frames), (output.prediction, later)][: 2 if config.w_prediction else 1]
        errors = [F.l1_loss(decoded.to(frames.dtype), film) for decoded, film in films]
        terms["absolute"] = config.w_absolute * sum(errors) / len(errors)
    if output.returned is not None:
        terms["swap"] = config.w_swap * swap_loss(output)
    if looks is not None and output.drawn is not None:
        how = config.looks_colour_blind, config.looks_spoil
        terms["looks"] = config.w_looks * looks_loss(output, frames, looks, *how)
    pixels = config.w_reconstruction, config.w_absolute
    if output.between is not None:
        terms["between"] = config.w_between * between_loss(output, *pixels, config.between_pixels)
    if output.mirrored is not None:
        terms["mirror"] = config.w_mirror * likeness_loss(output.mirrored, output.mirror_images, *pixels)
    if output.borrowed is not None:
        terms["borrowed"] = config.w_borrowed * likeness_loss(output.borrowed, frames[output.borrowers], *pixels)
    return terms


def swap_loss(output: Output) -> Tensor:
    """How far latents with a part of another film are from what is read off the frames they decode to.

    The squared error of the mean over time and that of what moves about it, each in units of its variance over films,
    so that neither hides behind the other. If the static part tells of the motion, or the motion of what is static, a
    swap joins parts that no film has, and they cannot both come back; and if a swap decodes to a poor picture, neither
    does. No label is needed. Of the kind of Hu et al., "Disentangling factors of variation by mixing them", CVPR 2018,
    with an encoder instead of a discriminator to look at the pictures.
    """
    assert output.swapped is not None and output.returned is not None
    z = output.latents.detach()
    error = output.returned.to(z.dtype) - output.swapped
    still = error.mean(1).square().mean() / _variance(z.mean(1))
    moving = (error - error.mean(1, keepdim=True)).square().mean() / _variance(z - z.mean(1, keepdim=True))
    return still + moving


def between_loss(output: Output, squared: float, absolute: float, pixels: float = 0.0) -> Tensor:
    """How far films with a part from between two others are from the same films with that part of one of the two.

    Of the two the one counts that is closer as a picture. Without this loss a decoder draws both motions at once, each
    half transparent, and colours get lost in the ghost. No label is needed, and no gradient goes to the two. A whole
    picture is much to ask of a point half-way, and where it is not reached what is left of both pulls at colours, too;
    if every pixel may choose for itself, there are no colours that neither has, and a reconstruction suffers less.

    Parameters
    ----------
    output : Output
        With `between` and `ends`.
    squared, absolute : float
        Weights of the squared and of the absolute difference of pixels.
    pixels : float
        Share of the loss in which the one counts that is closer in a pixel, and not as a picture.
    """
    assert output.between is not None and output.ends is not None
    kind = output.latents.dtype  # pictures may be bf16
    difference = output.ends.to(kind) - output.between.to(kind)
    distance = squared * difference.square() + absolute * difference.abs()
    whole = distance.flatten(2).mean(2).amin(0).mean()
    return torch.lerp(whole, distance.mean(3).amin(0).mean(), pixels) if pixels else whole


def likeness_loss(decoded: Tensor, wanted: Tensor, squared: float, absolute: float) -> Tensor:
    """How far films that were put together of two are from films that are known to look like that.

    A swap has no picture to be compared with, unless labels say which film shows it. Two kinds have one. The look of a
    film with the motion of its mirror image is the mirror image; without this, what is seen from the left may be taken
    for something like it seen from the right. And a film with the motion of another that moves alike is the film
    itself: what the dynamic part tells of a look is wrong there, so looks come to be read off the static part alone.

    Parameters
    ----------
    decoded, wanted : Tensor
        Frames ``(n, t, c, h, w)``.
    squared, absolute : float
        Weights of the squared and of the absolute difference of pixels.
    """
    decoded = decoded.to(wanted.dtype)  # pictures may be bf16
    return squared * F.mse_loss(decoded, wanted) + absolute * F.l1_loss(decoded, wanted)


def _variance(x: Tensor) -> Tensor:
    """Mean over entries of their variance over films; never so small that latents yet to spread would blow it up."""
    return x.var(0, correction=0).mean().clamp_min(1e-4)


class NonFiniteLoss(ArithmeticError):
    """A loss term or the gradient is not finite; the message names the step and the term."""


def check_finite(terms: dict[str, Tensor], when: str) -> dict[str, float]:
    """Loss terms as floats, in one transfer; raises `NonFiniteLoss` if one is NaN or infinite, saying `when`."""
    values = dict(zip(terms, torch.stack([t.detach() for t in terms.values()]).tolist()))
    bad = [name for name, value in values.items() if not abs(value) < float("inf")]
    if bad:
        listing = ", ".join(f"{k} {v:.4g}" for k, v in values.items())
        raise NonFiniteLoss(f"{when}: loss term {bad[0]!r} is not finite ({listing})")
    return values


def cross_entropy(logits: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
    """Sum over factors of the mean cross-entropy; logits ``(n, classes)`` or, per frame, ``(n, t, classes)``."""
    terms = []
    for factor, values in logits.items():
        target = labels[factor]
        if values.ndim == 3:
            target = target[:, None].expand(values.shape[:2]).flatten()
        terms.append(F.cross_entropy(values.flatten(0, -2), target))
    return torch.stack(terms).sum()
