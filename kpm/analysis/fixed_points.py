"""Fixed points of a recurrent network and its linearisation around them: the baseline of KANN.

Sussillo & Barak, Neural Computation 25, 2013: where ``q(h) = |F(h, x) - h|^2 / 2`` is small for a constant input `x`, a
network stands still or is slow, and near there it is what its Jacobian says. Maheswaranathan et al., NeurIPS 2019:
networks trained on reviews have a line of slow points, along which evidence is summed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from kpm.solvers import checks

Step = Callable[[Tensor, Tensor], Tensor]
"""One step of a cell: states ``(n, size)`` and inputs ``(n, inputs)`` to states ``(n, size)``."""

_ENTRIES = 2**24  # numbers of a Jacobian's backward pass at a time
_HALVINGS = 8


@dataclass(frozen=True)
class Points:
    """Points of the state space and what the cell does near them, slowest first.

    Attributes
    ----------
    states : Tensor
        float64 ``(m, size)``.
    images : Tensor
        ``F(states, x)``, ``(m, size)``.
    operators : Tensor
        ``(m, size, size)``, transposed Jacobians: ``F(h, x) ~ image + (h - state) @ operator``.
    eigenvalues : Tensor
        complex128 ``(m, size)``, largest modulus first.
    hits : Tensor
        int64 ``(m,)``: how many starts ended here.
    x : Tensor
        The constant input, ``(inputs,)``.
    """

    states: Tensor
    images: Tensor
    operators: Tensor
    eigenvalues: Tensor
    hits: Tensor
    x: Tensor

    def __len__(self) -> int:
        return len(self.states)

    @property
    def speed(self) -> Tensor:
        """``q``, half the squared length of a step from each, ``(m,)``."""
        return (self.images - self.states).square().sum(-1) / 2

    @property
    def stable(self) -> Tensor:
        """Whether all eigenvalues lie inside the unit circle, bool ``(m,)``."""
        return (self.eigenvalues.abs() < 1).all(-1)

    @property
    def variance(self) -> Tensor:
        """Shares of the points' variance along their principal axes, largest first ([Maheswaranathan]).

        The first is near 1 for points on a line. `ValueError` for fewer than two points.
        """
        if len(self) < 2:
            raise ValueError(f"variance: {len(self)} points have no shape; give more starts or a larger slow")
        size = torch.linalg.svdvals(self.states - self.states.mean(0)).square()
        return size / size.sum()


@dataclass(frozen=True)
class FixedPoints:
    """What was found from many starts.

    Attributes
    ----------
    fixed : Points
        Where the search ended with ``q <= tolerance``.
    slow : Points
        Where it first came to ``q <= slow``, fixed points among them. Along a line of slow points these stay spread
        out, whereas going on takes them to its few exact fixed points, or to none.
    unsolved : int
        Starts from which it came to neither.
    """

    fixed: Points
    slow: Points
    unsolved: int


def cell_step(module: nn.RNNBase) -> Step:
    """The step of a recurrent layer in float64: one-step sequences through the module with its own weights.

    Parameters
    ----------
    module : nn.RNN, nn.GRU or nn.LSTM
        One layer, one direction. The state of an LSTM is ``(h, c)`` side by side, of size ``2 * hidden``.
    """
    if not isinstance(module, nn.RNN | nn.GRU | nn.LSTM) or module.num_layers != 1 or module.bidirectional:
        raise ValueError(f"module: expected an RNN, GRU or LSTM of one layer and direction, got {module}")
    if getattr(module, "proj_size", 0):
        raise ValueError("module: an LSTM with a projection is not supported")
    weights = {name: value.detach().double() for name, value in module.named_parameters()}
    time = 1 if module.batch_first else 0

    def step(h: Tensor, x: Tensor) -> Tensor:
        memory = tuple(part.unsqueeze(0).contiguous() for part in h.split(module.hidden_size, -1))
        given = memory if isinstance(module, nn.LSTM) else memory[0]
        after = functional_call(module, weights, (x.to(h).unsqueeze(time), given))[1]
        return torch.cat([part[0] for part in after], -1) if isinstance(module, nn.LSTM) else after[0]

    return step


def jacobians(step: Step, h: Tensor, x: Tensor, wrt: str = "state") -> Tensor:
    """``dF/dh`` (or ``dF/dx``) in each state, transposed: ``(n, size, size)`` (or ``(n, inputs, size)``), float64.

    Parameters
    ----------
    h : Tensor
        ``(n, size)``.
    x : Tensor
        ``(inputs,)`` or ``(n, inputs)``.
    wrt : {"state", "input"}
    """
    if wrt not in ("state", "input"):
        raise ValueError(f"wrt: expected 'state' or 'input', got {wrt!r}")
    h, x = h.double(), x.double().expand(len(h), x.shape[-1])
    unit, found = torch.eye(h.shape[1], dtype=h.dtype, device=h.device), []
    for part, given in zip(*(t.split(max(1, _ENTRIES // h.shape[1] ** 2)) for t in (h, x))):
        if wrt == "state":
            _, back = vjp(lambda s, given=given: step(s, given), part)
        else:
            _, back = vjp(lambda s, part=part: step(part, s), given)
        # Rows of a batch do not mix, so one cotangent for all of them gives one row of each Jacobian.
        rows = vmap(lambda c, back=back, part=part: back(c.expand(len(part), -1))[0])(unit)
        found.append(rows.permute(1, 2, 0))
    return torch.cat(found).detach()


def find_fixed_points(
    step: Step,
    starts: Tensor,
    x: Tensor,
    *,
    steps: int = 300,
    rate: float = 0.05,
    newton: int = 50,
    tolerance: float = 1e-18,
    slow: float = 1e-6,
    merge: float = 1e-3,
    most: int = 256,
) -> FixedPoints:
    """Search from many states at once.

    Parameters
    ----------
    step : callable
        From `cell_step`, or any other cell; differentiable, in float64.
    starts : Tensor
        ``(n, size)``: states the network visits.
    x : Tensor
        The constant input ``(inputs,)``: zero, or the mean of what the network reads.
    steps, rate : int, float
        Of Adam on `q`; its rate, in units of the spread of the starts, falls to zero along a cosine.
    newton : int
        Most Newton steps to a slow point, and from there to a fixed point. They are damped by `q`
        (Levenberg-Marquardt), so that they also work where fixed points are not isolated.
    tolerance, slow : float
        Largest `q` of a fixed and of a slow point; 1e-6 is a step of 0.0014.
    merge : float
        Points nearer than this are one, in units of the spread of the starts.
    most : int
        Of each kind so many are kept, the slowest first, since each has a Jacobian.

    Raises
    ------
    ValueError
        For a shape that does not fit, or numbers that are not finite.
    """
    if starts.ndim != 2 or x.ndim != 1 or not len(starts):
        raise ValueError(f"starts, x: expected (n, size) and (inputs,), got {tuple(starts.shape)}, {tuple(x.shape)}")
    starts, x = starts.detach().double(), x.detach().double().to(starts.device)
    checks.finite(starts, "starts")
    spread = float((starts - starts.mean(0)).square().sum(-1).mean().sqrt()) or 1.0
    near = _descend(step, starts, x, steps, rate * spread / starts.shape[1] ** 0.5)
    near = _newton(step, near, x, newton, slow)
    exact = _newton(step, near, x, newton, tolerance / 100)
    is_slow, is_fixed = speeds(step, near, x) <= slow, speeds(step, exact, x) <= tolerance
    radius = merge * spread
    return FixedPoints(
        fixed=_points(step, exact[is_fixed], x, radius, most),
        slow=_points(step, near[is_slow], x, radius, most),
        unsolved=int((~is_slow & ~is_fixed).sum()),
    )


@torch.no_grad()
def speeds(step: Step, h: Tensor, x: Tensor) -> Tensor:
    """``q = |F(h, x) - h|^2 / 2`` of states ``(n, size)``: ``(n,)``."""
    return (step(h, x.expand(len(h), -1)) - h).square().sum(-1) / 2


@dataclass(frozen=True)
class Linearisation:
    """One-step prediction from the nearest of some points, for states as `KANN` has them.

    `kpm.analysis.kann_measures.relative_errors` and `agreements` take it in place of a KANN.

    Attributes
    ----------
    points : Points
        Fixed or slow ones.
    inputs : Tensor or None
        ``(m, inputs, size)``: transposed input Jacobians, for `predict_driven`.
    """

    points: Points
    inputs: Tensor | None = None

    @classmethod
    def of(cls, points: Points, step: Step | None = None) -> Linearisation:
        """Around `points`; with the input's Jacobians if the cell is given. `ValueError` if there is no point."""
        if not len(points):
            raise ValueError("points: there is none to linearise around")
        return cls(points, None if step is None else jacobians(step, points.states, points.x, "input"))

    @property
    def n_features_in_(self) -> int:
        return self.points.states.shape[1]

    def nearest(self, states: Tensor) -> Tensor:
        """Number of the nearest point, int64 ``(*batch,)``."""
        centres = self.points.states.to(states.device)
        flat = states.double().reshape(-1, centres.shape[1])
        parts = [torch.cdist(part, centres).argmin(-1) for part in flat.split(max(1, _ENTRIES // len(centres)))]
        return torch.cat(parts).view(states.shape[:-1])

    def predict(self, states: Tensor, steps: int = 1) -> Tensor:
        """States `steps` steps later under the constant input, ``(*batch, size)``; from the nearest point each time."""
        for _ in range(checks.count(steps, "steps", 1, 10**6)):
            states = self._step(states, None)
        return states

    def predict_driven(self, states: Tensor, x: Tensor) -> Tensor:
        """States one step later under known inputs ``(*batch, inputs)``, to first order in both."""
        if self.inputs is None:
            raise ValueError("inputs: give the cell to Linearisation.of")
        return self._step(states, x)

    def _step(self, states: Tensor, x: Tensor | None) -> Tensor:
        number = self.nearest(states)
        after = torch.empty_like(states, dtype=torch.float64)
        for k in number.unique().tolist():  # points are few, states many
            here = number == k
            centre, image, operator = (
                part[k].to(states.device) for part in (self.points.states, self.points.images, self.points.operators)
            )
            after[here] = image + (states[here].double() - centre) @ operator
            if x is not None:
                after[here] += (x[here].double() - self.points.x.to(x.device)) @ self.inputs[k].to(x.device)
        return after


def _descend(step: Step, h: Tensor, x: Tensor, steps: int, rate: float) -> Tensor:
    """Adam on the sum of all `q`; rows do not mix, so each start goes its own way."""
    h = h.clone().requires_grad_()
    optimizer = torch.optim.Adam([h], rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    inputs = x.expand(len(h), -1)
    for _ in range(steps):
        (grad,) = torch.autograd.grad((step(h, inputs) - h).square().sum() / 2, h)
        h.grad = grad
        optimizer.step()
        schedule.step()
    checks.finite(h, "states", ": the minimisation of q diverged")
    return h.detach()


@torch.no_grad()
def _newton(step: Step, h: Tensor, x: Tensor, steps: int, goal: float) -> Tensor:
    """Damped Newton steps on ``F(h) = h``, each halved until `q` falls; states that are there or cannot get on stay."""
    h = h.clone()
    unit = torch.eye(h.shape[1], dtype=h.dtype, device=h.device)
    live = torch.arange(len(h), device=h.device)
    for _ in range(steps):
        here = h[live]
        q = speeds(step, here, x)
        open_ = q > goal
        live, here, q = live[open_], here[open_], q[open_]
        if not len(live):
            break
        gap = step(here, x.expand(len(here), -1)) - here
        slope = jacobians(step, here, x) - unit  # transposed
        normal = slope @ slope.mT
        damping = (2 * q).clamp_min(torch.finfo(h.dtype).eps * normal.diagonal(dim1=-2, dim2=-1).sum(-1))
        move = -torch.linalg.solve(normal + damping.view(-1, 1, 1) * unit, (slope @ gap.unsqueeze(-1)).squeeze(-1))
        moved, length = torch.zeros(len(live), dtype=torch.bool, device=h.device), 1.0
        for _ in range(_HALVINGS):
            trial = here + length * move
            better = ~moved & (speeds(step, trial, x) < q)
            here = torch.where(better.unsqueeze(-1), trial, here)
            moved |= better
            length /= 2
        h[live] = here
        live = live[moved]
        if not len(live):
            break
    return h


def _points(step: Step, h: Tensor, x: Tensor, radius: float, most: int) -> Points:
    """Different points among states ``(n, size)``, the slowest of each heap, with what the cell does there."""
    kept, hits = [], []
    rest = torch.ones(len(h), dtype=torch.bool, device=h.device)
    if len(h):
        h = h[speeds(step, h, x).argsort(stable=True)]
    while rest.any() and len(kept) < most:
        k = int(rest.int().argmax())
        heap = rest & ((h - h[k]).square().sum(-1).sqrt() <= radius)
        kept.append(k)
        hits.append(int(heap.sum()))
        rest &= ~heap
    states, size = h[kept], h.shape[1]
    images, operators = states, h.new_zeros(0, size, size)
    if kept:
        operators = jacobians(step, states, x)
        with torch.no_grad():
            images = step(states, x.expand(len(states), -1))
    values = torch.linalg.eigvals(operators.cpu())
    values = values.gather(-1, values.abs().argsort(dim=-1, descending=True, stable=True)).to(h.device)
    return Points(states, images, operators, values, torch.tensor(hits, dtype=torch.int64, device=h.device), x)
