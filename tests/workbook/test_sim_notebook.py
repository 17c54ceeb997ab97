"""What the notebook on stable invariant models draws and measures beside the toys and MNIST."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kpm.workbook import session, sim_extras, sim_memory, sim_plots


def test_bytes_kept_are_those_of_the_tensors_the_gradient_needs():
    w, x = torch.randn(30, 20, requires_grad=True), torch.randn(10, 30)
    assert sim_memory.kept_bytes(lambda: x @ w) == 4 * 10 * 30  # for the gradient of w, x; x itself needs none
    assert sim_memory.kept_bytes(lambda: (x @ w).exp()) == 4 * (10 * 30 + 10 * 20)  # and exp keeps its own output


def test_unrolling_keeps_a_state_for_each_layer_and_the_implicit_gradient_does_not():
    kept = sim_memory.by_layers([2, 7, 12], batch=64)
    grown = np.diff(kept["unrolled"])
    assert grown[0] == grown[1] == 5 * 64 * 92 * 4
    assert len(set(kept["implicit"])) == 1 and kept["implicit"][0] < kept["unrolled"][1]


@pytest.mark.parametrize("method", ["anderson", "broyden"])
def test_the_implicit_gradient_is_as_good_as_its_solver(method):
    errors = sim_memory.gradient_errors([1e-2, 1e-5, 1e-9], method)
    assert errors[0] < 1e-2 and errors[1] < 1e-5 and errors[2] < 1e-9


def test_copy_sequences_have_the_published_layout():
    x, answers = sim_extras.copy_sequences(3, 7, 0)
    assert x.shape == (3, 27, 1) and answers.shape == (3, 27)
    tokens = x[:, :10, 0]
    assert tokens.min() >= 1 and tokens.max() <= 8 and (x[:, 10:16] == 0).all() and (x[:, 16:] == 9).all()
    assert torch.equal(answers[:, -10:].float(), tokens) and not answers[:, :-10].any()
    with pytest.raises(ValueError, match="delay: expected a whole number from 1"):
        sim_extras.copy_sequences(3, 0, 0)


def test_a_causal_sim_begins_to_copy():
    found = sim_extras.copy_memory(delay=2, steps=80, rate=1e-2)
    assert found.memoryless == pytest.approx(0.9452, abs=1e-4)  # without memory, one of eight is right
    assert found.accuracy_last > 0.3 and found.loss < 0.75 * found.memoryless


def test_an_image_is_learnt_from_every_other_pixel():
    photo = sim_extras.photograph(12)
    assert photo.shape == (12, 12, 3) and 0 <= photo.min() < photo.max() <= 1
    fit = sim_extras.image_regression(photo, size=48, sigma=0.2, steps=80)
    flat = -10 * float((photo[1::2, 1::2] - photo[::2, ::2].mean((0, 1))).square().mean().log10())
    assert fit.psnr_train > fit.psnr_test > flat and fit.image.shape == photo.shape
    assert torch.allclose(sim_extras._neighbours(photo)[2, 3], photo[4:7:2, 6:9:2].mean((0, 1)))
    assert torch.allclose(sim_extras._neighbours(photo)[-1, -1], photo[-2, -2])
    assert flat < fit.psnr_neighbours < 40
    with pytest.raises(ValueError, match=r"image: expected floats \(height, width, 3\)"):
        sim_extras.image_regression(photo[..., 0])


def test_pictures_are_drawn():
    nearest, error = np.zeros((5, 5), int), np.linspace(0, 1, 25).reshape(5, 5)
    figure = sim_plots.plot_basins(nearest, error, np.eye(2), [0.5, 0.1, 0.1], [0.4, 1e-20, 1e-20], 2)
    least = next(line for line in figure.axes[2].lines if line.get_label() == "least possible")
    assert list(least.get_xdata()) == [1]  # a bound of zero is not drawn on a logarithmic axis
    with pytest.raises(ValueError, match="rank: expected 1 to 3, got 4"):
        sim_plots.plot_basins(nearest, error, np.eye(2), [0.5, 0.1, 0.1], [0.4, 0, 0], 4)
    row = {"model": "deq", "accuracy_test": 0.98, "accuracy_test_std": None, "answer_ms": 3.0}
    for figure in (
        sim_plots.plot_ranks({"ring3": [(0.5, 0.5, 0.4), (0.3, 0.3, 0.2), (0.1, 0.1, 0.0)]}, {"ring3": 3}),
        sim_plots.plot_phases(np.zeros(3), {"a": np.zeros(3), "b": np.ones(3)}, "title"),
        sim_plots.plot_memory([1, 2], {"unrolled": [10, 20], "implicit": [10, 10]}),
        sim_plots.plot_accuracy([row, row | {"model": "sim", "accuracy_test_std": 0.01}], "answer_ms", "ms"),
        sim_plots.plot_images({"a": np.zeros((4, 4, 3)), "b": np.ones((2, 2, 3))}),
    ):
        assert session.render(figure).startswith(b"\x89PNG")
