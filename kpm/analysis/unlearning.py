"""Unlearning of a class by an edit of the operator, what it is compared with, and what is left of the class.

A Koopman autoencoder sends observables ``z`` of the first layer to those of the last, ``z @ A``. To forget a class, `A`
is changed so that the class's rows `H` go to other targets `T`, and all other rows `C` go where they went:

    minimise  |H B - T|^2 + rho |C (B - A)|^2 + rho^2 |B - A|^2  over B

(Aswani and Jabari, 2025; the update is that of Gupta et al., EMNLP Findings 2024). Rows are samples. Float64.
"""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from kpm.analysis.representations import class_accuracy
from kpm.errors import pick
from kpm.models.surrogate import Surrogate

TARGETS = ("nearest", "shared", "centroid")


@dataclasses.dataclass(frozen=True)
class Edit:
    """An edited operator.

    Attributes
    ----------
    operator : Tensor
        float64 ``(p, p)``.
    forgotten : int
        The class.
    target : str
    rho : float
    change : float
        ``|B - A| / |A|``, Frobenius.
    harmful, clean : int
        Rows that were sent elsewhere, and rows that were held.
    """

    operator: Tensor
    forgotten: int
    target: str
    rho: float
    change: float
    harmful: int
    clean: int


@dataclasses.dataclass(frozen=True)
class Unlearning:
    """Accuracy of each class before and after a class was to be forgotten.

    Attributes
    ----------
    method : str
    forgotten : int
    before, after : tuple of float
        Share of right answers in each class.
    """

    method: str
    forgotten: int
    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def forget_before(self) -> float:
        return self.before[self.forgotten]

    @property
    def forget_after(self) -> float:
        return self.after[self.forgotten]

    @property
    def retain_before(self) -> float:
        """Mean over the other classes."""
        return self._others(self.before)

    @property
    def retain_after(self) -> float:
        """Mean over the other classes."""
        return self._others(self.after)

    def _others(self, shares: tuple[float, ...]) -> float:
        kept = [share for c, share in enumerate(shares) if c != self.forgotten]
        return sum(kept) / len(kept)


def edit_operator(operator: Tensor, clean: Tensor, harmful: Tensor, targets: Tensor, rho: float = 0.1) -> Tensor:
    """The edited operator ``(p, p)``, float64: all matrices that are solved with are ``p x p``.

    ``B = A + (H'H + rho (C'C + rho I))^-1 H' (T - H A)``. As published it is written with a matrix of as many rows and
    columns as `harmful` has rows; by the push-through identity both are the same.

    Parameters
    ----------
    operator : Tensor
        ``(p, p)``, of all depth.
    clean, harmful : Tensor
        Observables that are held, ``(n, p)``, and that are sent elsewhere, ``(m, p)``.
    targets : Tensor
        Where to, ``(m, p)``, or ``(1, p)`` for all to the same place.
    rho : float
        Small: forgets more. Large: holds more.

    Raises
    ------
    ValueError
        For other shapes, rho that is not positive, or no harmful row.
    """
    p = len(operator)
    if operator.shape != (p, p) or clean.ndim != 2 or clean.shape[-1] != p:
        raise ValueError(f"operator, clean: expected (p, p), (n, p), got {tuple(operator.shape)}, {tuple(clean.shape)}")
    return _edited(operator, _gram(clean), harmful, targets, rho)


def _gram(rows: Tensor) -> Tensor:
    """``C'C`` in float64, a part of the rows after another."""
    return sum(part.double().mT @ part.double() for part in rows.split(10000))


def _edited(operator: Tensor, gram: Tensor, harmful: Tensor, targets: Tensor, rho: float) -> Tensor:
    p = len(operator)
    if harmful.ndim != 2 or harmful.shape[1] != p or not len(harmful):
        raise ValueError(f"harmful: expected (m, {p}), m 1 or more, got {tuple(harmful.shape)}")
    if targets.shape not in (harmful.shape, (1, p)):
        raise ValueError(f"targets: expected {tuple(harmful.shape)} or (1, {p}), got {tuple(targets.shape)}")
    if not rho > 0:
        raise ValueError(f"rho: expected more than 0, got {rho}")
    a, h, t = (x.double() for x in (operator, harmful, targets))
    held = gram + rho * torch.eye(p, dtype=a.dtype, device=a.device)
    return a + torch.linalg.solve(h.mT @ h + rho * held, h.mT @ (t - h @ a))


def targets(operator: Tensor, clean: Tensor, labels: Tensor, harmful: Tensor, kind: str = "shared") -> Tensor:
    """Where the rows of a class are sent, float64 ``(m, p)`` or ``(1, p)``: places where rows of other classes go.

    Parameters
    ----------
    operator : Tensor ``(p, p)``
    clean : Tensor ``(n, p)``
    labels : Tensor
        Classes of the clean rows, int64 ``(n,)``; looked at for ``"centroid"`` only.
    harmful : Tensor ``(m, p)``
    kind : {"nearest", "shared", "centroid"}
        To each row the image of the nearest clean row; to all rows that of the first one (as in the paper's public
        notebook; which row is the first matters); to all rows the mean image of the class whose mean is nearest.
    """
    pick("target", kind, TARGETS)
    a, c, h = operator.double(), clean, harmful  # distances in the dtype they come in: they only choose
    if kind == "centroid":
        known = labels.unique().tolist()
        means = torch.stack([c[labels == k].mean(0) for k in known])
        return means[(means - h.mean(0)).norm(dim=1).argmin()].unsqueeze(0).double() @ a
    rows = h if kind == "nearest" else h[:1]
    nearest = torch.cat([torch.cdist(part, c).argmin(1) for part in rows.split(500)])
    return c[nearest].double() @ a


def apart(rows: Tensor, others: Tensor, distance: float = 1e-3) -> Tensor:
    """Which of `rows` ``(n, p)`` are further than `distance` from all of `others` ``(m, p)``, bool ``(n,)``."""
    if not len(others):
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    return torch.cat([torch.cdist(part, others).amin(1) > distance for part in rows.split(1000)])


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Observables of one class, ``(m, p)``, and of the others that are not as good as equal to one of them, ``(n, p)``.

    `labels` are the classes of the others.
    """

    forgotten: int
    harmful: Tensor
    clean: Tensor
    labels: Tensor

    @functools.cached_property
    def gram(self) -> Tensor:
        """``C'C`` of the others, float64 ``(p, p)``: all that an edit needs of them but its targets."""
        return _gram(self.clean)


def rows_of(z: Tensor, labels: Tensor, forgotten: int, distance: float = 1e-3) -> Rows:
    """Part observables `z` ``(n, p)`` with classes ``(n,)`` into those of one class and the others.

    Raises
    ------
    ValueError
        If there is no row of the class, or no other that is further than `distance` from all of them.
    """
    mine = labels == forgotten
    if not mine.any() or mine.all():
        raise ValueError(f"forgotten: {int(mine.sum())} of {len(z)} rows are of class {forgotten}")
    harmful, others = z[mine], z[~mine]
    far = apart(others, harmful, distance)
    if not far.any():
        raise ValueError(f"z: every row is within {distance} of one of class {forgotten}")
    return Rows(forgotten, harmful, others[far], labels[~mine][far])


@torch.no_grad()
def forget(
    rows: Rows, operator: Tensor, target: str = "shared", rho: float = 0.1, wanted: Tensor | None = None
) -> Edit:
    """Edit an operator so that one class is not told any more.

    Parameters
    ----------
    rows : Rows
        Observables of the first layer, of training samples.
    operator : Tensor
        ``(p, p)``, of all depth.
    target : {"nearest", "shared", "centroid"}
        See `targets`.
    rho : float
        See `edit_operator`.
    wanted : Tensor, optional
        What `targets` gave for this kind of target, if it is known: with many rows it takes longer than the edit.
    """
    if wanted is None:
        wanted = targets(operator, rows.clean, rows.labels, rows.harmful, target)
    edited = _edited(operator, rows.gram, rows.harmful, wanted, rho)
    change = float((edited - operator.double()).norm() / operator.double().norm())
    return Edit(edited, rows.forgotten, target, rho, change, len(rows.harmful), len(rows.clean))


@torch.no_grad()
def unlearning_report(model: Surrogate, z: Tensor, labels: Tensor, edit: Edit) -> Unlearning:
    """What an edit does to each class of held-out observables `z` ``(n, p)`` of the first layer."""
    operator, classes = model.kae.power().double(), model.config.classes
    before, after = (class_accuracy(model.read(z.double() @ k), labels, classes) for k in (operator, edit.operator))
    return Unlearning(f"edit, {edit.target}", edit.forgotten, tuple(before.tolist()), tuple(after.tolist()))
