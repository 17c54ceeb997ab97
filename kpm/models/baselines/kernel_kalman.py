"""The kernel Kalman rule: a Kalman filter of embedded states, in the coordinates of kernel features.

States, and what is observed of them, are embedded by kernels; transition and observation are ridge regressions between
the embeddings, and the filter runs on these ([KKR] Gebhardt, Kupcsik, Neumann 2017, 2019). The published formulas are
written with Gram matrices of all samples. Those here are the same in feature coordinates (`kernels.KernelFeatures`):
with all samples as references they give the same numbers, with fewer they are the method for long records, and with
linear kernels they are the ordinary Kalman filter. The published renormalisation of weights to sum 1 is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.models.baselines.kernels import KernelFeatures
from kpm.models.baselines.settled_filter import SettledFilter, settled_filter
from kpm.solvers import checks, filters
from kpm.solvers.linear_gaussian import LinearGaussian


@dataclass(frozen=True)
class KernelKalman:
    """Model of embedded states and observations.

    Attributes
    ----------
    state_features, observation_features : KernelFeatures
    filter : SettledFilter
        Of their coordinates.
    readout : Tensor
        ``(state features, q)``: regression of targets on the features of the state they are observed at.
    """

    state_features: KernelFeatures
    observation_features: KernelFeatures
    filter: SettledFilter
    readout: Tensor

    def predicted(self, y: Tensor) -> Tensor:
        """Mean embedding of the state at each frame and one after, given all frames before: ``(*batch, time + 1, d)``.

        Parameters
        ----------
        y : Tensor
            ``(*batch, time, channels)``.
        """
        return self.filter.predicted(self.observation_features(y))

    def one_step(self, y: Tensor) -> Tensor:
        """Target of each frame, predicted from the frames before it, ``(*batch, time, q)``."""
        return self.predicted(y)[..., :-1, :] @ self.readout

    def advance(self, means: Tensor) -> Tensor:
        """Mean embeddings ``(*batch, d)`` one step later, with nothing observed."""
        return means @ self.filter.model.transition

    def ahead(self, means: Tensor, steps: int) -> Tensor:
        """Targets of the state with these mean embeddings ``(*batch, d)`` and after: ``(*batch, steps, q)``."""
        checks.count(steps, "steps", 1, 10**6)
        rows = [means]
        for _ in range(steps - 1):
            rows.append(self.advance(rows[-1]))
        return torch.stack(rows, -2) @ self.readout


def fit_kernel_kalman(
    x: Tensor,
    x_next: Tensor,
    y_next: Tensor,
    targets: Tensor,
    *,
    state_features: KernelFeatures,
    observation_features: KernelFeatures,
    ridge_transition: float,
    ridge_observation: float,
    noise: float,
    residual_noise: bool = True,
    settle: int = 50,
) -> KernelKalman:
    """The model of samples of a state, the next state, and what is observed then.

    Parameters
    ----------
    x, x_next : Tensor
        ``(n, dim)``: row i of `x_next` follows row i of `x`.
    y_next : Tensor
        ``(n, channels)``, observed at `x_next`.
    targets : Tensor
        ``(n, q)``, what is to be predicted at `x_next`, for instance `y_next`.
    ridge_transition, ridge_observation : float
        Beside sums of squares.
    noise : float
        Variance per direction added to the covariance of the observation noise (alpha_Q of [KKR]).
    residual_noise : bool
        Whether that is the covariance of the residuals of the observation, or (as published) zero.
    settle : int
        Frames until the gain is taken as settled.

    Raises
    ------
    ValueError
        For shapes that do not fit or numbers that are not finite.
    """
    if not len(x) == len(x_next) == len(y_next) == len(targets):
        raise ValueError(f"x, x_next, y_next, targets: {[len(v) for v in (x, x_next, y_next, targets)]} rows")
    past, now, seen = state_features(x), state_features(x_next), observation_features(y_next)
    transition, output = ridge(past, now, ridge_transition), ridge(now, seen, ridge_observation)
    w, v = now - past @ transition, seen - now @ output
    centred = now - now.mean(0)
    eye = torch.eye(seen.shape[-1], dtype=torch.float64)
    model = LinearGaussian(
        transition=transition,
        output=output,
        process_noise=w.mT @ w / len(w),
        observation_noise=noise * eye + (v.mT @ v / len(v) if residual_noise else 0),
        initial_mean=now.mean(0),
        initial_covariance=centred.mT @ centred / len(now),
    )
    readout = ridge(now, targets.double(), ridge_observation)
    return KernelKalman(state_features, observation_features, settled_filter(model, settle), readout)


def ridge(x: Tensor, y: Tensor, weight: float) -> Tensor:
    """The matrix ``B`` with the least ``|y - x B|^2 + weight |B|^2``."""
    parts = filters.svd(x)
    return filters.inverse(x, parts, filters.above(parts), weight) @ y
