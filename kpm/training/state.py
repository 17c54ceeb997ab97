"""What a run needs to go on as if it had never stopped."""

from __future__ import annotations

import dataclasses
import signal
from typing import Any

import torch
from torch import Tensor, nn

from kpm.errors import UserError


@dataclasses.dataclass
class Progress:
    """How far a run is; kept in its checkpoints beside the tensors.

    What went into the weights the run started from, if it did not start anew: `before_steps`, `before_wall_s`, and the
    commands that made them.
    """

    step: int = 0
    wall_s: float = 0.0
    precision: str = "32-true"
    best: dict[str, float] = dataclasses.field(default_factory=dict)
    plateau: dict[str, Any] = dataclasses.field(default_factory=dict)
    before_steps: int = 0
    before_wall_s: float = 0.0
    before_commands: list[str] = dataclasses.field(default_factory=list)


def flatten(model: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of a run under one level of names."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    if mean is not model:
        tensors |= {f"average.{k}": v for k, v in mean.state_dict().items()}
    for i, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in entries.items()}
    return tensors


def restore(tensors: dict[str, Tensor], model: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """The inverse of `flatten`."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    if mean is not model:
        mean.load_state_dict(part("average."))
    parameters = list(model.parameters())
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in part("optimizer.").items():
        i, name = key.split(".", 1)
        if value.ndim:  # the fused optimiser reads memory, so moments must lie as their parameter does
            value = torch.empty_like(parameters[int(i)], requires_grad=False).copy_(value)
        state.setdefault(int(i), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def mix(seed: int, counter: int) -> int:
    """One 63-bit seed from two numbers; a multiplicative hash keeps neighbours apart."""
    return (seed * 0x9E3779B97F4A7C15 + counter * 0xBF58476D1CE4E5B9 + 1) % (1 << 63)


def generator(seed: int, counter: int) -> torch.Generator:
    return torch.Generator().manual_seed(mix(seed, counter))


def check_hours(max_hours: float | None) -> None:
    """`UserError` if a limit of time is none."""
    if max_hours is not None and not max_hours >= 0:
        raise UserError(f"max_hours must be at least 0, got {max_hours}")


class StopOnSignal:
    """Within the block, the first SIGINT or SIGTERM only sets `asked`, so that the loop can save; a second one acts."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._ask)
            except ValueError:  # not the main thread: whoever runs us handles signals
                break
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = number
        signal.signal(number, self._before[number])

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
