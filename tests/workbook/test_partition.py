"""`kpm partition`: what it finds adds up, what it prints is what it writes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from kpm import cli, datasets, paths
from kpm.analysis.factorial_swaps import FactorialSwaps
from kpm.errors import UserError
from kpm.training import checkpoint
from kpm.workbook import partition, results
from tests.metrics.toys import autoencoder, judge

CLASSES = {"skin": 6, "pants": 6, "top": 6, "hair": 6, "action": 9}
FLAGS = "--repeats 2 --search-repeats 2 --batch-size 32 --precision 32-true --no-progress".split()  # noqa: SIM905


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    meta = {"data": {"train": {"name": "puppets", "source": "synthetic", "split": "train", "sequences": 64}}}
    meta["progress"] = {}
    for name, model in (
        ("ssm_skd_puppets", autoencoder(latent_dim=5)),
        ("skd_puppets", autoencoder("batch", latent_dim=9, static_size=4)),
        ("judge_puppets", judge(CLASSES)),
    ):
        checkpoint.save_model(paths.checkpoints() / f"{name}.safetensors", model, meta)
    load = datasets.load

    def few(*args, **kwargs):
        data = load(*args, **kwargs)
        return data.subset(torch.linspace(0, len(data) - 1, 64).long())

    monkeypatch.setattr(datasets, "load", few)
    return tmp_path


@pytest.mark.parametrize("name", ["ssm_skd_puppets", "skd_puppets"])
def test_every_search_is_judged_and_none_but_the_greedy_ones_falls_behind_it(home, capsys, name):
    few = ["--exhaustive-components", "3", "--films-per-repeat", "48"]
    assert cli.main(["partition", name, "--save", *few, *FLAGS]) == 0
    said = capsys.readouterr().out
    found = json.loads((home / "out" / f"partition_{name}.json").read_text())
    searches = {f["search"]: f for f in found["found"]}
    assert list(searches) == ["greedy", "greedy, as the text has it", "refined", "beam of 4", "power set"]
    count = found["components"]
    for f in searches.values():
        taken = [c for part in f["partition"].values() for c in part]
        assert set(f["partition"]) == {"skin", "pants", "top", "hair"}
        if f["search"] != "power set":  # whose sets may share components
            assert sorted(taken + list(f["rest"])) == list(range(count))
        assert f"{f['d_mf']:.4f} (se {f['d_mf_se']:.4f})" in said and f["d_mf_se"] >= 0
    best = searches["greedy"]["d_mf_search"]
    assert all(searches[s]["d_mf_search"] >= best for s in ("refined", "beam of 4", "power set"))
    assert searches["greedy"]["sets"] == count + 1 or count + 1 <= searches["greedy"]["sets"] <= count + 5
    assert sum(f["sets"] for f in searches.values() if f["search"] != "greedy, as the text has it") == 2**count
    assert len(found["exhaustive"]["components"]) == 3 and found["exhaustive"]["gap"] >= 0
    assert found["search_split"] == ("test" if name == "skd_puppets" else "validation")
    result = results.load(f"partition_{name}")
    words = "--repeats 2 --search-repeats 2 --exhaustive-components 3 --batch-size 32 --films-per-repeat 48"
    assert result.command == f"kpm partition {name} {words} --precision 32-true --save"
    assert result.metrics["D_mf"] == pytest.approx(searches["greedy"]["d_mf"], abs=1e-6)
    assert result.metrics["ratio_sets"] == pytest.approx(2**count / searches["greedy"]["sets"], rel=1e-5)


def test_what_cannot_be_saved_is_said_before_the_search(home):
    with pytest.raises(UserError, match="only of the components that a method has by itself"):
        partition.partition_command("skd_puppets", components="channels", save=True)
    copy = home / "copy.safetensors"
    copy.write_bytes((paths.checkpoints() / "skd_puppets.safetensors").read_bytes())
    with pytest.raises(UserError, match="only what a shipped checkpoint does"):
        partition.partition_command(str(copy), save=True)


def test_what_cannot_be_judged_is_said_before_the_search(home, monkeypatch):
    monkeypatch.setattr(partition, "searches", lambda *given: pytest.fail("the search began"))
    for given, message in (
        ({"repeats": 1}, "^repeats: expected at least 2, one repeat has no standard error; got 1"),
        ({"search_repeats": 1}, "^search-repeats: expected at least 2"),
        ({"films_per_repeat": 5}, "^films-per-repeat: expected at least the 32 of a batch, got 5"),
        ({"batch_size": 1}, "^batch-size: expected at least 2"),
        ({"batch_size": 65}, r"^batch-size: 65 films are more than the 64 of puppets \(test\)"),
        ({"width": 0}, "^width: expected at least 1, got 0"),
        ({"exhaustive_components": 0}, "^exhaustive-components: expected at least 1, got 0"),
    ):
        with pytest.raises(UserError, match=message):
            partition.partition_command("ssm_skd_puppets", **({"batch_size": 32} | given))
    many = autoencoder(latent_dim=15)
    _, meta = checkpoint.read(paths.checkpoints() / "ssm_skd_puppets.safetensors")
    checkpoint.save_model(home / "many.safetensors", many, meta)
    with pytest.raises(UserError, match=r"^exhaustive-components: expected at most 12, got 13"):
        partition.partition_command(
            str(home / "many.safetensors"), batch_size=32, exhaustive_components=13, precision="32-true"
        )


def test_a_partition_is_judged_by_the_formula():
    """Against equation 7 written out for accuracies made up."""
    rng = np.random.default_rng(0)
    memory = {}

    def measured(keeps):
        return np.stack([memory.setdefault(k.static, rng.uniform(0, 1, (3, 7))) for k in keeps])

    swaps = FactorialSwaps(measured, {"a": 4, "b": 5, "move": 2}, ("a", "b"), 3)
    given = partition.Found("x", {"a": (0, 2), "b": (1,)}, (), 0, 0.0, 0.0)
    found = partition._worth(swaps, given)
    wanted = {(0, 2): [1, 1 / 5, 1 / 2], (1,): [1 / 4, 1, 1 / 2]}
    off = [abs(memory[s].mean(1)[g] - t) for s, row in wanted.items() for g, t in enumerate(row)]
    assert found.d_mf == pytest.approx(1 - sum(off) / 6)
    each = [
        1 - np.mean([abs(memory[s][g, r] - t) for s, row in wanted.items() for g, t in enumerate(row)])
        for r in range(7)
    ]
    assert found.d_mf_se == pytest.approx(np.std(each, ddof=1) / 7**0.5)
