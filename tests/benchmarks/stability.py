"""Do trainings end in non-finite numbers? Many seeds, the published setting, a few hundred steps each.

    python -m tests.benchmarks.stability --seeds 20 --steps 300

The thesis reports that over 40 % of the original's runs die of NaN gradients. Each seed is a run of its own through the
training loop, whose guard stops at the first loss term or gradient norm that is not finite. Seeds done are kept in the
working folder, so an interrupted study goes on where it was. Writes ``data/results/stability_sprites.json``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

from kpm import datasets, environment, files, paths
from kpm.training.config import preset
from kpm.training.loop import train
from kpm.training.losses import NonFiniteLoss
from kpm.training.run_folder import Log
from kpm.workbook import results


def one(seed: int, steps: int, data: tuple) -> dict:
    """Train one seed; say whether it stayed finite, its largest gradient norm and its last reconstruction loss."""
    config = dataclasses.replace(preset("ssm-skd", "sprites"), seed=seed, steps=steps, validation_sequences=32)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        failure = None
        try:
            train(config, folder, data=data, device="cpu", progress_bar=False)
        except NonFiniteLoss as error:
            failure = str(error)
        events = Log(Path(folder) / "log.jsonl").read("train")
    return {
        "seed": seed,
        "failure": failure,
        "steps": events[-1]["step"] if events else 0,
        "largest_norm": max((e["norm"] for e in events), default=0.0),
        "reconstruction": events[-1]["reconstruction"] if events else None,
        "wall_s": round(time.monotonic() - start, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds")
    parser.add_argument("--steps", type=int, default=300, help="steps of each")
    options = parser.parse_args()
    data = tuple(datasets.load("sprites", split, "real") for split in ("train", "validation"))
    done = paths.runs() / f"stability_{options.steps}.json"
    rows = json.loads(done.read_text()) if done.is_file() else []
    rows = rows[: options.seeds]
    for seed in range(len(rows), options.seeds):
        rows.append(one(seed, options.steps, data))
        files.write_json(done, rows)
        print(rows[-1], flush=True)
    failed = [r for r in rows if r["failure"]]
    report = environment.report({f"seed_{r['seed']}": r["seed"] for r in rows})
    result = results.Result(
        name="stability_sprites",
        dataset="sprites",
        source="real",
        split="train",
        metrics={
            "runs": len(rows),
            "runs_not_finite": len(failed),
            "steps_per_run": min(r["steps"] for r in rows),
            "largest_gradient_norm": max(r["largest_norm"] for r in rows),
        },
        paper={},
        seeds=[r["seed"] for r in rows],
        steps=sum(r["steps"] for r in rows),
        wall_s=sum(r["wall_s"] for r in rows),
        hardware=report.hardware,
        checkpoint=None,
        command=f"python -m tests.benchmarks.stability --seeds {options.seeds} --steps {options.steps}",
        commit=report.commit,
        environment=report,
        notes="the thesis reports over 40 % of the original's runs lost to non-finite gradients",
        curve=[{k: r[k] for k in ("seed", "steps", "reconstruction")} for r in rows],
    )
    print(results.save(result).name, dict(result.metrics))
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
