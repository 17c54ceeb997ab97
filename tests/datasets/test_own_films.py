"""Films of one's own as a dataset: what is known of them, and the way from frames to a swap that a judge has read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.datasets.base import SequenceDataset
from kpm.metrics.swaps import DYNAMIC_SWAP, STATIC_SWAP, Keep, SwapConfig, measure
from kpm.models.judge import Judge
from kpm.training import checkpoint
from kpm.training.judge import JudgeTrainConfig, train_judge
from tests.metrics.toys import autoencoder, films

SIZES = {"colour": 3, "way": 2}


def own(n: int = 12, **changes) -> SequenceDataset:
    data = films(n)
    factors = {f: data.factors[f] for f in ("colour", "way")}
    options = {"factors": factors, "dynamic": ("way",), "sizes": SIZES}
    return SequenceDataset.from_frames(data[:], "own", "test", **(options | changes))


def test_own_films_can_be_judged_and_swapped(tmp_path):
    """The splits to learn from have two of three colours; only `sizes` makes one judge fit all of them."""
    few = own(8, factors={"colour": torch.arange(8) % 2, "way": torch.arange(8) // 2 % 2})
    config = JudgeTrainConfig(width=2, steps=2, batch_size=4)
    train_judge(config, tmp_path / "judge.safetensors", data=(few, few), device="cpu", progress_bar=False)
    judge, _ = checkpoint.load_as(Judge, tmp_path / "judge.safetensors")
    assert judge.config.classes == SIZES
    data, model, swaps = own(), autoencoder(), SwapConfig(repeats=2, batch_size=6)
    found = measure(model, judge, data, [STATIC_SWAP, DYNAMIC_SWAP, Keep(None, True)], swaps)
    assert found.factors == ("colour", "way") and found.films == 12
    said, _ = judge.decide(model.decode(model.encode(data.to_float(data[:]))))
    expected = [float((said[f] == data.factors[f]).double().mean()) for f in SIZES]
    np.testing.assert_allclose(found.accuracy[2].mean(-1), expected)


def test_what_is_known_of_own_films():
    data = own(7)
    assert data.static == ("colour",) and data.dynamic == ("way",)
    assert data.factor_sizes == SIZES | {"number": 7}
    assert torch.equal(data[torch.tensor([4, 1])], films(7)[:][[4, 1]])
    counted = own(7, sizes={f: np.int64(n) for f, n in SIZES.items()})
    assert counted.factor_sizes == data.factor_sizes and type(counted.factor_sizes["way"]) is int
    for labels in (np.array([0, 1, 2, 0, 1, 2, 0], dtype=np.uint8), [0, 1, 2, 0, 1, 2, 0]):
        mine = own(7, factors={"colour": labels}, dynamic=(), sizes=None)
        assert mine.factors["colour"].dtype == torch.int64 and mine.factors["colour"].tolist() == list(labels)
        assert mine.static == ("colour",) and mine.factor_sizes == {"colour": 3, "number": 7}


ZEROS = torch.zeros(12, dtype=torch.int64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factors": {"number": ZEROS}, "dynamic": ()}, "factors: 'number' is the film itself"),
        ({"factors": {"way": ZEROS.double()}}, r"factors\['way'\]: expected whole numbers, got torch.float64"),
        ({"factors": {"way": ZEROS[:5]}}, r"factors\['way'\]: expected shape \(12,\), got \(5,\)"),
        ({"factors": {"way": ZEROS - 1}}, r"factors\['way'\]\[0\]: expected a class from 0, got -1"),
        (
            {"factors": {"way": torch.arange(12)}, "sizes": {"way": 3}},
            r"factors\['way'\]\[3\]: expected a class from 0 to 2, got 3",
        ),
        (
            {"factors": {"way": ZEROS}, "sizes": {"way": 2.5}},
            r"sizes\['way'\]: expected a whole number >= 1, got 2.5",
        ),
        ({"factors": {"way": ZEROS}, "sizes": {"colour": 3}}, r"sizes: 'colour' is none of the factors \['way'\]"),
        ({"dynamic": ("pace",)}, r"dynamic: 'pace' is none of the factors \['colour', 'way'\]"),
        ({"dynamic": "way"}, "dynamic: expected different names of factors, got 'way'"),
        ({"dynamic": ("way", "way")}, "dynamic: expected different names of factors"),
    ],
)
def test_what_is_wrong_with_own_films_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        own(**({"sizes": None} | changes))
    with pytest.raises(
        ValueError, match=r"frames: expected uint8 \(n, t, c, h, w\), got torch.uint8 \(2, 0, 3, 4, 4\)"
    ):
        SequenceDataset.from_frames(torch.zeros(2, 0, 3, 4, 4, dtype=torch.uint8), "own")
