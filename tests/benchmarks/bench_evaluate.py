"""Static and dynamic swaps of real Sprites films, decoded and judged, against a loop that handles each film alone.

In each repeat and for each kind of swap the loop encodes every film and takes its operator apart with numpy, then
swaps, decodes and judges film after film. Both use the shipped weights, the same partners and the same mixing weights.
One case is in float32 throughout, the other has our convolutions in bf16, where that is faster.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from kpm import datasets, paths
from kpm.metrics.swaps import DYNAMIC_SWAP, STATIC_SWAP, SwapConfig, measure
from kpm.models.inference import for_inference
from kpm.models.parts import take_apart
from kpm.training import checkpoint, hardware
from kpm.workbook.bench import Benchmark, Case

FILMS, CONFIG = 64, SwapConfig(repeats=25, batch_size=32)  # 25 repeats, as the thesis


def benchmark() -> Benchmark:
    data = datasets.load("sprites", "paper-test", "real").subset(torch.arange(FILMS))
    model, _ = checkpoint.load_model(paths.checkpoints() / "ssm_skd_sprites.safetensors")
    judge, _ = checkpoint.load_judge(paths.checkpoints() / "judge_sprites.safetensors")
    factors = (*data.static, *data.dynamic)
    half = hardware.faster_precision(torch.device("cpu")) == "bf16-mixed"

    def ours(dtype: torch.dtype) -> np.ndarray:
        """From films to accuracies, as `kpm evaluate` does it, the preparation of the faster networks included."""
        fast, fast_judge = (for_inference(m, dtype) for m in (model, judge))
        return measure(fast, fast_judge, data, [STATIC_SWAP, DYNAMIC_SWAP], CONFIG, take_apart(model, data)).accuracy

    def apart(film: int) -> tuple[np.ndarray, np.ndarray]:
        z = model.encode(data.to_float(data[film])[None])[0].double().numpy()
        values, right = np.linalg.eig(np.linalg.pinv(z[:-1]) @ z[1:])
        left = np.linalg.pinv(right)
        i = np.argmin(abs(values - 1))
        static = np.outer(z @ right[:, i], left[i]).real
        return static, z - static

    @torch.inference_mode()
    def reference() -> np.ndarray:
        right = np.zeros((2, len(factors), CONFIG.repeats))
        size = CONFIG.batch_size
        for repeat in range(CONFIG.repeats):
            draw = torch.Generator().manual_seed(CONFIG.seed + 1_000_003 * repeat)
            for chosen in torch.randperm(FILMS, generator=draw).view(-1, size).tolist():
                partners = [torch.randperm(size, generator=draw).tolist() for _ in range(2)]
                weights = torch.rand(2, size, generator=draw).double().numpy()
                for k in range(2):
                    parts = [apart(film) for film in chosen]
                    for i in range(size):
                        own, a, b = (parts[j] for j in (i, partners[0][i], partners[1][i]))
                        share = weights[0, i] / weights[:, i].sum()
                        mixed = share * a[k] + (1 - share) * b[k]
                        latents = torch.from_numpy(mixed + own[1 - k]).float()
                        said, _ = judge.decide(model.decode(latents[None]))
                        for f, name in enumerate(factors):
                            right[k, f, repeat] += int(said[name]) == int(data.factors[name][chosen[i]])
        return right / FILMS

    def check(mine: np.ndarray, theirs: np.ndarray) -> None:
        # bf16 may turn an answer that hangs in the balance.
        np.testing.assert_allclose(mine, theirs, atol=2 / FILMS)

    cases = [Case("float32", functools.partial(ours, torch.float32), reference, "loop over films", check)]
    if half:
        cases.append(Case("bf16", functools.partial(ours, torch.bfloat16), reference, "loop over films", check))
    notes = f"{FILMS} films, {CONFIG.repeats} repeats, batches of {CONFIG.batch_size}, static and dynamic swap"
    return Benchmark("evaluate", tuple(cases), notes=notes)
