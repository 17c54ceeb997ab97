"""Layers' states made comparable: centred, turned to principal axes, scaled, and rotated onto the last layer's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kpm.solvers import checks

SIZE = 100.0  # Frobenius norm of every layer's states after `fit`, as published


class LayerAlignment(nn.Module):
    """What takes the states of each layer to common coordinates, and those of the last layer back.

    Layer by layer: subtract the mean, project on the leading principal axes, divide so that the Frobenius norm of the
    states that were fitted is 100, and rotate onto the last layer (orthogonal Procrustes). The last layer is the
    anchor and is not rotated. Computed in float64.

    Parameters
    ----------
    layers, width : int
        Number of layers and their width.
    components : int
        Principal axes kept of each layer.
    """

    def __init__(self, layers: int, width: int, components: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(layers, width))
        self.register_buffer("maps", torch.zeros(layers, width, components))  # axes and rotation in one
        self.register_buffer("scales", torch.ones(layers))

    def fit(self, states: Tensor) -> LayerAlignment:
        """Take means, axes, scales and rotations from states ``(n, layers, width)``.

        Raises
        ------
        ValueError
            If the shape is another, a number is not finite, there are fewer states than components, or a layer's
            states are all the same.
        """
        layers, width, components = self.maps.shape
        if states.ndim != 3 or states.shape[1:] != (layers, width):
            raise ValueError(f"states: expected (n, {layers}, {width}), got {tuple(states.shape)}")
        if not components <= min(len(states), width):
            raise ValueError(f"components: {components} axes of {len(states)} states of width {width}")
        checks.finite(states, "states")
        x = states.double().movedim(1, 0)  # (layers, n, width)
        means = x.mean(1)
        x = x - means.unsqueeze(1)
        axes = torch.linalg.eigh(x.mT @ x).eigenvectors.flip(-1)[..., :components]
        # Eigenvectors have no sign of their own: their largest entry is made positive.
        largest = axes.abs().argmax(-2, keepdim=True)
        axes = axes * axes.gather(-2, largest).sign()
        x = x @ axes
        scales = torch.linalg.matrix_norm(x) / SIZE
        if flat := (scales <= 0).nonzero().flatten().tolist():
            raise ValueError(f"states: those of layer {flat[0]} are all the same")
        x = x / scales[:, None, None]
        self.means.copy_(means)
        self.scales.copy_(scales)
        self.maps.copy_(axes @ torch.stack([rotation(layer, x[-1]) for layer in x]))
        return self

    def apply_to(self, states: Tensor, layer: int = -1) -> Tensor:
        """States of one layer ``(..., width)`` in common coordinates ``(..., components)``.

        Raises `ValueError` before `fit` (or a state dict of a fitted alignment), as all methods below.
        """
        self._check_fitted()
        return (states - self.means[layer]) @ self.maps[layer] / self.scales[layer]

    def forward(self, states: Tensor) -> Tensor:
        """States of all layers ``(n, layers, width)`` in common coordinates ``(n, layers, components)``."""
        return torch.stack([self.apply_to(states[:, i], i) for i in range(len(self.scales))], 1)

    def undo(self, x: Tensor) -> Tensor:
        """The last layer's states ``(..., width)`` of coordinates ``(..., components)``."""
        self._check_fitted()
        return x @ self.maps[-1].mT * self.scales[-1] + self.means[-1]

    def _check_fitted(self) -> None:
        if not self.maps.any():  # orthonormal columns once they are there
            raise ValueError(f"LayerAlignment: not fitted (maps {tuple(self.maps.shape)}); call fit with states first")


def rotation(source: Tensor, target: Tensor) -> Tensor:
    """Orthogonal ``R`` with the smallest ``|source @ R - target|``, for matrices ``(n, d)`` (Schoenemann 1966)."""
    if source.shape != target.shape or source.ndim != 2:
        raise ValueError(f"source, target: expected two (n, d), got {tuple(source.shape)}, {tuple(target.shape)}")
    left, _, right = torch.linalg.svd(source.mT @ target)
    return left @ right
