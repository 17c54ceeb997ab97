"""Stable invariant models and what they are compared with, of about one size, by name."""

from __future__ import annotations

from typing import Literal, get_args

from kpm.errors import pick
from kpm.models.deq import DEQ, DEQConfig
from kpm.models.feedforward import FeedForward, FeedForwardConfig
from kpm.models.mondeq import MonDEQ, MonDEQConfig
from kpm.models.sim import SIM, SIMConfig

Config = SIMConfig | DEQConfig | MonDEQConfig | FeedForwardConfig
Model = SIM | DEQ | MonDEQ | FeedForward
Name = Literal[
    "sim-one-free",
    "sim-one-oblique",
    "sim-two-free",
    "sim-two-oblique",
    "mondeq",
    "deq",
    "weight-tied",
    "feed-forward",
]
MODELS: tuple[str, ...] = get_args(Name)
STEMS = ("dense", "conv")
# Width of the basis, of one tier and of two, and size of the state of DEQ, monotone DEQ and feed-forward network: such
# that each model has about 81000 parameters on MNIST. The convolutional widths of one tier and two are published, for
# one channel (24, 21) and for three (38, 36), where the rest of a model is too small to matter.
_SIZES = {"dense": (89, 77, 92, 84, 92), "conv": (24, 21, 52, 50, 52)}
_COLOUR = (38, 36)
UNROLLED = 10  # layers of the weight-tied network


def config(name: str, stem: str, shape: tuple[int, ...], outputs: int, sigma: float = 10.0) -> Config:
    """The configuration of a model.

    Parameters
    ----------
    name : str
        One of `MODELS`.
    stem : {"dense", "conv"}
        What reads the image: one layer, or the four published convolutions. Of a SIM it is the whole basis, with one
        hidden layer where it is dense; of the others it drives the layer whose fixed point is sought.
    shape : tuple of int
        ``(channels, height, width)``.
    outputs : int
        Classes.
    sigma : float
        Width of the second tier's kernel.
    """
    pick("model", name, MODELS)
    one, two, deq, mondeq, plain = _SIZES[pick("stem", stem, STEMS)]
    if stem == "conv" and shape[0] == 3:
        one, two = _COLOUR
    if name.startswith("sim-"):
        _, tiers, mode = name.split("-")
        basis = "conv" if stem == "conv" else "mlp"
        if tiers == "one":
            return SIMConfig(basis=basis, shape=shape, width=one, mode=mode, outputs=outputs)
        return SIMConfig(
            basis=basis, shape=shape, width=two, features="fourier", size=104, mode=mode, sigma=sigma, outputs=outputs
        )
    about = {"stem": "conv" if stem == "conv" else "linear", "shape": shape, "width": one, "outputs": outputs}
    if name == "mondeq":
        return MonDEQConfig(size=mondeq, **about)
    if name == "feed-forward":
        return FeedForwardConfig(size=plain, **about)
    if name == "weight-tied":
        return DEQConfig(size=deq, gradient="unrolled", most=UNROLLED, **about)
    return DEQConfig(size=deq, **about)


def build(of: Config) -> Model:
    """The model of a configuration, with fresh weights."""
    kinds = {SIMConfig: SIM, DEQConfig: DEQ, MonDEQConfig: MonDEQ, FeedForwardConfig: FeedForward}
    return kinds[type(of)](of)
