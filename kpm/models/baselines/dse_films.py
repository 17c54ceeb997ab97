"""A fitted deep spectral encoder of images as a predictor of films like the others."""

from __future__ import annotations

from torch import Tensor

from kpm.models.baselines.predictor import FilmPredictor, pixels
from kpm.models.baselines.settled_filter import settled_filter
from kpm.models.dse import DSE


class DSEPredictor(FilmPredictor):
    """A belief is the mean of the state features before their frame is seen, by the model's Kalman filter.

    Parameters
    ----------
    model : DSE
        Fitted to images, see `kpm.training.dse.train`.
    """

    def __init__(self, model: DSE):
        self.model = model.eval()
        self.filter = settled_filter(model.system)

    def beliefs(self, frames: Tensor) -> Tensor:
        return self.filter.predicted(self.model.observe(self.model.encode(pixels(frames), 512)))

    def advance(self, beliefs: Tensor) -> Tensor:
        return beliefs @ self.filter.model.transition

    def decode(self, beliefs: Tensor) -> Tensor:
        return self.model.decode(beliefs)
