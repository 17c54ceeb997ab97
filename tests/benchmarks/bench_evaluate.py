"""Static and dynamic swaps of real Sprites films, decoded and judged, against a loop that handles each film alone.

The loop is the published way: encode, take the film's operator apart with numpy, swap, decode, judge; nothing is kept
from one swap or repeat to the next. Both use the shipped weights, the same partners and the same mixing weights.
"""

from __future__ import annotations

import numpy as np
import torch

from kpm import datasets, paths
from kpm.metrics.swaps import DYNAMIC_SWAP, STATIC_SWAP, SwapConfig, measure
from kpm.models.inference import for_inference
from kpm.models.parts import take_apart
from kpm.training import checkpoint, hardware
from kpm.workbook.bench import Benchmark, Case

FILMS, CONFIG = 64, SwapConfig(repeats=2, batch_size=32)


def benchmark() -> Benchmark:
    data = datasets.load("sprites", "paper-test", "real").subset(torch.arange(FILMS))
    model, _ = checkpoint.load_model(paths.checkpoints() / "ssm_skd_sprites.safetensors")
    judge, _ = checkpoint.load_judge(paths.checkpoints() / "judge_sprites.safetensors")
    factors = (*data.static, *data.dynamic)
    half = hardware.faster_precision(torch.device("cpu")) == "bf16-mixed"

    def ours() -> np.ndarray:
        """From films to accuracies, as `kpm evaluate` does it, the preparation of the faster networks included."""
        fast, fast_judge = (for_inference(m, torch.bfloat16 if half else torch.float32) for m in (model, judge))
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
                    for i in range(size):
                        own, a, b = (apart(chosen[j]) for j in (i, partners[0][i], partners[1][i]))
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

    case = Case("static_and_dynamic", ours, reference, "loop over films", check, minimum=10.0)
    dtype = "bf16" if half else "float32"
    notes = f"{FILMS} films, {CONFIG.repeats} repeats, batches of {CONFIG.batch_size}; our convolutions in {dtype}"
    return Benchmark("evaluate", (case,), notes=notes)
