"""What ``kpm results --check`` measures again from the shipped checkpoints."""

from __future__ import annotations

import dataclasses

from kpm import datasets, paths
from kpm.errors import UserError
from kpm.metrics.reconstruction import reconstruction
from kpm.training import checkpoint
from kpm.workbook.results import Result, evaluator


# Float32 convolutions differ in the last digits between processors.
@evaluator("ssm_skd_sprites", tolerance=1e-3)
def ssm_skd_sprites(result: Result) -> dict[str, float]:
    """Reconstruction figures on the result's own split."""
    assert result.checkpoint is not None
    model, _ = checkpoint.load_model(paths.root() / result.checkpoint.file)
    data = datasets.load(result.dataset, result.split, "real")
    if data.name != result.dataset:
        raise UserError(f"{result.name}: needs {result.dataset!r}, found {data.name!r}")
    return dataclasses.asdict(reconstruction(model, data))
