"""dSprites films: composition against a plain loop, splits, and files of the published layout made here."""

from __future__ import annotations

import collections
import hashlib
import itertools
import random
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from kpm import datasets
from kpm.datasets import dsprites, dsprites_files, dsprites_renderer, moving_dsprites
from kpm.datasets.catalogue import Entry, File
from kpm.datasets.show_trajectories import plot_trajectories
from kpm.datasets.trajectories import TRACKS, scale_trajectories, shuffled
from kpm.errors import UserError

COLOURS = ((102, 205, 170), (255, 165, 0), (0, 255, 0), (0, 0, 255), (30, 144, 255), (255, 20, 147))
RERENDERS = ("dsprites_rerender", "moving_dsprites_rerender")
SPLITS = ("train", "validation", "test")


def by_hand(label: dict[str, int], moving: bool, pictures) -> np.ndarray:
    """Eight frames ``(8, 3, 64, 64)``, one after the other, from ``pictures(shape, scale, x, y)``."""
    frames = np.zeros((8, 3, 64, 64), np.uint8)
    for k in range(8):
        scale = scale_trajectories()[label["scale"]][k]
        if moving:
            x, y = (tuple(TRACKS.values())[label[axis]][k] for axis in "xy")
        else:
            x, y = (2 + 4 * label[axis] for axis in "xy")
        mask = pictures(label["shape"], scale, x, y)
        for c in range(3):
            frames[k, c][mask] = COLOURS[label["color"]][c]
    return frames


def drawn(shape, scale, x, y) -> np.ndarray:
    return dsprites_renderer.render(shape, scale, 0, x, y)[0]


def assert_composed(dataset, pictures, n: int) -> None:
    index = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(1))[:n]
    rows = zip(*(v.tolist() for v in dataset.labels(index).values()))
    labels = [dict(zip(dataset.factors, row)) for row in rows]
    expected = np.stack([by_hand(label, "moving" in dataset.name, pictures) for label in labels])
    assert np.array_equal(dataset[index].numpy(), expected)


# Trajectories and splits


def test_scale_trajectories_are_those_of_lists_that_roll():
    random.seed(42)
    expected = []
    for _ in range(10):
        levels = collections.deque((0, 1, 2, 3, 4, 5, 4, 3, 2, 1))
        speeds = collections.deque((2, 1, 0, -1, -2, -1, 0, 1))
        levels.rotate(random.randint(0, 5))
        speeds.rotate(random.randint(0, 4))
        seen = []
        for _ in range(8):
            seen.append(levels[0])
            levels.rotate(speeds[0])
            speeds.rotate(random.choice([0, 0, 1, -1]))
        expected.append(tuple(seen))
    assert list(scale_trajectories()) == expected
    assert expected[0] == (5, 3, 1, 0, 1, 2, 3, 4)  # another Python must not give other films


def test_trajectories_are_distinct_and_in_range():
    assert len(set(scale_trajectories())) == 10 and len(set(TRACKS.values())) == 8
    assert {v for t in scale_trajectories() for v in t} == set(range(6))
    for track in TRACKS.values():
        assert len(track) == 8 and min(track) >= 0 and max(track) <= 31


def test_division_is_a_seeded_shuffle_and_leaves_the_global_stream_alone():
    order = list(range(100))
    random.Random(42).shuffle(order)
    random.seed(3)
    before = random.getstate()
    assert shuffled(100, "paper-train").tolist() == order[:80] and shuffled(100, "test").tolist() == order[80:]
    assert shuffled(100, "train").tolist() == order[:72] and shuffled(100, "validation").tolist() == order[72:80]
    scale_trajectories.cache_clear()
    scale_trajectories()
    assert random.getstate() == before


def films(split_factors, split: str, *names: str) -> list[tuple[int, ...]]:
    factors = split_factors(split)
    return list(zip(*(factors[name].tolist() for name in names or factors)))


@pytest.mark.parametrize(
    "module, sizes",
    [
        (dsprites, {"train": 8290, "validation": 920, "test": 2310, "paper-train": 9210, "paper-test": 2310}),
        (moving_dsprites, {"train": 8295, "validation": 921, "test": 2304, "paper-train": 9216, "paper-test": 2304}),
    ],
)
def test_splits(module, sizes):
    parts = {split: films(module.split_factors, split) for split in sizes}
    assert {split: len(part) for split, part in parts.items()} == sizes
    every = list(itertools.product(*map(range, module.FACTOR_SIZES.values())))
    assert films(module.split_factors, "all") == every
    assert sorted(itertools.chain(*(parts[s] for s in SPLITS))) == every
    assert parts["paper-test"] == parts["test"]
    assert sorted(parts["paper-train"]) == sorted(parts["train"] + parts["validation"])


def test_static_combinations_of_dsprites_are_in_one_split_only():
    names = ("color", "shape", "x", "y")
    count = {split: collections.Counter(films(dsprites.split_factors, split, *names)) for split in SPLITS}
    assert {split: len(c) for split, c in count.items()} == {"train": 829, "validation": 92, "test": 231}
    for one, other in itertools.combinations(count.values(), 2):
        assert not one.keys() & other.keys()
    assert {n for c in count.values() for n in c.values()} == {10}


@pytest.mark.parametrize("name", [*RERENDERS, "dsprites", "moving_dsprites"])
def test_unknown_split(name):
    with pytest.raises(UserError, match="unknown split 'tset'; did you mean 'test'"):
        datasets.load(name, "tset", source="synthetic")


# Composition


@pytest.mark.parametrize("name", RERENDERS)
def test_a_batch_equals_a_plain_loop(name):
    assert_composed(datasets.load(name, "all"), drawn, 40)


@pytest.mark.parametrize("name", RERENDERS)
def test_every_film_is_another(name):
    """No two films of one colour show the same pixels, and each colour shows them otherwise."""
    data = datasets.load(name, "all")
    aquamarine = data.subset(data.factors["color"] == 0)
    shown = np.packbits(np.concatenate([aquamarine[i : i + 240][:, :, 0] != 0 for i in range(0, 1920, 240)]), axis=-1)
    assert len({film.tobytes() for film in shown}) == len(aquamarine) == 11520 // 6
    colours = data.compose({f: torch.arange(6) * (f == "color") for f in data.factors})
    assert torch.equal(colours.any(2), colours[:1].any(2).expand(6, -1, -1, -1))
    assert len({film.numpy().tobytes() for film in colours}) == 6


def test_face():
    data = datasets.load("moving_dsprites", "test", source="synthetic")
    assert (data.name, data.source, data.scale) == ("moving_dsprites_rerender", "re-render", 255.0)
    assert data.static == ("color", "shape") and data.dynamic == ("scale", "x", "y")
    assert data[0].shape == data.shape == (8, 3, 64, 64) and data[0].dtype == torch.uint8
    batch = data[torch.arange(4)]
    assert batch.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch[2], data[2])
    data = datasets.load("dsprites_rerender")
    assert data.static == ("color", "shape", "x", "y") and data.dynamic == ("scale",)
    for d in (data, datasets.load("moving_dsprites_rerender")):
        assert (
            {f: len(names) for f, names in d.class_names.items()}
            == d.factor_sizes
            == d.describe()["static"] | d.describe()["dynamic"]
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"scale": torch.tensor([0, 10])}, r"labels\['scale'\]: expected 0 to 9, got 10 at index 1"),
        ({"x": torch.tensor([-1, 0])}, r"labels\['x'\]: expected 0 to 7, got -1 at index 0"),
        ({"color": torch.tensor([0])}, r"labels\['color'\]: expected integers \(b,\), got torch.int64 \(1,\)"),
        ({"y": torch.zeros(2)}, r"labels\['y'\]: expected integers \(b,\), got torch.float32"),
        ({"shape": None}, "labels: missing shape"),
    ],
)
def test_bad_labels(change, message):
    data = datasets.load("dsprites_rerender")
    labels = {**data.labels(slice(0, 2)), **change}
    with pytest.raises(ValueError, match=message):
        data.compose({name: v for name, v in labels.items() if v is not None})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", RERENDERS)
def test_frames_are_the_same_on_the_gpu(name):
    data, index = datasets.load(name, "all"), torch.arange(0, 11520, 37)
    frames = data.to("cuda")[index.cuda()]
    assert frames.is_cuda and torch.equal(frames.cpu(), data[index])


# Files of the published layout, with two orientations instead of forty

FEW = (3, 6, 2, 32, 32)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A folder with both forms. Pictures are upside down, so that one sees where they come from."""
    folder = tmp_path_factory.mktemp("published")
    pictures = dsprites_renderer.render(*np.indices(FEW).reshape(5, -1))[:, ::-1].astype(np.uint8)
    np.savez_compressed(folder / "few.npz", imgs=pictures, latents_classes=np.zeros((3, 6), np.int64))
    with zipfile.ZipFile(folder / "few.npz", "a") as archive:
        archive.writestr("metadata.npy", b"a pickle nobody may open")
    with h5py.File(folder / "few.hdf5", "w") as file:
        file.create_dataset("imgs", data=pictures, compression="lzf", chunks=(1024, 64, 64))
    return folder


@pytest.fixture
def two_orientations(monkeypatch):
    monkeypatch.setattr(dsprites_files, "GRID", FEW)


@pytest.fixture
def entries(register, tmp_path, published, monkeypatch):
    """Puts one form in a mirror, under its published name and pinned by its hash."""

    def put(form: str, content: bytes | None = None) -> None:
        suffix = "hdf5" if form.endswith("hdf5") else "npz"
        content = (published / f"few.{suffix}").read_bytes() if content is None else content
        held = File(f"few.{suffix}", len(content), (f"sha256:{hashlib.sha256(content).hexdigest()}",))
        other = File("none.bin", 0, ("sha256:" + "0" * 64,))
        for name in ("dsprites", "dsprites-hdf5"):
            register(Entry(name, "", "", "", "", (held if name == form else other,), stand_in="dsprites_rerender"))
        target = tmp_path / "mirror" / form / held.path
        target.parent.mkdir(parents=True)
        target.write_bytes(content)
        monkeypatch.setenv("KPM_MIRROR", str(tmp_path / "mirror"))
        monkeypatch.setenv("KPM_CACHE", str(tmp_path / "cache"))

    return put


@pytest.mark.parametrize("form", ["dsprites", "dsprites-hdf5"])
def test_films_of_a_published_file(form, entries, two_orientations):
    entries(form)
    for name in ("dsprites", "moving_dsprites"):
        data = datasets.load(name, "test", source="auto")
        assert (data.name, data.source) == (name, "real")
        assert_composed(data, lambda *picture: drawn(*picture)[::-1], 12)


def test_corrupt_file_is_refused(entries, tmp_path, two_orientations):
    entries("dsprites")
    (tmp_path / "mirror" / "dsprites" / "few.npz").write_bytes(b"rotten")
    with pytest.raises(UserError, match=r"corrupt file .*few\.npz"):
        datasets.load("dsprites", source="real")


def test_file_that_is_no_npz_is_refused_before_the_first_frame(entries, two_orientations):
    entries("dsprites", b"no archive")
    with pytest.raises(UserError, match=r"cannot read .*few\.npz: File is not a zip file"):
        datasets.load("moving_dsprites", source="real")


TINY = (3, 6, 2, 2, 2)
COUNT = 3 * 6 * 2 * 2 * 2


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(dsprites_files, "GRID", TINY)


def pictures(count: int = COUNT, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (count, 64, 64)).astype(dtype)


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
def test_only_orientation_0_is_kept(suffix, tmp_path, tiny):
    path, images = tmp_path / f"tiny.{suffix}", pictures()
    write(path, images)
    bits = np.unpackbits(dsprites_files.table(path), axis=-1, bitorder="little")
    assert np.array_equal(bits, images.reshape(*TINY, 64, 64)[:, :, 0])


def write(path: Path, images: np.ndarray, name: str = "imgs") -> None:
    if path.suffix == ".npz":
        np.savez_compressed(path, **{name: images})
    else:
        with h5py.File(path, "w") as file:
            file[name] = images


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
@pytest.mark.parametrize(
    "images, name, message",
    [
        (pictures(), "images", "no (member|dataset) 'imgs', which dSprites has; found images"),
        (pictures(COUNT - 1), "imgs", r"should be uint8 \(144, 64, 64\), found uint8 \(143, 64, 64\)"),
        (pictures(dtype=np.float32), "imgs", r"should be uint8 .*, found float32 \(144, 64, 64\)"),
        (pictures() * 255, "imgs", "'imgs' should hold 0 and 1 only, found 255"),
    ],
    ids=["name", "count", "type", "values"],
)
def test_other_layouts_are_refused(suffix, images, name, message, tmp_path, tiny):
    path = tmp_path / f"other.{suffix}"
    write(path, images, name)
    with pytest.raises(UserError, match=message):
        dsprites_files.table(path)


def test_fortran_order_and_objects_are_refused(tmp_path, tiny):
    write(tmp_path / "f.npz", np.asfortranarray(pictures()))
    with pytest.raises(UserError, match=r"found uint8 .* in Fortran order"):
        dsprites_files.check(tmp_path / "f.npz")
    write(tmp_path / "o.npz", np.array([{}, {}], dtype=object))
    with pytest.raises(UserError, match=r"found object \(2,\)"):
        dsprites_files.check(tmp_path / "o.npz")


def test_a_group_and_a_broken_file_are_refused(tmp_path, tiny):
    with h5py.File(tmp_path / "group.hdf5", "w") as file:
        file.create_group("imgs")
    with pytest.raises(UserError, match="should be a dataset, found a group"):
        dsprites_files.check(tmp_path / "group.hdf5")
    (tmp_path / "text.hdf5").write_text("no hdf5")
    with pytest.raises(UserError, match=r"cannot read .*text\.hdf5"):
        dsprites_files.check(tmp_path / "text.hdf5")
    header = {"descr": "|u1", "fortran_order": False, "shape": (COUNT, 64, 64)}
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive, archive.open("imgs.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
        member.write(bytes(20 * 4096))
    with pytest.raises(UserError, match=r"cannot read .*short\.npz"):
        dsprites_files.table(tmp_path / "short.npz")


# The figure


def test_figure_shows_every_trajectory():
    figure = plot_trajectories()
    lines = [ax.lines[0].get_ydata() for ax in figure.axes]
    assert [tuple(map(int, y)) for y in lines] == [*scale_trajectories(), *TRACKS.values()]
    assert len(plot_trajectories("dsprites").axes) == 10
    tracks = [[tuple(map(int, line.get_ydata())) for line in ax.lines] for ax in plot_trajectories("shapes3d").axes]
    assert [len(set(t)) for t in tracks] == [6, 6, 3]
    assert tracks[0][0] == (1, 2, 3, 4, 5, 6, 7, 6, 5, 4) and tracks[2][1] == (7,) * 10
    with pytest.raises(UserError, match="unknown dataset 'sprites'"):
        plot_trajectories("sprites")
