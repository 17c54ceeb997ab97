"""A fitted deep spectral encoder of images as a predictor of films like the others."""

from __future__ import annotations

from torch import Tensor

from kpm.models.baselines.predictor import ELEMENT, FilmPredictor, pixels
from kpm.models.baselines.settled_filter import settled_filter
from kpm.models.dse import DSE


class DSEPredictor(FilmPredictor):
    """A belief is the mean of the state features before their frame is seen, by the model's Kalman filter.

    Parameters
    ----------
    model : DSE
        Fitted to images, see `kpm.training.dse.train`.
    linear : bool
        Frames by linear regression on the features (`DSE.frame_map`) instead of by the decoder.
    """

    def __init__(self, model: DSE, linear: bool = False):
        self.model, self.linear = model.eval(), linear
        self.filter = settled_filter(model.system)

    def beliefs(self, frames: Tensor) -> Tensor:
        """Means ``(n, time + 1, state_features)``, float64, of frames ``(n, time, 1, 48, 48)``, from those before."""
        return self.filter.predicted(self.model.observe(self.model.encode(pixels(frames), 512)))

    def advance(self, beliefs: Tensor) -> Tensor:
        """Means ``(n, t, state_features)`` one step on, with no frame seen."""
        return beliefs @ self.filter.model.transition

    def decode(self, beliefs: Tensor) -> Tensor:
        """Frames ``(n, t, 1, 48, 48)`` of means ``(n, t, state_features)``."""
        if self.linear:
            return (beliefs @ self.model.fitted("frame_map")).unflatten(-1, ELEMENT)
        return self.model.decode(beliefs)
