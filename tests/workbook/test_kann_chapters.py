"""The KANN chapters' functions and commands, on small networks and few samples."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from kpm import cli, datasets, paths
from kpm.analysis.kann import KANN
from kpm.datasets import reviews as grammar
from kpm.datasets.beats import load as load_beats
from kpm.models.beat_autoencoder import BeatAutoencoder, BeatAutoencoderConfig
from kpm.models.sentiment import SentimentConfig, SentimentNet
from kpm.training import checkpoint
from kpm.workbook import kann_command, kann_ecg, kann_plots, kann_sentiment, publish_task, results


@pytest.fixture(scope="module")
def data():
    return grammar.load("test").subset(torch.arange(70))


@pytest.fixture(scope="module")
def model(data):
    torch.manual_seed(0)
    return SentimentNet(SentimentConfig(len(data.vocabulary), embedding=6, hidden=8)).eval()


@pytest.fixture(scope="module")
def reading(model, data):
    return kann_sentiment.read(model, data, 60)


def test_reading_in_batches_equals_one_fit_on_all_states(model, data, reading):
    ids, lengths, _ = data.batch(torch.arange(len(data)), 60)
    with torch.inference_mode():
        states = model.states(ids, lengths).clone()
    whole = KANN().fit(states, lengths)
    np.testing.assert_allclose(np.asarray(reading.kann.operator_), np.asarray(whole.operator_), atol=1e-8)
    assert (reading.reviews, reading.states) == (70, int(lengths.sum()))
    assert int(reading.words.count.sum()) == int((lengths - 1).sum())
    found = kann_sentiment.fidelity(model, reading.kann, data, 60)
    last = states[torch.arange(70), lengths - 1], states[torch.arange(70), lengths - 2]
    verdicts = [model.read(h).detach() > 0 for h in (last[0], torch.as_tensor(whole.predict(last[1])).float())]
    assert found.agreement == pytest.approx(float((verdicts[0] == verdicts[1]).double().mean()))
    assert found.reviews == 70 and found.e_rel == pytest.approx(whole.relative_error(states, lengths=lengths), rel=1e-6)


def test_slow_modes_are_those_above_the_bound_with_their_conjugates(reading):
    moduli = np.abs(np.asarray(reading.kann.eigenvalues_))
    bound = float(np.sort(moduli)[-3] - 1e-9)
    chosen = [j for pair in kann_sentiment.slow_modes(reading.kann, bound) for j in pair]
    assert sorted(chosen) == sorted(np.flatnonzero(moduli > bound).tolist())


def test_scores_and_contexts_have_a_column_per_mode_and_one_for_the_verdict(model, data, reading, monkeypatch):
    monkeypatch.setattr(kann_sentiment, "PAIRS", (("not", data.vocabulary.words[30]), ("nosuchword", "good")))
    target = torch.randn(len(data.vocabulary), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores = kann_sentiment.scores(reading, model, target, seed=1, draws=50)
    assert set(scores) == {"lexicon", "read-out"} and 0 <= float(scores["lexicon"].pearson.value[0]) <= 1
    names, pairs = kann_sentiment.context(model, reading, scores["lexicon"], data, 60)
    modes = kann_sentiment.slow_modes(reading.kann) or [reading.kann.pairs_[0]]
    assert names == [f"not {data.vocabulary.words[30]}"] and pairs.mean.shape == (1, 2, len(modes) + 1)


def test_the_parts_of_all_modes_make_up_the_code():
    torch.manual_seed(0)
    net, beats = BeatAutoencoder(BeatAutoencoderConfig(hidden=6)).eval(), kann_ecg.normal(load_beats("validation"))[:30]
    found = kann_ecg.analyse(net, beats, beats, "validation")
    states = kann_ecg.states_of(net, beats)
    everything = [j for pair in found.kann.pairs_ for j in pair]
    code = torch.as_tensor(found.kann.reconstruct(states[:, -1], everything))
    torch.testing.assert_close(code.float(), states[:, -1], atol=1e-4, rtol=1e-3)
    with torch.inference_mode():
        loss = (net(beats) - beats).abs().sum((1, 2))
    torch.testing.assert_close(found.losses, loss, rtol=1e-4, atol=1e-3)
    pairs = kann_ecg.dominant_pairs(found, 2)
    assert len(pairs) == 2 and kann_ecg.pair_beats(net, found.kann, beats, pairs).shape == (2, 30, 140, 1)
    curves = kann_ecg.truncation_errors(net, found, beats, [1, 3, 6])
    for errors in curves.values():
        assert errors[-1] == pytest.approx(float(loss.mean()), rel=1e-3)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Runs of two tiny networks, trained for an epoch on few samples of the stand-ins."""
    monkeypatch.setenv("KPM_HOME", str(tmp_path))
    load = datasets.load

    def few(*args, **kwargs):
        found = load(*args, **kwargs)
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
        return found.subset(order[:160])

    monkeypatch.setattr(datasets, "load", few)
    return tmp_path


def test_train_publish_and_analyse_the_sentiment_network(home, capsys, monkeypatch):
    flags = "--source synthetic --epochs 1 --embedding 6 --hidden 8 --max-length 40 --no-progress".split()  # noqa: SIM905
    assert cli.main(["train", "sentiment", *flags]) == 0
    run = next((home / "runs").iterdir())
    assert run.name == "sentiment_reviews_synthetic"
    assert cli.main(["publish", str(run)]) == 0
    result = results.load("kann_sentiment_reviews_synthetic")
    assert {"accuracy_train", "accuracy_val", "accuracy_test"} == set(result.metrics) and result.paper == {}
    assert result.source == "synthetic" and "--hidden 8" in result.command
    _, meta = checkpoint.read(paths.checkpoints() / "sentiment_reviews_synthetic.safetensors")
    assert tuple(meta["vocabulary"]) == grammar.load("test").vocabulary.words
    capsys.readouterr()
    argv = ["kann", "sentiment", "--checkpoint-file", "sentiment_reviews_synthetic", "--draws", "20", "--no-progress"]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    found = json.loads((home / "out" / "kann_sentiment.json").read_text())
    assert 0 <= found["metrics"]["agreement"] <= 1 and found["metrics"]["reviews"] == 160
    # The paper's figures are with padding, so they stand beside ours with padding only.
    beside = {line.split()[0]: line.split("(paper ")[1] for line in said.splitlines() if "(paper " in line}
    assert beside == {"agreement_padded": "0.99)", "e_rel_padded": "0.095)"} and "agreement " in said
    assert cli.main([*argv, "--save"]) == 2  # there is no kann_sentiment.json: the stand-in's has another name
    words = [*meta["vocabulary"][:-1], "other"]
    tensors, _ = checkpoint.read(paths.checkpoints() / "sentiment_reviews_synthetic.safetensors")
    checkpoint.save(paths.checkpoints() / "other.safetensors", tensors, {**meta, "vocabulary": words})
    assert cli.main(["kann", "sentiment", "--checkpoint-file", "other", "--no-progress"]) == 2
    assert "another vocabulary" in capsys.readouterr().err


def test_train_publish_and_analyse_the_beat_autoencoder(home, capsys):
    assert cli.main("train ecg --source synthetic --epochs 1 --hidden 6 --no-progress".split()) == 0  # noqa: SIM905
    assert cli.main(["publish", str(home / "runs" / "ecg_beats")]) == 0
    result = results.load("kann_ecg_beats")
    assert 0 <= result.metrics["accuracy_test"] <= 1 and 0 <= result.metrics["auc_test"] <= 1
    assert "accuracy_all_train" not in result.metrics  # no anomalies there
    assert cli.main(["kann", "ecg", "--checkpoint-file", "ecg_beats"]) == 0
    found = json.loads((home / "out" / "kann_ecg.json").read_text())
    assert found["metrics"]["beats"] > 0 and found["metrics"]["e_rel"] > 0
    assert len(found["details"]["moduli"]) <= 6
    assert cli.main(["kann", "ecg", "--checkpoint-file", "nosuch"]) == 2
    assert "no checkpoint 'nosuch'; shipped are ecg_beats, or give a .safetensors file" in capsys.readouterr().err


@pytest.mark.parametrize(("task", "name"), [("sentiment", "SentimentNet"), ("ecg", "BeatAutoencoder")])
def test_the_papers_figures_in_the_results_files_are_those_of_the_code(task, name):
    stored = results.load(f"kann_{task}")
    assert stored.paper == {**publish_task.KINDS[name].paper, **kann_command.PAPER[task]}
    assert set(stored.paper) <= set(stored.metrics)


def test_figures_take_what_the_chapters_give_them():
    rng = np.random.default_rng(0)
    jumps, words = rng.normal(size=40), [f"w{i}" for i in range(40)]
    figure = kann_plots.plot_word_jumps(jumps, rng.normal(size=40), words, rng.integers(20, 500, 40), "x", "y", named=5)
    named = [t.get_text() for t in figure.axes[0].texts]
    order = np.argsort(jumps)
    assert set(named) == {words[i] for i in (*order[:5], *order[-5:])}
    heights = sorted(t.get_position()[1] for t in figure.axes[0].texts)
    assert all(b - a > 0.02 * np.ptp(jumps) for a, b in zip(heights[:5], heights[1:5]))
    parts = {f"p{i}": rng.normal(size=(9, 30)) for i in range(3)}
    figure = kann_plots.plot_beat_parts(np.arange(30), rng.normal(size=(9, 30)), rng.normal(size=(9, 30)), parts)
    assert [ax.get_visible() for ax in figure.axes] == [True, True, True, False]
    line = figure.axes[1].lines[2].get_ydata()
    np.testing.assert_allclose(line, np.median(parts["p1"], 0))
    assert len(kann_plots.plot_null({"a": 0.4}, rng.normal(size=100), "r").axes[0].lines) == 1
    assert kann_plots.plot_losses({"a": rng.random(50), "b": rng.random(20)}, 0.3, "loss").axes[0].get_ylabel()


def test_a_reading_is_a_plain_record(reading):
    assert dataclasses.is_dataclass(reading) and reading.wall_s >= reading.moments_s > 0 and reading.peak_gib > 0
