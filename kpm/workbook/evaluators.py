"""What ``kpm results --check`` measures again from the shipped checkpoints."""

from __future__ import annotations

import dataclasses

from kpm import paths
from kpm.metrics.prediction import prediction
from kpm.metrics.reconstruction import reconstruction
from kpm.metrics.swaps import SwapConfig
from kpm.training import checkpoint
from kpm.workbook.evaluate import films, find_judge, judged
from kpm.workbook.publish_judge import measured
from kpm.workbook.results import Result, evaluator

_REPEATS = 3  # of the 25: minutes instead of a quarter of an hour
_SWAPS = dict.fromkeys(("D_sd", "D_mf"), 0.004)  # what the draw of partners and bf16 can change at so few repeats


def autoencoder(result: Result) -> dict[str, float]:
    """Reconstruction and prediction on the result's own split; the scores of swaps with the partition it has found."""
    assert result.checkpoint is not None
    model, meta = checkpoint.load_model(paths.root() / result.checkpoint.file)
    data = films(meta, result.split)
    found = dataclasses.asdict(reconstruction(model, data))
    if "D_sd" in result.metrics:
        details = result.details or {}
        partition = {f: tuple(c) for f, c in details["partition"].items()}
        asked = dict(details["config"])
        components = asked.pop("components")
        config = dataclasses.replace(SwapConfig(**asked), repeats=_REPEATS)
        scores = judged(model, find_judge(data, ""), data, data, config, components=components, partition=partition)
        errors = prediction(model, data)
        found |= {"D_sd": scores.d_sd, "D_mf": scores.d_mf}
        found |= {k: getattr(errors, k) for k in ("ambient_one_step", "ambient_rollout")}
    return found


def judge(result: Result) -> dict[str, float]:
    """Accuracies on the result's own split."""
    assert result.checkpoint is not None
    model, meta = checkpoint.load_judge(paths.root() / result.checkpoint.file)
    return measured(model, films(meta, result.split))


for _dataset in ("sprites", "dsprites_rerender", "moving_dsprites_rerender", "shapes3d_rerender"):
    evaluator(f"judge_{_dataset}", tolerance=5e-4)(judge)
for _method in ("skd", "ssm_skd"):
    for _dataset in ("sprites", "dsprites", "moving_dsprites", "shapes3d"):
        # Float32 convolutions differ in the last digits between processors.
        evaluator(f"{_method}_{_dataset}", tolerance=1e-3, absolute=_SWAPS)(autoencoder)
