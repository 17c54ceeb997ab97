"""Streaming moments against all data in memory at once, in plain numpy."""

import functools
import json
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from sklearn.decomposition import PCA, TruncatedSVD

from kpm.solvers import blocks, streaming
from kpm.solvers.operators import shared
from kpm.solvers.streaming import Moments

METHODS = ["gram", "qr"]


def draw(seed, *shape, offset=1.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) + offset)


def reference(x, mask=None, weights=None):
    """Pairs, their weights, states and theirs, one by one."""
    x = x.reshape(-1, *x.shape[-2:])
    mask = np.ones(x.shape[:2], bool) if mask is None else mask.reshape(x.shape[:2])
    weights = np.ones(x.shape[:2]) if weights is None else weights.reshape(x.shape[:2])
    pairs = [
        (x[i, t], x[i, t + 1], weights[i, t]) for i, t in np.ndindex(len(x), x.shape[1] - 1) if mask[i, t : t + 2].all()
    ]
    states = [(x[i, t], weights[i, t]) for i, t in np.ndindex(*mask.shape) if mask[i, t]]
    return *map(np.array, zip(*pairs)), *map(np.array, zip(*states))


def ill_conditioned(condition, seed=0):
    """``(20, 50, 6)`` of the given condition number, and the operator that made it."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    scales = np.geomspace(1, 1 / condition, 6)
    states = (rng.normal(size=(1000, 6)) * scales) @ turn
    return torch.from_numpy(states.reshape(20, 50, 6))


def close(ours, theirs, tolerance=1e-10):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=tolerance, atol=tolerance)


def same(a, b, tolerance=1e-12):
    assert (a.n_pairs, a.n_states) == (b.n_pairs, b.n_states)
    for name in ("weight", "gram", "cross", "gram_next", "state_gram", "mean"):
        close(getattr(a, name), getattr(b, name), tolerance)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("entries", [2**21, 4 * 70, 4 * 7])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("weighted", [None, "sequences", "frames"])
def test_moments_of_all_pairs(monkeypatch, method, entries, gaps, weighted):
    """Whole batches, blocks of sequences and blocks of frames; what is masked holds NaN."""
    monkeypatch.setattr(streaming, "_ENTRIES", entries)
    x = draw(0, 2, 3, 30, 4)
    mask = draw(1, 2, 3, 30, offset=0.5) > 0 if gaps else None
    weights = {None: None, "sequences": draw(2, 2, 3).abs(), "frames": draw(3, 2, 3, 30).abs()}[weighted]
    spoilt = torch.where(mask[..., None], x, torch.nan) if gaps else x
    ours = Moments(method).partial_fit(spoilt, mask=mask, weights=weights)
    per_frame = None if weights is None else weights.reshape(2, 3, -1).expand(2, 3, 30).numpy()
    before, after, w, states, v = reference(x.numpy(), None if mask is None else mask.numpy(), per_frame)
    assert (ours.n_pairs, ours.n_states) == (len(before), len(states))
    close(ours.weight, w.sum())
    close(ours.gram, (before.T * w) @ before)
    close(ours.cross, (before.T * w) @ after)
    close(ours.gram_next, (after.T * w) @ after)
    close(ours.state_gram, (states.T * v) @ states)
    close(ours.mean, v @ states / v.sum())
    root = np.sqrt(w)[:, None]
    close(ours.operator().matrix, np.linalg.lstsq(root * before, root * after, rcond=None)[0])


@pytest.mark.parametrize("method", METHODS)
def test_lengths_are_masks(method):
    x, lengths = draw(0, 4, 9, 3), torch.tensor([9, 5, 1, 0])
    mask = torch.arange(9) < lengths[:, None]
    same(Moments(method).partial_fit(x, lengths=lengths), Moments(method).partial_fit(x, mask))
    assert Moments(method).partial_fit(x, lengths=lengths).n_pairs == 8 + 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options", [{}, {"ridge": 2.5}, {"rank": 3}, {"method": "total"}, {"method": "forward_backward"}]
)
def test_operator_equals_in_memory(method, options):
    x = draw(5, 8, 40, 5)
    x[..., 1:, :] += 0.7 * x[..., :-1, :].flip(-1)
    ours = sum(Moments(method).partial_fit(part) for part in x.split(3)).operator(**options)
    expected = shared(x, **options)
    close(ours.matrix, expected.matrix)
    close(ours.condition, expected.condition)
    close(ours.residual, expected.residual)
    assert ours.rank == expected.rank


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint8, np.int64])
def test_other_types_count_in_float64(dtype):
    """An operator of float32 data is as exact as if the data were float64 with the same values."""
    x = (100 * np.random.default_rng(0).random((7, 30, 4))).astype(dtype)
    before, after, *_ = reference(x.astype(np.float64))
    expected = np.linalg.lstsq(before, after, rcond=None)[0]
    for data in (x, torch.from_numpy(x)):
        close(Moments().partial_fit(data).operator().matrix, expected)


@pytest.mark.parametrize(("method", "condition", "least", "most"), [
    ("gram", 1e2, 0, 1e-11), ("gram", 1e3, 0, 1e-9), ("gram", 1e5, 1e-9, 1e-4),
    ("qr", 1e3, 0, 1e-11), ("qr", 1e5, 0, 1e-9), ("qr", 1e8, 0, 1e-6),
])  # fmt: skip
def test_limits_of_each_method(method, condition, least, most):
    """Worst error of the predictions along the weakest direction, relative to the operator's size."""
    x = ill_conditioned(condition)
    before, after = (part.reshape(-1, 6).numpy() for part in (x[:, :-1], x[:, 1:]))
    exact = np.linalg.lstsq(before, after, rcond=1e-15)[0]
    found = sum(Moments(method).partial_fit(part) for part in x.split(4)).operator()
    close(found.condition, np.linalg.cond(before), 1e-3)
    error = np.linalg.norm(found.matrix.numpy() - exact) / np.linalg.norm(exact)
    assert least <= error <= most


def test_gram_drops_what_rounding_hides_and_says_so():
    x = ill_conditioned(1e9)
    assert int(Moments("gram").partial_fit(x).operator().rank) < 6
    assert int(Moments("qr").partial_fit(x).operator().rank) == 6


@pytest.mark.parametrize("method", METHODS)
def test_rank_deficient_data_gives_the_minimum_norm_operator(method):
    x = draw(0, 5, 20, 3) @ draw(1, 3, 8, offset=0)
    before, after, *_ = reference(x.numpy())
    found = Moments(method).partial_fit(x).operator()
    assert int(found.rank) == 3
    close(found.matrix, np.linalg.lstsq(before, after, rcond=1e-10)[0], 1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_fewer_pairs_than_dimensions(method):
    x = draw(0, 1, 4, 7)
    one = x[0].numpy()
    close(Moments(method).partial_fit(x).operator().matrix, np.linalg.pinv(one[:-1]) @ one[1:], 1e-8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_bases_equal_scikit_learn(method, offset):
    """All states, the last ones too. A mean far from zero takes no digits from the centred basis."""
    x = draw(0, 6, 50, 5, offset=offset) * torch.tensor([5.0, 3, 2, 1, 0.5])
    flat = x.reshape(-1, 5).numpy()
    moments = sum(Moments(method).partial_fit(part) for part in x.split(1))
    plain, centred = moments.basis(4), moments.basis(4, centred=True)
    svd, pca = TruncatedSVD(4, algorithm="arpack").fit(flat), PCA(4, svd_solver="full").fit(flat)
    close(centred.singular_values, pca.singular_values_, 1e-9)
    close(centred.vectors.T.abs(), np.abs(pca.components_), 1e-8)
    close(centred.mean, pca.mean_, 1e-12)
    if offset == 0:
        close(plain.singular_values, svd.singular_values_, 1e-9)
        close(plain.vectors.T.abs(), np.abs(svd.components_), 1e-8)
    assert (plain.mean == 0).all()
    for basis in (plain, centred):
        assert (basis.vectors.gather(0, basis.vectors.abs().argmax(0, keepdim=True)) > 0).all()
        assert isinstance(basis.transform(flat), np.ndarray)
        vectors, mean = basis.vectors.numpy(), basis.mean.numpy()
        expected = (flat - mean) @ vectors @ vectors.T + mean
        close(basis.inverse_transform(basis.transform(x)).flatten(0, 1), expected, 1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("centred", [False, True])
def test_projected_moments_are_those_of_the_coordinates(method, centred):
    x, weights = draw(0, 6, 20, 5), draw(1, 6).abs()
    moments = Moments(method).partial_fit(x, weights=weights)
    basis = moments.basis(3, centred)
    projected = moments.project(basis)
    same(projected, Moments(method).partial_fit(basis.transform(x), weights=weights), 1e-10)
    before, after, w, *_ = reference(basis.transform(x).numpy(), None, weights[:, None].expand(6, 20).numpy())
    root = np.sqrt(w)[:, None]
    close(projected.operator().matrix, np.linalg.lstsq(root * before, root * after, rcond=None)[0])


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 28), max_size=5, unique=True))
@settings(max_examples=15, deadline=None)
def test_pieces_in_time_overlap_by_one_frame(method, seed, cuts):
    x = draw(seed, 3, 30, 4)
    mask = draw(seed + 1, 3, 30, offset=1.0) > 0
    whole = Moments(method).partial_fit(x, mask)
    parts = Moments(method)
    edges = [0, *sorted(cuts), 29]
    for first, last in zip(edges, edges[1:]):
        piece = slice(first, last + 1)
        parts.partial_fit(x[:, piece], mask[:, piece], continued=last < 29)
    same(parts, whole)


@pytest.mark.parametrize("method", METHODS)
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)))
@settings(max_examples=15, deadline=None)
def test_order_of_merging_does_not_matter(method, seed, order):
    parts = [Moments(method).partial_fit(draw(seed + i, 2, 4 + i, 3)) for i in range(5)]
    before = [part.gram.clone() for part in parts]
    whole = sum(parts)
    same(functools.reduce(Moments.merge, [parts[i] for i in order]), whole)
    same((parts[0] + (parts[1] + parts[2])) + (parts[3] + parts[4]), whole)
    same(Moments(method) + whole + Moments(method), whole, 1e-14)
    for part, gram in zip(parts, before):
        close(part.gram, gram, 0)


def test_dask_reduction():
    dask = pytest.importorskip("dask")
    pieces = [draw(i, 2, 10, 3) for i in range(6)]
    tasks = [dask.delayed(lambda piece: Moments().partial_fit(piece))(piece) for piece in pieces]
    same(dask.delayed(sum)(tasks).compute(scheduler="threads"), Moments().partial_fit(torch.cat(pieces)))


@pytest.mark.parametrize("method", METHODS)
def test_travels_between_processes(method):
    moments = Moments(method).partial_fit(draw(0, 3, 10, 4))
    same(pickle.loads(pickle.dumps(moments)), moments, 1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_read_back(method):
    first, second = draw(0, 3, 10, 4), draw(1, 2, 8, 4)
    moments = Moments(method).partial_fit(first)
    back = Moments.from_state_dict(load(save(moments.state_dict())))
    assert back.method == method
    same(back, moments, 1e-14)
    same(back.partial_fit(second), moments.partial_fit(second), 1e-14)


def test_no_pair_across_a_border():
    """A second sequence far away moves nothing if pairs stay within sequences."""
    x = draw(0, 2, 6, 3)
    x[1] = 0
    one = Moments().partial_fit(x[0])
    both = Moments().partial_fit(x)
    close(both.cross, one.cross, 1e-12)
    close(both.gram, one.gram, 1e-12)


def test_memory_map_and_strides(tmp_path):
    x = draw(0, 4, 12, 3)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    expected = Moments().partial_fit(x)
    same(Moments().partial_fit(mapped), expected, 1e-14)
    same(Moments().partial_fit(x.transpose(0, 1).contiguous().transpose(0, 1)), expected, 1e-14)


def test_data_with_a_graph_is_read_as_data():
    assert not Moments().partial_fit(draw(0, 2, 5, 3).requires_grad_()).gram.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_a_refused_call_adds_nothing(monkeypatch, method):
    """The bad number sits in the last block, when the others have been read."""
    monkeypatch.setattr(streaming, "_ENTRIES", 30)
    x = draw(0, 2, 3, 10, 3)
    moments = Moments(method).partial_fit(x)
    copy = Moments.from_state_dict(moments.state_dict())
    bad = x.clone()
    bad[1, 2, 9, 1] = torch.nan
    with pytest.raises(ValueError, match=r"x\[1, 2, 9, 1\] is not finite"):
        moments.partial_fit(bad)
    same(moments, copy, 1e-15)


X = torch.zeros(2, 5, 3)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.zeros(5), {}, r"x: expected \(\*batch, time >= 2, dim\).*got shape \(5,\)"),
        (torch.zeros(4, 1, 3), {}, r"got shape \(4, 1, 3\)"),
        (torch.zeros(0, 5, 3), {}, "without empty axes"),
        (torch.zeros(2, 5, 0), {}, "without empty axes"),
        (torch.zeros(5, 3, dtype=torch.complex64), {}, "x: expected real numbers, got torch.complex64"),
        (np.array([["a", "b"], ["c", "d"]]), {}, "x: expected real numbers"),
        (torch.full((5, 3), torch.inf), {}, r"x\[0, 0\] is not finite"),
        (torch.full((5, 3), 1e308, dtype=torch.float64), {}, "x: numbers too large"),
        (1e200 * draw(0, 5, 3), {}, "x: numbers too large"),
        (X, {"mask": torch.ones(2, 5)}, "mask: expected bool"),
        (X, {"mask": torch.ones(5, dtype=torch.bool)}, r"mask: expected bool \(2, 5\)"),
        (X, {"lengths": torch.tensor([5, 6])}, r"lengths\[1\]: not from 0 to 5"),
        (X, {"lengths": torch.tensor([5.0, 5.0])}, "lengths: expected integers"),
        (X, {"lengths": [5, 5], "mask": torch.ones(2, 5, dtype=torch.bool)}, "give one of them"),
        (X, {"weights": torch.ones(3)}, r"weights: expected \(2,\) or \(2, 5\), got shape \(3,\)"),
        (X, {"weights": torch.tensor([1.0, -1.0])}, r"weights\[1\]: not a finite, non-negative"),
    ],
)
def test_bad_data(x, options, message):
    with pytest.raises(ValueError, match=message):
        Moments().partial_fit(x, **options)


def test_bad_use():
    with pytest.raises(ValueError, match="method: expected 'gram' or 'qr'"):
        Moments("svd")
    with pytest.raises(ValueError, match="nothing has been read"):
        Moments().operator()
    with pytest.raises(ValueError, match="no pair to fit"):
        Moments().partial_fit(X, lengths=[1, 0]).operator()
    read = Moments().partial_fit(draw(0, 2, 5, 3))
    with pytest.raises(ValueError, match=r"2 dimensions .* but 3"):
        read.partial_fit(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="other: 2 dimensions, expected 3"):
        read + Moments().partial_fit(torch.zeros(5, 2))
    with pytest.raises(ValueError, match="other: expected Moments"):
        read + Moments("qr")
    with pytest.raises(TypeError):
        sum([read], 1)
    with pytest.raises(ValueError, match="k: expected"):
        read.basis(4)
    with pytest.raises(ValueError, match=r"basis: vectors of shape \(2, 2\)"):
        read.project(Moments().partial_fit(draw(0, 5, 2)).basis())


def test_blocks_cover_every_pair_once():
    """All block sizes, down to one frame at a time."""
    x = draw(0, 3, 11, 2)
    for rows in range(1, 40):
        pair, end = blocks.roles((3, 11, 2), None, None, None, False)
        pieces = list(blocks.cut(x, pair, end, rows, (3, 11, 2)))
        assert sum(int(piece.starts.sum()) for piece in pieces) == 30
        assert sum(int(piece.closes.sum()) for piece in pieces) == 3
        assert max(piece.frames[..., 0].numel() for piece in pieces) <= max(rows, 2) + 1


STREAM = """
import json, psutil, torch
from kpm.solvers.streaming import Moments
torch.set_num_threads(1)
me = psutil.Process()
generator = torch.Generator().manual_seed(0)
piece = torch.empty({batch}, 1000, {dim})
moments, sizes = Moments({method!r}), []
for _ in range(100):
    moments.partial_fit(piece.normal_(generator=generator))
    sizes.append(me.memory_info().rss)
print(json.dumps([sizes, piece.numel() * piece.element_size(), moments.n_pairs]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "batch", "dim"), [("gram", 30, 128), ("qr", 20, 64)])
def test_memory_stays_flat(method, batch, dim):
    """A stream of 100 pieces (1.5 GB and 0.5 GB in all), one held at a time: what the process holds does not grow."""
    program = STREAM.format(method=method, batch=batch, dim=dim)
    # glibc then gives every large block back at once: what is seen is what is held.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "262144"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    sizes, held, n_pairs = json.loads(done.stdout)
    assert n_pairs == 100 * batch * 999
    growth, spread = np.median(sizes[-30:]) - np.median(sizes[5:35]), max(sizes[5:]) - min(sizes[5:])
    print(f"{method}: pieces of {held / 1e6:.1f} MB, grew by {growth / 1e6:.1f} MB, within {spread / 1e6:.1f} MB")
    assert growth < held / 4
    assert spread < held
