"""The command of a training in stages: run again, it makes the weights."""

import json
import re

import pytest

from kpm import paths
from kpm.workbook import stages

FIRST = "kpm train skd --dataset sprites --ema 0.9 --steps 40"
BY_NAME = "kpm train skd --dataset sprites --init skd_sprites --learning-rate 0.1 --steps 18"
BY_FOLDER = "kpm train skd --dataset sprites --init /home/someone/my runs/b/last.safetensors --no-recurrent --steps 7"


def test_one_stage_keeps_its_default_folder():
    assert stages.chained([FIRST], "skd") == FIRST


def test_each_stage_goes_on_from_the_folder_of_the_one_before():
    command = stages.chained([FIRST, BY_NAME, BY_FOLDER], "skd_sprites")
    assert command == " && ".join(
        [
            f"{FIRST} --out runs/skd_sprites_1",
            "kpm train skd --dataset sprites --init runs/skd_sprites_1/best.safetensors --learning-rate 0.1 --steps 18"
            " --out runs/skd_sprites_2",
            "kpm train skd --dataset sprites --init runs/skd_sprites_2/last.safetensors --no-recurrent --steps 7"
            " --out runs/skd_sprites_3",
        ]
    )


def test_best_weights_of_a_folder_stay_the_best():
    command = stages.chained([FIRST, BY_FOLDER.replace("last", "best")], "x")
    assert stages.flag(stages.parts(command)[1], "init") == "runs/x_1/best.safetensors"


def test_stages_are_numbered_anew():
    stored = stages.chained([FIRST, BY_NAME], "skd_sprites")
    assert stages.chained(stages.parts(stored), "skd_sprites") == stored
    longer = stages.chained([*stages.parts(stored), BY_NAME], "other")
    assert [stages.flag(s, "out") for s in stages.parts(longer)] == [f"runs/other_{k}" for k in (1, 2, 3)]
    inits = [stages.flag(s, "init") for s in stages.parts(longer)]
    assert inits == ["", "runs/other_1/best.safetensors", "runs/other_2/best.safetensors"]


def test_weights_of_unknown_making_stay_named():
    """The first stage's --init says what it began with: there is nothing to put in its place."""
    assert stages.chained([BY_NAME], "x") == BY_NAME
    command = stages.chained([BY_NAME, BY_FOLDER], "x")
    assert stages.flag(stages.parts(command)[0], "init") == "skd_sprites"


@pytest.mark.parametrize(
    ("own", "steps", "known", "expected"),
    [
        ([BY_NAME], 58, 40, [FIRST, BY_NAME]),
        ([BY_NAME, BY_FOLDER], 65, 40, [FIRST, BY_NAME, BY_FOLDER]),
        ([FIRST, BY_NAME], 58, 40, [FIRST, BY_NAME]),  # nothing is lacking
        ([BY_NAME], 58, 41, [BY_NAME]),  # other weights are shipped by now
        ([BY_NAME], 18, 0, [BY_NAME]),  # the weights it began with have forgotten their steps
        ([BY_NAME], 58, None, [BY_NAME]),
    ],
)
def test_what_is_lacking_comes_from_the_shipped_command_if_the_steps_are_those(own, steps, known, expected):
    assert stages.continued(own, steps, FIRST, known) == expected


def test_shipped_commands_begin_from_nothing_and_take_up_only_what_they_wrote():
    files = [json.loads(path.read_text(encoding="utf-8")) for path in paths.results().glob("*skd_*.json")]
    chains = {f["name"]: f for f in files if re.match(r"kpm train (ssm-)?skd ", f["command"])}
    assert len(chains) >= 6
    for name, result in chains.items():
        found = stages.parts(result["command"])
        assert sum(int(stages.flag(s, "steps")) for s in found) == result["steps"]
        assert not stages.flag(found[0], "init")
        for before, stage in zip(found, found[1:]):
            assert stages.flag(stage, "init").rpartition("/")[0] == stages.flag(before, "out"), name
        assert stages.chained(found, name) == result["command"]
