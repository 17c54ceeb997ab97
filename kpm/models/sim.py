"""Stable invariant models: the limit of infinitely many layers by a projector instead of an iteration.

Our reading of Konishi and Kawahara (Neural Networks 165, 2023), from their abstract and public code: if weight-tied
layers are a stable dynamical system, observables of their state after infinitely many steps are
``psi(s_inf) = psi(s_0) P`` with P the Koopman operator's projector onto its eigenvalue 1. A model learns observables of
the input, a matrix of low rank in P's place, a network that turns observables back, and a read-out; nothing is
iterated. Rows are samples, so matrices multiply from the right.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor, nn

from kpm import solvers
from kpm.models import bases
from kpm.solvers import checks

MODES = ("free", "oblique", "peripheral")
FEATURES = ("none", "fourier")


@dataclasses.dataclass(frozen=True)
class SIMConfig:
    """Sizes and kind of model; the defaults are the published one-tier model for MNIST, 81480 parameters.

    Attributes
    ----------
    basis : str
        Network of the first tier, see `kpm.models.bases.make`.
    shape : tuple of int
        Of one input.
    width : int
        Channels or hidden units of the basis.
    observables : int
        Outputs of the basis.
    features : {"none", "fourier"}
        Second tier: none, or frozen random Fourier features of the first one's outputs.
    size : int
        Numbers that the limit acts on: of Fourier features how many there are, else `observables`.
    rank : int
        Of the limit; 0 for half of `size`, as published.
    mode : {"free", "oblique", "peripheral"}
        See `LowRankLimit`.
    rotations : int
        Pairs of peripheral eigenvalues, for mode "peripheral".
    sigma : float
        Width of the Fourier features' kernel.
    inverse : int
        Width of the network that turns observables back, three layers; 0 for none.
    outputs : int
        Of the read-out; 0 for none.
    """

    basis: str = "conv"
    shape: tuple[int, ...] = (1, 28, 28)
    width: int = 24
    observables: int = 50
    features: Literal["none", "fourier"] = "none"
    size: int = 50
    rank: int = 0
    mode: Literal["free", "oblique", "peripheral"] = "free"
    rotations: int = 0
    sigma: float = 10.0
    inverse: int = 32
    outputs: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # of a checkpoint it is a list
        if self.basis not in bases.KINDS:
            raise ValueError(f"basis: expected one of {', '.join(bases.KINDS)}, got {self.basis!r}")
        if self.features not in FEATURES:
            raise ValueError(f"features: expected one of {', '.join(FEATURES)}, got {self.features!r}")
        if self.features == "none" and self.size != self.observables:
            raise ValueError(f"size: without a second tier it is observables, {self.observables}, got {self.size}")


class LowRankLimit(nn.Module):
    """A matrix ``(size, size)`` of rank r in the place of the limit of a Koopman operator's powers.

    Parameters
    ----------
    size, rank : int
        ``1 <= rank <= size``.
    mode : {"free", "oblique", "peripheral"}
        With learnt ``V (size, r)`` and ``U (r, size)``:

        * ``"free"``: ``V U`` without any constraint, as published;
        * ``"oblique"``: ``V (U V)^-1 U``, a projector to round-off, whatever U and V are;
        * ``"peripheral"``: ``V (U V)^-1 B^n U`` where the last ``2 rotations`` of the r coordinates turn by learnt
          angles, which is the operator's power n on everything that does not fade.
    rotations : int
        Planes that turn, at most r / 2; zero but for mode "peripheral".
    """

    def __init__(self, size: int, rank: int, mode: str = "free", rotations: int = 0):
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode: expected one of {', '.join(MODES)}, got {mode!r}")
        checks.count(rank, "rank", 1, size)
        checks.count(rotations, "rotations", *((1, rank // 2) if mode == "peripheral" else (0, 0)))
        self.size, self.rank, self.mode, self.rotations = size, rank, mode, rotations
        if mode == "free":
            self.into = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(rank, size), 5**0.5).T.contiguous())
            self.out = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(size, rank), 5**0.5).T.contiguous())
        else:  # near an orthogonal projector, where U V is the identity
            frame = torch.linalg.qr(torch.randn(size, rank)).Q
            self.into = nn.Parameter(frame + 0.1 * torch.randn(size, rank) / size**0.5)
            self.out = nn.Parameter(frame.T.contiguous())
        self.angles = nn.Parameter(torch.linspace(0.1, 1, rotations)) if rotations else None

    @classmethod
    def from_operator(cls, operator: Tensor, rank: int, rotations: int = 0, tolerance: float = 0.1) -> LowRankLimit:
        """The limit of the powers of a known operator ``(size, size)``, in row convention.

        In powers only the eigenvalue 1 stays as it is: the ``rank - 2 rotations`` eigenvalues nearest to 1 are held as
        1. `rotations` complex pairs, those nearest to the unit circle, are held as turns by their angles. All else is
        dropped as what fades: a real negative eigenvalue, too, which has no limit and is no turn of a plane.

        Parameters
        ----------
        tolerance : float
            How far from 1 (a pair: from the unit circle) an eigenvalue may be that is held, since those of an operator
            that was estimated are not exact.

        Raises
        ------
        ValueError
            For what is no single finite real matrix; a `rank` or `rotations` that it has no room for; fewer
            eigenvalues within `tolerance`; a rank that takes one value of a conjugate pair, or of a repeated
            eigenvalue, apart; an eigenvalue that grows; one that is defective (a Jordan block), whose powers grow.
        """
        matrix = checks.square(operator)
        if matrix.ndim != 2:
            raise ValueError(f"operator: expected one matrix (size, size), got shape {tuple(matrix.shape)}")
        rank = checks.count(rank, "rank", 1, len(matrix))
        rotations = checks.count(rotations, "rotations", 0, rank // 2)
        tolerance = checks.nonnegative(tolerance, "tolerance")
        spectrum = solvers.decompose(matrix)
        values = spectrum.eigenvalues
        if len(values) and float(values.abs().max()) > 1 + tolerance:
            raise ValueError(
                f"operator: its powers grow, by {float(values.abs().max()):.6g} a step; they have no limit"
            )
        fixed = rank - 2 * rotations
        chosen = _ones(values, fixed, tolerance)
        around = torch.argsort((values.abs() - 1).abs()).tolist()
        turning = [i for i in around if values[i].imag > 1e-9 and i not in chosen][:rotations]
        turning = [i for i in turning if abs(float(values[i].abs()) - 1) <= tolerance]
        if len(turning) < rotations:
            raise ValueError(
                f"rotations: expected at most {len(turning)} complex pairs, got {rotations} (within {tolerance:g} of "
                "the unit circle)"
            )
        _not_defective(matrix, spectrum, chosen + turning)
        basis, dual = (_real(v, values, chosen, turning) for v in (spectrum.right, spectrum.left.mT))
        limit = cls(len(matrix), rank, "peripheral" if rotations else "oblique", rotations).double()
        with torch.no_grad():
            limit.into.copy_(basis)
            # z = sum of a u and its conjugate = [Re a, Im a] [2 Re u; -2 Im u], and a turns by its angle.
            limit.out.copy_(dual.T)
            limit.out[fixed::2] *= 2
            limit.out[fixed + 1 :: 2] *= -2
            if rotations:
                limit.angles.copy_(values[turning].angle())
        return limit

    def factors(self) -> tuple[Tensor, Tensor]:
        """``(size, rank)`` and ``(rank, size)`` in float64; but for mode "free", the second times the first is 1."""
        into, out = self.into.double(), self.out.double()
        if self.mode == "free":
            return into, out
        try:
            return torch.linalg.solve(out @ into, into, left=False), out
        except torch.linalg.LinAlgError as error:
            raise ArithmeticError(f"limit: U V of shape ({self.rank}, {self.rank}) has become singular") from error

    def matrix(self, steps: float = 0.0) -> Tensor:
        """The matrix ``(size, size)``, float64, after so many steps (which only rotations feel)."""
        into, out = self.factors()
        return self._turned(into, torch.as_tensor(steps, dtype=into.dtype)) @ out

    def forward(self, z: Tensor, steps: float | Tensor = 0.0) -> Tensor:
        """Limit of features ``(..., size)``; `steps` is a number or ``(...)``, and only rotations feel it.

        Raises `ValueError` for another size, or for whole numbers, in which the weights would all become zero.
        """
        if z.ndim < 1 or z.shape[-1] != self.size or not z.is_floating_point():
            raise ValueError(
                f"z: expected floating-point numbers (..., {self.size}), got {z.dtype} of shape {tuple(z.shape)}"
            )
        into, out = (part.to(z.dtype) for part in self.factors())
        return self._turned(z @ into, torch.as_tensor(steps, dtype=z.dtype, device=z.device)) @ out

    def _turned(self, c: Tensor, steps: Tensor) -> Tensor:
        """Coordinates ``(..., rank)`` with their last planes turned by ``steps`` times the angles."""
        if self.angles is None:
            return c
        still, turning = c.split([self.rank - 2 * self.rotations, 2 * self.rotations], -1)
        x, y = turning.unflatten(-1, (-1, 2)).unbind(-1)
        angle = steps.unsqueeze(-1) * self.angles.to(c.dtype)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([still, torch.stack([x * cos - y * sin, x * sin + y * cos], -1).flatten(-2)], -1)


def _ones(values: Tensor, count: int, tolerance: float) -> list[int]:
    """Numbers of the `count` eigenvalues nearest to 1, all of them within the tolerance and none's partner left out."""
    distance = (values - 1).abs()
    nearest = torch.argsort(distance).tolist()
    chosen, others = nearest[:count], nearest[count:]
    near = int((distance <= tolerance).sum())
    if abs(float(values[chosen].imag.sum())) > 1e-9:
        raise ValueError(f"rank: the {count} eigenvalues nearest to 1 take a conjugate pair apart")
    if near < count:
        raise ValueError(
            f"rank: {count} eigenvalues are to be held as 1, but only {near} are within {tolerance:g} of it; give a "
            "smaller rank, or a larger tolerance to hold what fades"
        )
    if chosen and others and (values[others[0]] - values[chosen[-1]]).abs() < 1e-9:
        raise ValueError(f"rank: the {count} eigenvalues nearest to 1 take a repeated one apart; give a larger rank")
    return chosen


def _not_defective(matrix: Tensor, spectrum: solvers.Spectrum, kept: list[int]) -> None:
    """An error where eigenvalues that coincide with a kept one do not act as one number: as in a Jordan block."""
    values = spectrum.eigenvalues
    for i in kept:
        same = ((values - values[i]).abs() < 1e-4).nonzero()[:, 0]
        if len(same) < 2:
            continue
        projector = spectrum.right[:, same] @ spectrum.left[same]
        rest = matrix.to(projector.dtype) @ projector - values[i] * projector
        spread = float((values[same] - values[i]).abs().max())
        if float(rest.norm()) > (1e-6 + 10 * spread) * float(projector.norm()):
            raise ValueError(
                f"operator: its eigenvalue {complex(values[i]):.6g} is defective (a Jordan block, shape "
                f"{tuple(matrix.shape)}): its powers have no limit"
            )


def _real(vectors: Tensor, values: Tensor, fixed: list[int], turning: list[int]) -> Tensor:
    """Real columns with the span of some eigenvectors ``(size, m)``: of a pair, its real and imaginary part."""
    columns = [vectors[:, i].imag if values[i].imag < 0 else vectors[:, i].real for i in fixed]
    for i in turning:
        columns += [vectors[:, i].real, vectors[:, i].imag]
    return torch.stack(columns, 1)


@dataclasses.dataclass(frozen=True)
class LimitDiagnostics:
    """How far a limit is from a projector.

    Attributes
    ----------
    idempotency : float
        ``|P^2 - P| / |P|`` (Frobenius); 0 for a projector.
    eigenvalues : Tensor
        complex128 ``(rank,)``, of P, zeros left out, the largest first; 0 or 1 for a projector.
    effective_rank : float
        Exponential of the entropy of the singular values (Roy, Vetterli 2007).
    condition : float
        Of U V; large where the subspaces are nearly orthogonal.
    drift : float or None
        ``|y(P^2) - y(P)| / |y(P)|`` of the model's outputs, if inputs were given.
    """

    idempotency: float
    eigenvalues: Tensor
    effective_rank: float
    condition: float
    drift: float | None = None


class SIM(nn.Module):
    """Stable invariant model: basis, perhaps random features, limit, inverse network, read-out."""

    def __init__(self, config: SIMConfig | None = None):
        super().__init__()
        self.config = c = config or SIMConfig()
        self.basis = bases.make(c.basis, c.shape, c.width, c.observables)
        fourier = c.features == "fourier"
        self.features = bases.FourierFeatures(c.observables, c.size, c.sigma) if fourier else nn.Identity()
        self.limit = LowRankLimit(c.size, c.rank or c.size // 2, c.mode, c.rotations)
        layers: list[nn.Module] = []
        last = c.size
        if c.inverse:
            for i in range(3):
                layers += [nn.ReLU()] * (i > 0) + [nn.Linear(last, c.inverse)]
                last = c.inverse
        self.inverse = nn.Sequential(*layers)
        self.readout = nn.Linear(last, c.outputs) if c.outputs else nn.Identity()

    def observe(self, x: Tensor) -> Tensor:
        """What the limit acts on, ``(b, ..., size)``, of inputs ``(b, *shape)``."""
        return self.features(self.basis(bases.checked(x, self.config.shape, self.config.basis)))

    def read(self, z: Tensor) -> Tensor:
        """Outputs of what has passed the limit, ``(..., size)``."""
        return self.readout(self.inverse(z))

    def forward(self, x: Tensor, steps: float | Tensor = 0.0) -> Tensor:
        """Outputs ``(b, ..., outputs)``; `steps` matters in mode "peripheral" only."""
        return self.read(self.limit(self.observe(x), steps))


@torch.no_grad()
def diagnose(model: SIM | LowRankLimit, x: Tensor | None = None) -> LimitDiagnostics:
    """How far the limit of `model` is from a projector, and what that does to outputs of inputs `x`."""
    limit = model.limit if isinstance(model, SIM) else model
    into, out = (part.cpu() for part in limit.factors())
    matrix = into @ out
    core = out @ into  # its eigenvalues are those of the matrix that are not zero
    values = torch.linalg.eigvals(core)
    singular = torch.linalg.svdvals(matrix)
    share = singular / singular.sum()
    share = share[share > 0]
    drift = None
    if x is not None and isinstance(model, SIM):
        once = model.limit(model.observe(x))
        first, second = model.read(once), model.read(model.limit(once))
        drift = float((second - first).norm() / first.norm())
    return LimitDiagnostics(
        idempotency=float((matrix @ matrix - matrix).norm() / matrix.norm()),
        eigenvalues=values[values.abs().argsort(descending=True)],
        effective_rank=float((-(share * share.log()).sum()).exp()),
        condition=float(torch.linalg.cond(limit.out.double().cpu() @ limit.into.double().cpu())),
        drift=drift,
    )


def parameters(model: nn.Module) -> int:
    """Numbers that are learnt."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
