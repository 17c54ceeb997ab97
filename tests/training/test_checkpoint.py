"""Checkpoints: whole or refused."""

import pytest
import torch

from kpm.errors import UserError
from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder, KoopmanAutoencoderConfig
from kpm.training import checkpoint


@pytest.fixture
def model():
    torch.manual_seed(0)
    return KoopmanAutoencoder(KoopmanAutoencoderConfig(width=4, latent_dim=9, hidden_dim=10))


def test_round_trip(model, tmp_path):
    path = checkpoint.save_model(tmp_path / "m.safetensors", model, {"progress": {"step": 5}})
    again, meta = checkpoint.load_model(path)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    assert again.config == model.config and meta["progress"] == {"step": 5}
    assert meta["environment"]["packages"]["torch"]
    frames = torch.rand(2, 8, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(frames).reconstruction, again(frames).reconstruction)


def test_a_config_of_another_version_is_named(model, tmp_path):
    path = checkpoint.save_model(tmp_path / "m.safetensors", model, {})
    tensors, meta = checkpoint.read(path)
    checkpoint.save(path, tensors, meta | {"config": meta["config"] | {"whirl": 1, "colour": "red"}})
    with pytest.raises(UserError, match=r"checkpoint 'm.safetensors' is of another version of kpm: no colour, whirl"):
        checkpoint.load_model(path)


def test_half_size_file_is_close(model, tmp_path):
    whole = checkpoint.save_model(tmp_path / "a.safetensors", model, {})
    half = checkpoint.save_model(tmp_path / "b.safetensors", model, {}, half=True)
    # The header (environment report) is the same in both; the tensors take half.
    assert half.stat().st_size < whole.stat().st_size - sum(p.numel() for p in model.parameters()) * 1.9
    again, _ = checkpoint.load_model(half)
    assert next(again.parameters()).dtype == torch.float32
    for a, b in zip(model.parameters(), again.parameters()):
        torch.testing.assert_close(a, b, rtol=1 / 128, atol=1e-8)


def test_every_kind_of_damage_is_named(model, tmp_path):
    good = checkpoint.save_model(tmp_path / "m.safetensors", model, {}).read_bytes()
    cases = {"cut": good[: len(good) // 2], "empty": b"", "not ours": b"\x80\x02pickle", "longer": good + b"1234"}
    for i in (len(good) - 1, len(good) * 3 // 4):
        flipped = bytearray(good)
        flipped[i] ^= 4
        cases[f"bit {i}"] = bytes(flipped)
    for name, content in cases.items():
        path = tmp_path / "bad.safetensors"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"'bad.safetensors' is damaged"):
            checkpoint.load_model(path)
        assert path.exists(), name


def test_the_hashes_of_a_flipped_bit_are_told(model, tmp_path):
    path = checkpoint.save_model(tmp_path / "m.safetensors", model, {})
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"expected digest [0-9a-f]{64}, found [0-9a-f]{64}"):
        checkpoint.read(path)


def test_a_checkpoint_is_found_by_its_name_or_its_path(model, tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    monkeypatch.setenv("KPM_HOME", str(home))
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(UserError, match=r"^no checkpoint 'a'; no KoopmanAutoencoder is shipped; give a \.safetensors"):
        checkpoint.find("a", KoopmanAutoencoder)
    shipped = home / "data" / "checkpoints"
    for name in ("b", "a"):
        checkpoint.save_model(shipped / f"{name}.safetensors", model, {})
    checkpoint.save(shipped / "judge.safetensors", {"a": torch.zeros(1)}, {"model": "Judge"})
    (shipped / "damaged.safetensors").write_bytes(b"no checkpoint")
    assert checkpoint.find("a", KoopmanAutoencoder) == shipped / "a.safetensors"
    assert checkpoint.find("judge", Judge) == shipped / "judge.safetensors"
    assert checkpoint.find(str(shipped / "b.safetensors"), KoopmanAutoencoder) == shipped / "b.safetensors"
    assert checkpoint.find("data/checkpoints/a.safetensors", KoopmanAutoencoder) == shipped / "a.safetensors"
    checkpoint.save_model(here / "a.safetensors", model, {})
    assert checkpoint.find("a.safetensors", KoopmanAutoencoder).resolve() == here / "a.safetensors"
    with pytest.raises(UserError, match=r"^init: no checkpoint 'c'; shipped are a, b, or give a"):
        checkpoint.find("c", KoopmanAutoencoder, "init")
    with pytest.raises(UserError, match=r"^no checkpoint 'x/c\.safetensors'; shipped are judge, or give a"):
        checkpoint.find("x/c.safetensors", Judge)


def test_foreign_and_absent_files(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="not a kpm checkpoint"):
        checkpoint.read(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"no checkpoint 'none.safetensors'"):
        checkpoint.read(tmp_path / "none.safetensors")
    checkpoint.save(tmp_path / "judge.safetensors", {"a": torch.zeros(1)}, {"model": "Judge"})
    with pytest.raises(UserError, match="holds a 'Judge', expected a KoopmanAutoencoder"):
        checkpoint.load_model(tmp_path / "judge.safetensors")
