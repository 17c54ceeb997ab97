"""Training of classifiers and of Koopman autoencoders of their layers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from kpm.datasets.points import Points
from kpm.errors import UserError
from kpm.models.surrogate import Surrogate
from kpm.training import checkpoint, kae
from kpm.training.classifier import ClassifierTask, ClassifierTrainConfig
from kpm.training.fit import fit
from kpm.training.kae import KAETask, KAETrainConfig
from tests.metrics.toys import films

CPU = torch.device("cpu")
NETWORK = ClassifierTrainConfig(width=6, blocks=2, epochs=12, batch_size=30, learning_rate=0.02)
AUTOENCODER = KAETrainConfig(
    hidden=12, lifted=8, steps=5, epochs=15, batch_size=50, learning_rate=0.02, distance_weight=0.1
)


def blobs(split: str, count: int = 120) -> Points:
    """Three clouds of a plane that lie apart."""
    draw = torch.Generator().manual_seed(len(split))
    labels = torch.arange(count) % 3
    centres = torch.tensor([[0.0, 0], [1, 0], [0, 1]])
    values = centres[labels] + 0.12 * torch.randn(count, 2, generator=draw)
    return Points(values, labels, "blobs", "synthetic", split, ("a", "b", "c"))


@pytest.fixture
def data():
    return blobs("train"), blobs("validation", 60)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A trained classifier's checkpoint."""
    folder = tmp_path_factory.mktemp("network")
    task = ClassifierTask(NETWORK, blobs("train"), blobs("validation", 60), CPU)
    fit(task, NETWORK, folder / "run", progress_bar=False)
    return folder / "run" / "best.safetensors"


def test_a_classifier_learns_and_is_kept(data, network):
    model, meta = checkpoint.load_any(network)
    right = model(data[1].to_float()).argmax(1) == data[1].labels
    assert right.double().mean() > 0.9
    assert meta["data"]["train"] == {"name": "blobs", "source": "synthetic", "split": "train", "sequences": 120}


def test_a_class_can_be_left_out(data):
    config = dataclasses.replace(NETWORK, without=(1,))
    task = ClassifierTask(config, *data, CPU)
    assert task.labels.unique().tolist() == [0, 2] and len(task.held_out) == 40
    assert task.model.config.classes == 3  # the read-out is that of the whole
    with pytest.raises(UserError, match="without: 3 is no class, expected 0 to 2"):
        ClassifierTask(dataclasses.replace(NETWORK, without=(3,)), *data, CPU)
    with pytest.raises(UserError, match="without: no sample is left of split 'train'"):
        ClassifierTask(dataclasses.replace(NETWORK, without=(0, 1, 2)), *data, CPU)
    with pytest.raises(UserError, match="batch_size: 90 is more than the 80 samples"):
        task.batches(90, torch.Generator())


def test_a_single_class_is_refused(data):
    """A network that always says the one class has no error, and has learnt nothing."""
    alone = dataclasses.replace(data[0], labels=torch.ones_like(data[0].labels))
    with pytest.raises(UserError, match="dataset: split 'train' of blobs is of one class, 'b': nothing to learn"):
        ClassifierTask(NETWORK, alone, data[1], CPU)
    with pytest.raises(UserError, match="is of one class, 'c'"):
        ClassifierTask(dataclasses.replace(NETWORK, without=(0, 1)), *data, CPU)


def test_films_are_refused():
    with pytest.raises(UserError, match=r"^dataset: expected images, points or series, 'noise' has none"):
        ClassifierTask(NETWORK, films(), films(), CPU)


def test_an_autoencoder_follows_the_classifier(data, network, tmp_path):
    config = dataclasses.replace(AUTOENCODER, network=str(network))
    task = KAETask(config, *data, CPU)
    before = {k: v.clone() for k, v in task.model.network.state_dict().items()}
    result = fit(task, config, tmp_path / "kae", progress_bar=False)
    assert result.best["loss"] < 0.2 * result.history[0]["loss"] and result.best["accuracy"] > 0.9
    parts = sum(result.best[k] for k in ("reconstruction", "state", "linear", "distance"))
    assert result.best["loss"] == pytest.approx(parts)
    model = checkpoint.load_as(Surrogate, tmp_path / "kae" / "best.safetensors")[0]
    for name, value in checkpoint.load_any(network)[0].state_dict().items():
        assert torch.equal(value, before[name]) and torch.equal(value, model.network.state_dict()[name]), name
    task.model.load_state_dict(checkpoint.read(tmp_path / "kae" / "best.safetensors")[0])
    torch.testing.assert_close(model(data[1].to_float()), task.model.eval()(data[1].to_float()))
    with torch.no_grad():
        own = model.network(data[1].to_float()).argmax(1)
        assert (model(data[1].to_float()).argmax(1) == own).double().mean() > 0.9
    norms = torch.linalg.matrix_norm(task.states.movedim(1, 0))
    torch.testing.assert_close(norms, torch.full((2,), 100.0))
    again = fit(KAETask(config, *data, CPU), config, tmp_path / "kae", resume=True, progress_bar=False)
    assert again.finished and again.best == result.best


def test_all_layers_and_few_components(data, network):
    config = dataclasses.replace(AUTOENCODER, network=str(network), all_layers=True, components=4)
    task = KAETask(config, *data, CPU)
    assert task.states.shape == (120, 3, 4)
    ends = KAETask(dataclasses.replace(config, all_layers=False), *data, CPU)
    torch.testing.assert_close(task.states[:, [0, -1]], ends.states)
    assert set(task.loss(torch.arange(9))) == {"reconstruction", "state", "linear", "distance"}
    with pytest.raises(UserError, match="components: 7 of a layer of width 6"):
        KAETask(dataclasses.replace(config, components=7), *data, CPU)


def test_data_are_those_of_the_network(network, data, monkeypatch):
    asked = []

    def load(name, split):
        asked.append((name, split))
        return data[0]

    monkeypatch.setattr(kae.datasets, "load", load)
    config = dataclasses.replace(AUTOENCODER, network=str(network))
    assert kae.data(config) == (data[0], data[0]) and asked == [("blobs", "train"), ("blobs", "validation")]
    monkeypatch.setattr(kae.datasets, "load", lambda name, split: dataclasses.replace(data[0], name="other"))
    with pytest.raises(UserError, match="the network was trained on 'blobs', found 'other'"):
        kae.data(config)
    with pytest.raises(UserError, match=r"^network: no checkpoint 'nowhere/best\.safetensors'; no ResMLP is"):
        kae.data(dataclasses.replace(config, network="nowhere/best.safetensors"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operator": "lowrank"}, "unknown operator 'lowrank'; did you mean 'low-rank'"),
        ({"distance_weight": -1.0}, "distance_weight must not be negative, got -1.0"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(AUTOENCODER, **change)
    with pytest.raises(UserError, match="width must be at least 1, got 0"):
        ClassifierTrainConfig(width=0)
