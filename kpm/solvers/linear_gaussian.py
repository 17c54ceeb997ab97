"""The linear Gaussian state-space model, in rows.

States and observations are rows, like everywhere in this package::

    x[t+1] = x[t] @ transition + w[t],    w ~ N(0, process_noise)
    y[t]   = x[t] @ output     + v[t],    v ~ N(0, observation_noise)
    x[0]   ~ N(initial_mean, initial_covariance)   before y[0] is seen

So `transition` and `output` are the transposes of the ``A`` and ``C`` of most textbooks, and a Koopman operator of this
package is a `transition` as it is.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from kpm.solvers import checks

_AXES = {
    "transition": "dd",
    "output": "dp",
    "process_noise": "dd",
    "observation_noise": "pp",
    "initial_mean": "d",
    "initial_covariance": "dd",
}


@dataclass(frozen=True)
class LinearGaussian:
    """A time-invariant linear Gaussian model; leading axes of any matrix are a batch of models.

    Shapes ``(*batch, ...)``: `transition` ``(d, d)``, `output` ``(d, p)``, `process_noise` ``(d, d)``,
    `observation_noise` ``(p, p)``, `initial_mean` ``(d,)``, `initial_covariance` ``(d, d)``. Turned to float64.

    Raises
    ------
    ValueError
        If shapes do not fit, an entry is complex or not finite, or a covariance is not symmetric positive
        semidefinite; with the name of the argument and the batch index.
    """

    transition: Tensor
    output: Tensor
    process_noise: Tensor
    observation_noise: Tensor
    initial_mean: Tensor
    initial_covariance: Tensor

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = torch.as_tensor(getattr(self, name))
            if value.is_complex():
                raise ValueError(f"{name}: expected real numbers, got {value.dtype} of shape {tuple(value.shape)}")
            object.__setattr__(self, name, value.double())
        self._check_shapes()
        _ = self.batch_shape
        for name in self.__dataclass_fields__:
            checks.finite(getattr(self, name), name)
        for name in ("process_noise", "observation_noise", "initial_covariance"):
            _check_covariance(name, getattr(self, name))

    def _check_shapes(self) -> None:
        """One wrong matrix is told from five right ones: d is what most of them say."""
        shapes = {name: tuple(getattr(self, name).shape) for name in self.__dataclass_fields__}
        for name, shape in shapes.items():
            if len(shape) < len(_AXES[name]):
                raise ValueError(f"{name}: expected (*batch, {', '.join(_AXES[name])}), got shape {shape}")
        d = statistics.mode(shapes[name][-1] for name, axes in _AXES.items() if axes[-1] == "d")
        if shapes["output"][-2] != d:
            raise ValueError(
                f"output: expected (*batch, {d}, p), got shape {shapes['output']}; in rows it is the transpose of a "
                "textbook's (p, d)"
            )
        sizes = {"d": d, "p": shapes["output"][-1]}
        for name, axes in _AXES.items():
            wanted = tuple(sizes[axis] for axis in axes)
            if shapes[name][-len(axes) :] != wanted:
                raise ValueError(f"{name}: expected (*batch, {', '.join(map(str, wanted))}), got shape {shapes[name]}")

    @property
    def batch_shape(self) -> torch.Size:
        """Shape of the batch of models; `ValueError` if the batch axes of the matrices do not broadcast."""
        shapes = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            shapes[name] = value.shape[: value.ndim - (1 if name == "initial_mean" else 2)]
        return broadcast(shapes)


@torch.no_grad()
def _check_covariance(name: str, value: Tensor) -> None:
    size = value.abs().amax((-1, -2))
    lopsided = (value - value.mT).abs().amax((-1, -2)) > 1e-8 * size
    negative = torch.linalg.eigvalsh(value).amin(-1) < -1e-8 * size
    for bad, fault in ((lopsided, "not symmetric"), (negative, "not positive semidefinite")):
        if bad.any():
            raise ValueError(f"{name}{checks.where(bad)}: {fault} (shape {tuple(value.shape)})")


def broadcast(shapes: dict[str, torch.Size]) -> torch.Size:
    """Common batch shape; `ValueError` with the names of `shapes` if there is none."""
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        listed = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"batch axes do not broadcast: {listed}") from None
