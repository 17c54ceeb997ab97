"""``kpm kann copy``: how recurrent networks hold symbols through a delay; the operator of their states against
linearisations of the network itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kpm import paths
from kpm.analysis.fixed_points import FixedPoints, Linearisation, Points, Step, cell_step, find_fixed_points
from kpm.analysis.kann import KANN
from kpm.analysis.kann_measures import relative_errors
from kpm.errors import pick
from kpm.models.copy_memory import CopyMemoryNet, sequences
from kpm.solvers.spectra import memory_horizon
from kpm.training import checkpoint, copy_memory
from kpm.training.copy_memory import CopyTask, CopyTrainConfig
from kpm.training.fit import FitResult, fit

OPERATOR, LINEARISED, ENDS, LINEAR = "operator", "linearised", "all ends", "linear part"
SMALL = CopyTrainConfig(activation="tanh", hidden=64, length=4, epochs=30, learning_rate=3e-3)
"""Of `by_delay`: a network that leaks, about a minute on one core."""
NETWORKS = {
    "copy": CopyTrainConfig(),
    "copy_gru": CopyTrainConfig(cell="gru", delay=20, length=5, epochs=90, learning_rate=3e-3),
    "copy_tanh": dataclasses.replace(SMALL, delay=20),
}
"""What is shipped, by the name of the checkpoint: a memory that turns, one that holds, one that leaks."""


@torch.no_grad()
def delay_states(model: CopyMemoryNet, symbols: Tensor, delay: int, size: int = 250) -> Tensor:
    """States from the last symbol to the last blank before the cue, ``(n, delay + 1, hidden)``.

    Every step between them reads a blank. `symbols` are ``(n, s)``.
    """
    s = symbols.shape[1]
    parts = (sequences(part, delay, model.config)[0][:, : s + delay] for part in symbols.split(size))
    return torch.cat([model.states(ids)[:, s - 1 :] for ids in parts])


@torch.no_grad()
def said(model: CopyMemoryNet, states: Tensor, length: int) -> Tensor:
    """Symbols the network says if the cue comes in these states ``(n, hidden)``: int64 ``(n, length)``."""
    return model.recall(states, length).argmax(-1)


@dataclasses.dataclass(frozen=True)
class Fidelity:
    """How well a method stands for the network during the delay.

    Attributes
    ----------
    one_step : float
        ``|prediction - h|^2 / |h|^2`` one step ahead from true states, mean over the delay ([KANN] eq. 12).
    errors : Tensor
        The same after 1, 2, ..., `delay` steps from the first state alone, float64 ``(delay,)``.
    last : Tensor
        The predicted last states, float64 ``(n, hidden)``.
    symbols : Tensor
        What the network says from them, ``(n, s)``.
    recall, agreement : float
        Share of `symbols` that are right, and that are what the network says by itself.
    """

    one_step: float
    errors: Tensor
    last: Tensor
    symbols: Tensor
    recall: float
    agreement: float


def follow(model: CopyMemoryNet, method: Any, states: Tensor, symbols: Tensor) -> Fidelity:
    """Roll a method (`KANN`, `Linearisation`) out over the delay and let the network say what is left.

    Parameters
    ----------
    states : Tensor
        Of `delay_states`, ``(n, delay + 1, hidden)``.
    symbols : Tensor
        The right answers ``(n, s)``.
    """
    h, errors = states[:, 0].double(), []
    for truth in states[:, 1:].double().unbind(1):  # step by step: which point is nearest depends on the step before
        h = torch.as_tensor(method.predict(h))
        errors.append(((h - truth).square().sum(-1) / truth.square().sum(-1)).mean())
    own, heard = (said(model, x, symbols.shape[1]) for x in (states[:, -1], h))
    return Fidelity(
        one_step=float(relative_errors(method, states).mean),
        errors=torch.stack(errors),
        last=h,
        symbols=heard,
        recall=float((heard == symbols).double().mean()),
        agreement=float((heard == own).double().mean()),
    )


@dataclasses.dataclass(frozen=True)
class Baselines:
    """Linearisations of the network under a constant blank.

    Attributes
    ----------
    points : FixedPoints
        ``fixed`` ones; ``slow`` has every end of the search, however fast the network still is there.
    methods : dict of str to Linearisation
        ``"linearised"`` at the fixed points or, if there are none, at the slowest ends (all within a power of ten of
        `q`); ``"all ends"``, the nearest of all ends; for an orthogonal network its ``"linear part"``.
    step_size : float
        How far the network moves in a step at the slowest point, relative to its distance from the origin.
    """

    points: FixedPoints
    methods: dict[str, Linearisation]
    step_size: float


def baselines(model: CopyMemoryNet, states: Tensor, seed: int, starts: int = 64) -> Baselines:
    """Search for fixed points from `starts` of the states ``(n, t, hidden)`` and linearise there.

    Notes
    -----
    [Sussillo & Barak] take points where the network is slow for fixed ones. A memory that turns may have none of
    either; what the search ends at is then the best this method has.
    """
    rows = states.flatten(0, 1)
    chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:starts]
    blank = blank_input(model)
    found = find_fixed_points(cell(model), rows[chosen], blank, newton=20, slow=math.inf)
    best = found.fixed if len(found.fixed) else _slowest(found.slow)
    methods = {LINEARISED: Linearisation.of(best), ENDS: Linearisation.of(found.slow)}
    if model.config.cell == "orthogonal":
        methods[LINEAR] = linear_part(model)
    return Baselines(found, methods, float((2 * best.speed[0]).sqrt() / best.states[0].norm()))


def cell(model: CopyMemoryNet) -> Step:
    """One step of the recurrent layer in float64."""
    return model.recurrent.step if model.config.cell == "orthogonal" else cell_step(model.recurrent)


def blank_input(model: CopyMemoryNet) -> Tensor:
    """What the network reads in the delay, ``(inputs,)``."""
    return model.embed(torch.tensor(model.config.blank, device=model.readout.weight.device)).double()


@torch.no_grad()
def linear_part(model: CopyMemoryNet) -> Linearisation:
    """``h W + b`` of an orthogonal network: all but its activation, as a linearisation at the origin."""
    blank, layer = blank_input(model), model.recurrent
    matrix = layer.recurrent.weight.double().T
    image = (layer.inputs.weight.double() @ blank + layer.inputs.bias.double()).unsqueeze(0)
    values = torch.linalg.eigvals(matrix.cpu()).unsqueeze(0)
    one = torch.ones(1, dtype=torch.int64)
    return Linearisation(Points(torch.zeros_like(image), image, matrix.unsqueeze(0), values, one, blank))


@dataclasses.dataclass(frozen=True)
class CopyAnalysis:
    """A network, the operator of its delay, the baselines, and how each of them does on other sequences.

    Attributes
    ----------
    kann : KANN
        Fitted to the states of the delay only.
    baselines : Baselines or None
    states, symbols : Tensor
        Of the sequences that it was tried on, ``(n, delay + 1, hidden)`` and ``(n, s)``.
    own : Tensor
        What the network says by itself, ``(n, s)``.
    fidelity : dict of str to Fidelity
        Of ``"operator"`` and of the methods of the baselines.
    """

    kann: KANN
    baselines: Baselines | None
    states: Tensor
    symbols: Tensor
    own: Tensor
    fidelity: dict[str, Fidelity]

    @property
    def delay(self) -> int:
        return self.states.shape[1] - 1

    def eigenvalues(self) -> dict[str, Tensor]:
        """By method, complex; of a linearisation those at its slowest point. Not for ``"all ends"``."""
        values = {OPERATOR: torch.as_tensor(self.kann.eigenvalues_)}
        methods = {} if self.baselines is None else self.baselines.methods
        return values | {k: m.points.eigenvalues[0].cpu() for k, m in methods.items() if k != ENDS}


def analyse(
    model: CopyMemoryNet, fit_on: Tensor, symbols: Tensor, delay: int, seed: int, linearise: bool = True
) -> CopyAnalysis:
    """Fit the operator to the delay of some sequences and try it, and the baselines, on others.

    Parameters
    ----------
    model : CopyMemoryNet
        In eval mode.
    fit_on, symbols : Tensor
        ``(m, s)`` and ``(n, s)``.
    seed : int
        Of the starts of the search for fixed points.
    linearise : bool
        Whether to search, which takes most of the time.
    """
    learnt, states = delay_states(model, fit_on, delay), delay_states(model, symbols, delay)
    kann = KANN().fit(learnt)
    base = baselines(model, learnt, seed) if linearise else None
    methods = {OPERATOR: kann} | (base.methods if base else {})
    return CopyAnalysis(
        kann=kann,
        baselines=base,
        states=states,
        symbols=symbols,
        own=said(model, states[:, -1], symbols.shape[1]),
        fidelity={name: follow(model, method, states, symbols) for name, method in methods.items()},
    )


def covering(values: Tensor, delay: int, eps: float = 1e-2) -> int:
    """How many eigenvalues have a memory horizon of at least `delay` steps ([KANN] eq. 9)."""
    return int((memory_horizon(values, eps) >= delay).sum())


def recall_by_modes(model: CopyMemoryNet, found: CopyAnalysis, counts: Sequence[int]) -> Tensor:
    """Share of right symbols if only the first `count` modes of the operator carry the first state on: ``(counts,)``.

    Modes go by modulus; a conjugate pair that does not fit whole is left out.
    """
    right, first = [], found.states[:, 0]
    for count in counts:
        modes: list[int] = []
        for pair in found.kann.pairs_:
            if len(modes) + len(pair) > count:
                break
            modes += pair
        h = torch.as_tensor(found.kann.reconstruct(first, modes)) if modes else torch.zeros_like(first).double()
        last = torch.as_tensor(found.kann.predict(h, found.delay))
        right.append(float((said(model, last, found.symbols.shape[1]) == found.symbols).double().mean()))
    return torch.tensor(right, dtype=torch.float64)


def metrics(found: CopyAnalysis) -> dict[str, float]:
    """The figures of the results file."""
    figures: dict[str, float] = {}
    for name, part in found.fidelity.items():
        before = "" if name == OPERATOR else name.replace(" ", "_") + "_"
        figures |= {
            f"{before}e_rel": part.one_step,
            f"{before}e_rel_delay": float(part.errors[-1]),
            f"{before}recall": part.recall,
            f"{before}agreement": part.agreement,
        }
    for name, values in found.eigenvalues().items():
        if name == LINEAR:  # of modulus 1 by construction
            continue
        before = "" if name == OPERATOR else name.replace(" ", "_") + "_"
        figures |= {f"{before}covering_modes": covering(values, found.delay)}
        figures |= {f"{before}largest_modulus": float(values.abs().max())}
    if found.baselines is not None:
        figures |= {
            "fixed_points": len(found.baselines.points.fixed),
            "linearised_points": len(found.baselines.methods[LINEARISED].points),
            "linearised_step": found.baselines.step_size,
        }
    return figures


def network(name: str, folder: Path | None = None) -> tuple[CopyMemoryNet, CopyTrainConfig]:
    """The shipped network of `NETWORKS`, or one trained anew in `folder` (or gone on with there), in eval mode."""
    path, config = paths.checkpoints() / f"{name}.safetensors", NETWORKS[pick("network", name, NETWORKS)]
    if folder is not None:
        path = _train(config, folder, (folder / "last.safetensors").exists()).folder / "best.safetensors"
    return checkpoint.load_as(CopyMemoryNet, path)[0].eval(), config


def by_delay(
    delays: Sequence[int], folder: Path, config: CopyTrainConfig = SMALL, resume: bool = False
) -> list[dict[str, Any]]:
    """Train a network for each delay and count the modes that last; a row of plain values for each.

    Parameters
    ----------
    folder : Path
        Of the runs, ``delay_DELAY`` each.
    config : CopyTrainConfig
        Of all of them but for the delay.
    """
    rows = []
    for delay in delays:
        run = dataclasses.replace(config, delay=delay)
        trained = _train(run, folder / f"delay_{delay}", resume)
        model = checkpoint.load_as(CopyMemoryNet, trained.folder / "best.safetensors")[0].eval()
        drawn = [copy_memory.held_out(run, split) for split in ("train", "test")]
        found = analyse(model, *drawn, delay, run.seed)
        values = found.eigenvalues()
        rows.append(
            {
                "delay": delay,
                "accuracy": copy_memory.copy_scores(model, drawn[1], delay)["accuracy"],
                "recall": found.fidelity[OPERATOR].recall,
                "linearised_recall": found.fidelity[LINEARISED].recall,
                "e_rel_delay": float(found.fidelity[OPERATOR].errors[-1]),
                "linearised_e_rel_delay": float(found.fidelity[LINEARISED].errors[-1]),
                "covering": covering(values[OPERATOR], delay),
                "moduli": values[OPERATOR].abs().tolist(),
                "linearised_moduli": values[LINEARISED].abs().tolist(),
                "wall_s": round(trained.wall_s, 1),
            }
        )
    return rows


def _train(config: CopyTrainConfig, folder: Path, resume: bool) -> FitResult:
    task = CopyTask(config, *copy_memory.data(config), torch.device("cpu"))
    return fit(task, config, folder, resume=resume, progress_bar=False)


def _slowest(points: Points) -> Points:
    """Those whose `q` is within the power of ten of the slowest one's."""
    bound = 10.0 ** math.ceil(math.log10(max(float(points.speed[0]), 1e-300)))
    keep = points.speed <= bound
    parts = {f.name: getattr(points, f.name)[keep] for f in dataclasses.fields(points) if f.name != "x"}
    return Points(**parts, x=points.x)
