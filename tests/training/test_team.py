"""Two processes train as one does."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kpm import paths
from kpm.errors import UserError
from kpm.models import koopman_autoencoder
from kpm.training import checkpoint
from kpm.training.fit import fit
from kpm.training.run_folder import Log
from kpm.training.team import Team
from tests.training import team_runs
from tests.training.conftest import small
from tests.training.test_fit import Regression


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """Folders with the runs of one process and of two."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    alone = Team(torch.device("cpu"))
    for folder in (one, two):
        team_runs.learn(folder / "grown", alone, method="ssm-skd", steps=3)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "tests.training.team_runs", str(two)]
    done = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    team_runs.learn(two / "shrunk", alone, method="ssm-skd", steps=6)
    team_runs.main(one)
    team_runs.learn(one / "shrunk", alone, method="ssm-skd", steps=6)
    return one, two


def read(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read(folder / "last.safetensors")[0]


# A bias before a batch normalisation has no effect: its gradient is nothing but rounding, which Adam divides by its own
# size. It drifts, and the running mean with it; what they do together does not.
NO_EFFECT = re.compile(r"(cnn\.\d\.0\.bias|running_mean)$")


@pytest.mark.parametrize("run", ["skd", "ssm-skd", "shrunk", "grown", "fit", "parts"])
def test_two_processes_end_with_the_weights_of_one(folders, run):
    one, two = (read(folder / run) for folder in folders)
    assert one.keys() == two.keys()
    last = {f"{net}.decoder.cnn.4.0.bias" for net in ("model", "average")}  # no normalisation follows
    for name, value in one.items():
        if name.startswith(("model.", "average.")) and (name in last or not NO_EFFECT.search(name)):
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert not all(torch.equal(one[name], two[name]) for name in one)  # or nothing was computed in two ways


@pytest.mark.parametrize("run", ["skd", "ssm-skd", "shrunk", "grown", "fit", "parts"])
def test_the_logs_are_those_of_one_process_and_written_once(folders, run):
    one, two = (Log(folder / run / "log.jsonl").read() for folder in folders)
    assert [(e["step"], e["kind"]) for e in one] == [(e["step"], e["kind"]) for e in two]
    for a, b in zip(one, two):
        for name in a.keys() - {"wall_s", "kind"}:
            assert b[name] == pytest.approx(a[name], rel=1e-6, abs=1e-8), (a["step"], a["kind"], name)


def test_a_model_of_two_processes_loads_as_any_other(folders):
    model, meta = checkpoint.load_model(folders[1] / "skd/best.safetensors")
    assert type(model) is koopman_autoencoder.KoopmanAutoencoder and not model.shared
    assert {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__} == {"BatchNorm2d"}
    assert meta["progress"]["best"]["step"] > 0


def test_parts_without_statistics_over_the_batch_add_up_to_the_batch(folders):
    whole, parts = (read(folders[0] / run) for run in ("fit", "parts"))
    torch.testing.assert_close(parts["model.line.weight"], whole["model.line.weight"], rtol=0, atol=1e-9)


def test_batches_that_cannot_be_cut_are_refused(data, tmp_path):
    from kpm.training.loop import train

    with pytest.raises(UserError, match="batch_size: 4 sequences cannot be cut into 3 parts for 1 processes"):
        train(small(accumulate=3), tmp_path / "run", data=data, progress_bar=False)
    with pytest.raises(UserError, match="accumulate must be at least 1"):
        fit(Regression(), team_runs.FIT, tmp_path / "fit", accumulate=0, progress_bar=False)


def test_judges_are_trained_by_one_process(data, tmp_path, monkeypatch):
    from kpm.training.judge import JudgeTrainConfig, train_judge

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    with pytest.raises(UserError, match="without torchrun"):
        train_judge(JudgeTrainConfig(), tmp_path / "judge.safetensors", data=data, device="cpu")
