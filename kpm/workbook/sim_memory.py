"""What a backward pass has to be given: bytes that autograd keeps, for unrolled layers and for a fixed point."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kpm.models.deq import DEQ, DEQConfig
from kpm.models.sim import SIM, SIMConfig

log = logging.getLogger("kpm")


def kept_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes of the tensors that autograd keeps from `forward` for the backward pass, each memory once.

    Weights are among them: they are kept in any case.
    """
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    held = []  # what is computed stays until it has been counted, or memory would be used twice
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        held.append(forward())
    return sum(seen.values())


def by_layers(layers: Sequence[int], batch: int = 128, size: int = 92, seed: int = 0) -> dict[str, list[int]]:
    """Bytes kept for layers applied so many times, for a solver allowed as many evaluations, and for a SIM.

    Returns
    -------
    dict
        ``"unrolled"``, ``"implicit"`` and ``"SIM"``, a number for each of `layers`.
    """
    torch.manual_seed(seed)
    x = torch.randn(batch, 1, 28, 28)
    base = DEQConfig(size=size, method="plain", tol=1e-30)  # never reached: all evaluations are made
    found: dict[str, list[int]] = {"unrolled": [], "implicit": []}
    for count in layers:
        for gradient in found:
            model = DEQ(dataclasses.replace(base, gradient=gradient, most=count))
            found[gradient].append(kept_bytes(lambda model=model: _quietly(model, x)))
    sim = SIM(SIMConfig("mlp", width=89))
    return found | {"SIM": [kept_bytes(lambda: sim(x))] * len(layers)}


def _quietly(model: DEQ, x: Tensor) -> Tensor:
    before = log.level
    log.setLevel(logging.ERROR)  # that the solver is stopped short is what is asked for here
    try:
        return model(x)
    finally:
        log.setLevel(before)


def gradient_errors(tolerances: Sequence[float], method: str = "anderson", seed: int = 0) -> list[float]:
    """Relative error of the implicit gradient, solved to each tolerance, against 400 unrolled layers, float64."""
    torch.manual_seed(seed)
    x = 2 * torch.randn(32, 5, dtype=torch.float64)
    config = DEQConfig(shape=(5,), size=16, outputs=3, method=method, most=400)
    reference = DEQ(dataclasses.replace(config, gradient="unrolled", most=400)).double()
    truth = _gradient(reference, x)
    errors = []
    for tol in tolerances:
        model = DEQ(dataclasses.replace(config, tol=tol)).double()
        model.load_state_dict(reference.state_dict())
        errors.append(float((_gradient(model, x) - truth).norm() / truth.norm()))
    return errors


def _gradient(model: DEQ, x: Tensor) -> Tensor:
    model(x).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])
