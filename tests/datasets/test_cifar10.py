"""CIFAR-10: archives of the published layout, its splits, pickles refused, the tinted stand-in."""

from __future__ import annotations

import dataclasses
import io
import tarfile

import numpy as np
import pytest
import torch

from kpm import datasets
from kpm.datasets import cifar10, registry
from kpm.datasets.catalogue import ENTRIES
from kpm.errors import UserError
from tests.datasets.toys import pin

ROWS = 4


def rows(seed: int) -> bytes:
    draw = np.random.RandomState(seed).randint(0, 256, (ROWS, 3073), np.uint8)
    draw[:, 0] = (np.arange(ROWS) + seed) % 10
    return draw.tobytes()


@pytest.fixture
def toy_cifar(register, base, tmp_path, monkeypatch):
    """Puts a small archive into a mirror in the place of the published one."""

    def put(parts: dict[str, bytes]) -> None:
        target = tmp_path / "mirror" / "cifar10" / cifar10.FILE
        target.parent.mkdir(parents=True)
        with tarfile.open(target, "w:gz") as tar:
            for name, content in parts.items():
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        content = target.read_bytes()
        file = dataclasses.replace(ENTRIES["cifar10"].files[0], size=len(content), hashes=(pin(content),))
        register(dataclasses.replace(ENTRIES["cifar10"], files=(file,)))
        monkeypatch.setenv("KPM_MIRROR", str(tmp_path / "mirror"))
        datasets._fetched.cache_clear()

    return put


WHOLE = {name: rows(i) for i, name in enumerate(cifar10.MEMBERS)}


def test_archive_of_the_published_layout(toy_cifar):
    toy_cifar({"batches.meta.txt": b"airplane\n", **WHOLE})
    train, test = (datasets.load("cifar10", s, "real") for s in ("paper-train", "paper-test"))
    assert train.values.shape == (20, 3, 32, 32) and train.class_names[9] == "truck" and train.source == "real"
    table = np.frombuffer(b"".join(WHOLE[n] for n in cifar10.MEMBERS[:5]), np.uint8).reshape(20, 3073)
    assert np.array_equal(train.labels.numpy(), table[:, 0])
    # The colour planes follow one another, each row by row.
    assert int(train.values[7, 2, 5, 9]) == table[7, 1 + 2 * 1024 + 5 * 32 + 9]
    assert len(test) == 4 and [len(datasets.load("cifar10", s)) for s in ("train", "validation")] == [18, 2]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({n: c for n, c in WHOLE.items() if "3" not in n}, "has no member 'data_batch_3.bin'"),
        (WHOLE | {"data_batch_1.bin": rows(0)[:-1]}, "expected rows of 3073 bytes, found 12291"),
        (WHOLE | {"test_batch.bin": b"\x0b" + rows(0)[1:]}, "expected classes 0 to 9, found 11"),
    ],
)
def test_another_layout_is_one_clear_error(toy_cifar, parts, message):
    toy_cifar(parts)
    with pytest.raises(UserError, match=message):
        datasets.load("cifar10")


def test_pickles_are_refused_in_one_line(base, tmp_path, monkeypatch):
    place = tmp_path / "mirror" / "cifar10"
    place.mkdir(parents=True)
    monkeypatch.setenv("KPM_MIRROR", str(tmp_path / "mirror"))
    datasets._fetched.cache_clear()
    with pytest.raises(registry.Unavailable):
        datasets.load("cifar10", source="real")
    (place / "cifar-10-python.tar.gz").write_bytes(b"never opened")
    with pytest.raises(UserError, match=r"holds pickles and is not read; get cifar-10-binary\.tar\.gz") as caught:
        datasets.load("cifar10", source="real")
    assert "\n" not in str(caught.value)


def test_stand_in_has_the_shape_and_its_own_name():
    data = datasets.load("cifar10", "validation", "synthetic")
    assert (data.name, data.source, data.shape) == ("tinted_digits", "synthetic", (3, 32, 32))
    assert torch.equal(data.labels, datasets.load("drawn_digits", "validation").labels)
    assert data.class_names == tuple("0123456789") and data.values.flatten(1).unique(dim=0).shape[0] == len(data)
