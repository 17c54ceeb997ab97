"""3D Shapes: tracks against plain loops, splits, and files of the published layout."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kpm import datasets
from kpm.datasets import registry, shapes3d, shapes3d_files
from kpm.errors import UserError

NAMES = ("floor", "wall", "object", "shape", "initial_scale", "scale", "orientation")
COUNTS = (10, 10, 10, 4, 6, 2, 3)
FILE_ORDER = ("floor", "wall", "object", "scale", "shape", "orientation")
FILE_SIZES = (10, 10, 10, 8, 4, 15)


def scales_by_hand(initial: int, shrinks: int) -> list[int]:
    """Scale indices of ten frames, step by step."""
    here, step, path = initial + 1, -1 if shrinks else 1, []
    for _ in range(10):
        path.append(here)
        if not 0 <= here + step <= 7:
            step = -step
        here += step
    return path


def angles_by_hand(motion: int) -> list[int]:
    return {0: [*range(2, 12)], 1: [7] * 10, 2: [*range(12, 2, -1)]}[motion]


def pictures_by_hand(film: tuple[int, ...]) -> list[tuple[int, ...]]:
    """(floor, wall, object, scale, shape, orientation) of each frame of a film given by its labels in order."""
    floor, wall, solid, shape, initial, shrinks, motion = film
    tracks = zip(scales_by_hand(initial, shrinks), angles_by_hand(motion))
    return [(floor, wall, solid, scale, shape, angle) for scale, angle in tracks]


def label(*films: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(column) for name, column in zip(NAMES, zip(*films))}


# Films


def test_tracks_are_those_of_a_walk_that_turns_round_at_the_ends():
    for initial, shrinks in itertools.product(range(6), range(2)):
        found = shapes3d.scale_track(torch.tensor([initial]), torch.tensor([shrinks]))
        assert found.tolist() == [scales_by_hand(initial, shrinks)]
    for motion in range(3):
        assert shapes3d.orientation_track(torch.tensor([motion])).tolist() == [angles_by_hand(motion)]


def test_every_film_is_made_of_pictures_there_are_and_no_two_films_of_the_same():
    factors = shapes3d.split_factors("all")
    scale = shapes3d.scale_track(factors["initial_scale"], factors["scale"])
    angle = shapes3d.orientation_track(factors["orientation"])
    assert scale.shape == angle.shape == (144000, 10)
    assert (scale.min(), scale.max(), angle.min(), angle.max()) == (0, 7, 2, 12)
    still = [factors[name][:, None].expand(-1, 10) for name in ("floor", "wall", "object", "shape")]
    pictures = torch.stack([*still, scale, angle], -1).flatten(1).numpy()
    assert len(np.unique(pictures, axis=0)) == 144000


def test_splits():
    parts = {}
    for split in shapes3d.SPLITS:
        factors = shapes3d.split_factors(split)
        assert tuple(factors) == NAMES and all(v.dtype == torch.int64 for v in factors.values())
        parts[split] = np.ravel_multi_index([v.numpy() for v in factors.values()], COUNTS)
    assert {split: len(films) for split, films in parts.items()} == {
        "train": 109440,
        "validation": 5760,
        "test": 28800,
        "paper-train": 115200,
        "paper-test": 28800,
        "all": 144000,
    }
    assert np.array_equal(parts["all"], np.arange(144000))
    assert np.array_equal(np.sort(np.concatenate([parts[s] for s in ("train", "validation", "test")])), parts["all"])
    assert np.array_equal(np.concatenate([parts["train"], parts["validation"]]), parts["paper-train"])
    assert np.array_equal(parts["test"], parts["paper-test"])
    shuffled = np.arange(144000)
    np.random.RandomState(42).shuffle(shuffled)
    assert np.array_equal(np.concatenate([parts["paper-train"], parts["paper-test"]]), shuffled)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_splits_are_balanced(split):
    for name, values in shapes3d.split_factors(split).items():
        counts = torch.bincount(values) / len(values) * shapes3d.FACTOR_SIZES[name]
        assert len(counts) == shapes3d.FACTOR_SIZES[name] and (counts - 1).abs().max() < 0.15


# The re-render


@pytest.fixture(scope="module")
def rerender():
    return shapes3d.load_rerender("all")


def test_face_of_the_stand_in(rerender, caplog):
    with caplog.at_level(logging.WARNING, "kpm"):
        dataset = datasets.load("shapes3d", "validation")  # no files, no network
    assert "shapes3d_rerender" in caplog.text
    assert (dataset.name, dataset.source, len(dataset)) == ("shapes3d_rerender", "re-render", 5760)
    assert dataset.static == ("floor", "wall", "object", "shape") and dataset.dynamic == ("scale", "orientation")
    assert tuple(dataset.factor_sizes.values()) == COUNTS and tuple(dataset.factors) == NAMES
    assert {name: len(names) for name, names in dataset.class_names.items()} == dict(dataset.factor_sizes)
    assert dataset[3:5].shape == (2, *dataset.shape) == (2, 10, 3, 64, 64)
    assert dataset[-1].dtype == torch.uint8 and dataset.describe()["sequences"] == 5760
    assert dataset[torch.tensor([], dtype=torch.long)].shape == (0, 10, 3, 64, 64)


def test_films_from_the_whole_grid_compose(rerender):
    index = torch.arange(0, 144000, 487)
    frames = rerender[index]
    assert frames.shape == (len(index), 10, 3, 64, 64) and frames.movedim(2, -1).is_contiguous()
    # Each frame is the picture its labels name, whatever film it is part of.
    shown = {}
    films = zip(*(rerender.factors[name][index].tolist() for name in NAMES))
    for film, clip in zip(films, frames):
        for picture, frame in zip(pictures_by_hand(film), clip):
            assert shown.setdefault(picture, frame) is frame or torch.equal(shown[picture], frame)
    assert 2000 < len(shown) < frames.shape[0] * 10
    flat = torch.stack(list(shown.values())).flatten(1).numpy()
    assert len(np.unique(flat, axis=0)) == len(shown)


@pytest.mark.parametrize("name", NAMES)
def test_classes_of_a_factor_look_different(rerender, name):
    """With every shape, in places that change: two classes differ in many pixels, by more than a trifle."""
    for shape in range(4):
        films = [[4, 7, 1, shape, 2, 0, 0] for _ in range(COUNTS[NAMES.index(name)])]
        for k, film in enumerate(films):
            film[NAMES.index(name)] = k
        frames = rerender.compose(label(*map(tuple, films))).int()
        for one, other in itertools.combinations(frames, 2):
            assert ((one - other).abs().amax(1) > 20).sum() > 300


def test_hues_touch_nothing_but_their_part(rerender):
    """Above the floor's first row its hue is not seen, nor the wall's below its last."""
    films = rerender.compose(label((0, 3, 6, 0, 2, 0, 1), (5, 3, 6, 0, 2, 0, 1), (0, 8, 6, 0, 2, 0, 1))).int()
    floor, wall = ((films[0] - films[k]).abs().amax((0, 1)).any(1).nonzero()[:, 0] for k in (1, 2))
    assert floor[-1] == 63 and floor[0] > 20 and wall[0] > 3 and wall[-1] <= floor[0] + 1


def test_one_film_over_time(rerender):
    """Solids grow and shrink as their scales do; with a constant angle the corners of the picture stay."""
    grows = rerender.compose(label((0, 7, 3, 2, 2, 0, 1)))[0].int()
    green = (grows[:, 1] > grows[:, 0] + 40) & (grows[:, 1] > grows[:, 2] + 40)
    area = green.sum((1, 2))
    steps = np.sign(np.diff(scales_by_hand(2, 0)))
    assert torch.equal(area.diff().sign(), torch.from_numpy(steps))
    assert torch.equal(grows[0, :, :20, :10], grows[-1, :, :20, :10])
    turns = rerender.compose(label((0, 7, 3, 2, 2, 0, 0)))[0].int()
    moved = (turns.diff(dim=0).abs().amax(1) > 8).sum((1, 2))
    assert (moved > 40).all() and moved.max() < 4 * moved.min()  # no frame stands still, none jumps


def test_wrong_labels(rerender):
    good = label((0, 0, 0, 0, 0, 0, 0), (9, 9, 9, 3, 5, 1, 2))
    assert rerender.compose(good).shape == (2, 10, 3, 64, 64)
    with pytest.raises(ValueError, match=r"labels\['shape'\]: expected 0 to 3, got 4"):
        rerender.compose({**good, "shape": torch.tensor([0, 4])})
    with pytest.raises(ValueError, match=r"labels\['orientation'\]: expected 0 to 2, got -1"):
        rerender.compose({**good, "orientation": torch.tensor([-1, 0])})
    with pytest.raises(ValueError, match=r"labels\['wall'\]: expected shape \(b,\) as the others, got \(3,\)"):
        rerender.compose({**good, "wall": torch.tensor([0, 1, 2])})
    with pytest.raises(ValueError, match="missing initial_scale, scale"):
        rerender.compose({name: v for name, v in good.items() if "scale" not in name})
    with pytest.raises(UserError, match="unknown split 'tset'; did you mean 'test'"):
        datasets.load("shapes3d_rerender", "tset")
    with pytest.raises(UserError, match="unknown split"):
        shapes3d.load("tset")


# Files


SMALL = {"floor": 2, "wall": 1, "object": 2, "scale": 8, "shape": 4, "orientation": 15}
DEEP = {"chunks": (480, 16, 16, 1), "compression": "gzip", "compression_opts": 1}
FLAT = {"chunks": (1, 64, 64, 3), "compression": "gzip", "compression_opts": 1}


def numbered(count: int) -> np.ndarray:
    """Pictures that tell their number in the first and last pixels, ``(count, 64, 64, 3)``."""
    images = np.zeros((count, 64, 64, 3), np.uint8)
    images[:, 0, 0], images[:, 63, 62] = number(np.arange(count)), number(np.arange(count))
    return images


def number(index: np.ndarray) -> np.ndarray:
    return np.stack([index >> 16, index >> 8 & 255, index & 255], -1).astype(np.uint8)


def grid_labels(sizes: dict[str, int]) -> np.ndarray:
    values = [np.linspace(0, 0.9, 10), np.linspace(0, 0.9, 10), np.linspace(0, 0.9, 10)]
    values += [np.linspace(0.75, 1.25, 8), np.arange(4.0), np.linspace(-30, 30, 15)]
    return np.array(list(itertools.product(*(v[:n] for v, n in zip(values, sizes.values())))))


def write(path: Path, images=None, labels=None, **storage) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=numbered(1920) if images is None else images, **storage)
        file.create_dataset("labels", data=grid_labels(SMALL) if labels is None else labels)
    return path


def small(path: Path) -> shapes3d_files.Pictures:
    return shapes3d_files.pictures(path, tuple(SMALL.items()))


FILMS = [(1, 0, 1, 3, 5, 1, 2), (0, 0, 1, 2, 0, 0, 0), (1, 0, 0, 1, 3, 1, 1), (1, 0, 0, 1, 3, 1, 1)]


@pytest.mark.parametrize("storage", [{}, FLAT, DEEP], ids=["contiguous", "flat", "deep"])
def test_films_out_of_a_file(tmp_path, storage):
    compose = shapes3d.composed(small(write(tmp_path / "3dshapes.h5", **storage)))
    frames = compose(label(*FILMS))
    assert frames.shape == (4, 10, 3, 64, 64) and frames.dtype == torch.uint8
    assert frames.movedim(2, -1).is_contiguous()
    numbers = [[np.ravel_multi_index(p, tuple(SMALL.values())) for p in pictures_by_hand(film)] for film in FILMS]
    for row, column in ((0, 0), (63, 62)):
        assert np.array_equal(frames[:, :, :, row, column].numpy(), number(np.array(numbers)))
    assert int(frames.count_nonzero()) == 2 * np.count_nonzero(number(np.array(numbers)))
    assert compose(label(FILMS[0]))[0].equal(frames[0])
    assert compose({name: v[:0] for name, v in label(*FILMS).items()}).shape == (0, 10, 3, 64, 64)


def test_only_the_pictures_asked_for_are_read_and_each_once(tmp_path, monkeypatch):
    pictures, asked = small(write(tmp_path / "3dshapes.h5", **FLAT)), []
    read = pictures._read
    monkeypatch.setattr(pictures, "_read", lambda wanted: asked.append(wanted.tolist()) or read(wanted))
    shapes3d.composed(pictures)(label(*FILMS))
    (wanted,) = asked
    assert wanted == sorted(set(wanted)) and len(wanted) == len({p for f in FILMS for p in pictures_by_hand(f)})


def test_deep_chunks_are_unpacked_once(tmp_path):
    path = write(tmp_path / "3dshapes.h5", **DEEP)
    small(path)
    flat = tmp_path / shapes3d_files.UNPACKED
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, flat.name])
    assert np.array_equal(np.load(flat, mmap_mode="r"), numbered(1920))
    first = flat.stat().st_mtime_ns
    shapes3d_files.pictures.cache_clear()
    small(path)
    assert flat.stat().st_mtime_ns == first
    os.truncate(flat, 5000)
    shapes3d_files.pictures.cache_clear()
    small(path)
    assert np.array_equal(np.load(flat, mmap_mode="r"), numbered(1920))


def test_unpacking_goes_block_by_block(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes3d_files, "_BLOCK", 600 * 12288)
    small(write(tmp_path / "3dshapes.h5", numbered(1920), **{**DEEP, "chunks": (500, 16, 16, 1)}))
    assert np.array_equal(np.load(tmp_path / shapes3d_files.UNPACKED), numbered(1920))


def test_no_room_to_unpack(tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 10**6})
    monkeypatch.setattr(shapes3d_files.shutil, "disk_usage", lambda _: full)
    with pytest.raises(UserError, match=r"takes 0\.0 GB in .*, which has 0\.0 GB left"):
        small(write(tmp_path / "3dshapes.h5", **DEEP))
    assert [p.name for p in tmp_path.iterdir()] == ["3dshapes.h5"]


def test_the_published_grid_is_loaded_by_name(tmp_path, monkeypatch):
    """A file of the full size, of which a few films' pictures are filled in."""
    h5py = pytest.importorskip("h5py")
    film = (9, 2, 5, 3, 4, 1, 2)
    places = [np.ravel_multi_index(picture, FILE_SIZES) for picture in pictures_by_hand(film)]
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        images = file.create_dataset("images", (480000, 64, 64, 3), np.uint8, chunks=(1, 64, 64, 3))
        file.create_dataset("labels", data=grid_labels(shapes3d_files.SIZES))
        for k, place in enumerate(places):
            images[place] = 10 + k
    monkeypatch.setattr(registry, "fetch", lambda name, root=None: {"shapes3d": tmp_path}[name])
    dataset = shapes3d.load("paper-test")
    assert (dataset.name, dataset.source, len(dataset)) == ("shapes3d", "real", 28800)
    frames = dataset.compose(label(film))
    assert torch.equal(frames[0], torch.arange(10, 20, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 64, 64))


def shuffled_labels() -> np.ndarray:
    labels = grid_labels(SMALL)
    labels[[3, 700]] = labels[[700, 3]]
    return labels


@pytest.mark.parametrize(
    "contents, message",
    [
        ({"images": numbered(100)}, r"'images' should be uint8 \(1920, 64, 64, 3\), found uint8 \(100, 64, 64, 3\)"),
        ({"images": np.zeros((1920, 64, 64, 3), np.int8)}, r"'images' should be uint8 .*, found int8"),
        ({"labels": np.zeros((1920, 5))}, r"'labels' should be float64 \(1920, 6\), found float64 \(1920, 5\)"),
        ({"labels": np.zeros((1920, 6))}, r"label 0 \(floor\) is not 2 values in the known order"),
        (
            {"labels": grid_labels(SMALL)[:, [0, 1, 2, 4, 3, 5]]},
            r"label 3 \(scale\) is not 8 values",
        ),
        ({"labels": shuffled_labels()}, r"label \d \(\w+\) is not \d+ values in the known order"),
    ],
)
def test_other_layouts_are_refused(tmp_path, contents, message):
    with pytest.raises(UserError, match=message):
        small(write(tmp_path / "3dshapes.h5", **contents))


def test_files_that_are_no_such_files(tmp_path, monkeypatch):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["imgs"] = numbered(3)
    with pytest.raises(UserError, match="no dataset 'images', which 3D Shapes has; found imgs"):
        small(tmp_path / "other.h5")
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("images")
    with pytest.raises(UserError, match=r"'images' should be .*, found a group"):
        small(tmp_path / "group.h5")
    (tmp_path / "text.h5").write_text("no pictures here")
    with pytest.raises(UserError, match=r"cannot read .*text\.h5 as HDF5"):
        small(tmp_path / "text.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"reading 3dshapes\.h5 needs h5py: pip install h5py"):
        small(tmp_path / "3dshapes.h5")
