"""Checkpoints: one safetensors file with tensors and, in its header, everything needed to use them again.

No pickle is read or written. A file is written beside its final name and renamed, so it is whole or not there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from kpm import environment, files, paths
from kpm.errors import UserError
from kpm.models.beat_autoencoder import BeatAutoencoder, BeatAutoencoderConfig
from kpm.models.copy_memory import CopyMemoryConfig, CopyMemoryNet
from kpm.models.deq import DEQ, DEQConfig
from kpm.models.dse import DSE
from kpm.models.dse_networks import DSEConfig
from kpm.models.feedforward import FeedForward, FeedForwardConfig
from kpm.models.judge import Judge, JudgeConfig
from kpm.models.koopman_autoencoder import KoopmanAutoencoder, KoopmanAutoencoderConfig
from kpm.models.mondeq import MonDEQ, MonDEQConfig
from kpm.models.res_mlp import ResMLP, ResMLPConfig
from kpm.models.sentiment import SentimentConfig, SentimentNet
from kpm.models.sim import SIM, SIMConfig
from kpm.models.surrogate import Surrogate, SurrogateConfig

FORMAT = "kpm-1"
_MODELS = {
    model.__name__: (model, config)
    for model, config in (
        (KoopmanAutoencoder, KoopmanAutoencoderConfig),
        (Judge, JudgeConfig),
        (SentimentNet, SentimentConfig),
        (BeatAutoencoder, BeatAutoencoderConfig),
        (CopyMemoryNet, CopyMemoryConfig),
        (DSE, DSEConfig),
        (ResMLP, ResMLPConfig),
        (Surrogate, SurrogateConfig),
        (SIM, SIMConfig),
        (DEQ, DEQConfig),
        (MonDEQ, MonDEQConfig),
        (FeedForward, FeedForwardConfig),
    )
}
M = TypeVar("M", bound=nn.Module)


def find(name: str, kind: type[nn.Module], argument: str = "") -> Path:
    """The file meant by a name in ``data/checkpoints`` or by the path of a ``.safetensors`` file.

    A path is taken from the working directory first, then from `kpm.paths.root`.

    Parameters
    ----------
    name : str
    kind : type
        The model that is wanted: the message lists the shipped ones of this kind. What the file holds is not checked.
    argument : str, optional
        What `name` was given for; the message begins with it.

    Raises
    ------
    UserError
        If there is no such file.
    """
    places = [paths.checkpoints() / f"{name}.safetensors"]
    if name.endswith(".safetensors"):
        places = [Path(name), paths.root() / name]
    for path in places:
        if path.is_file():
            return path
    shipped = [p.stem for p in sorted(paths.checkpoints().glob("*.safetensors")) if _kind(p) == kind.__name__]
    known = f"shipped are {', '.join(shipped)}, or" if shipped else f"no {kind.__name__} is shipped;"
    before = f"{argument}: " if argument else ""
    raise UserError(f"{before}no checkpoint {name!r}; {known} give a .safetensors file that kpm train has made")


def _kind(path: Path) -> str:
    """Name of the model in a checkpoint, from its header alone; empty if it has none."""
    try:
        with safetensors.safe_open(path, "pt") as f:
            return json.loads((f.metadata() or {}).get("meta", "{}")).get("model", "")
    except (safetensors.SafetensorError, OSError, ValueError):
        return ""


def save(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
    """Write `tensors` and `meta` (JSON values) atomically; `OSError` if that fails, as on a full disk."""
    # Digests of the tensors' bytes and of the meta find flipped bits, which safetensors itself does not look for.
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    text = json.dumps(meta)
    digests = {"digest": _digest(tensors), "meta_digest": hashlib.sha256(text.encode()).hexdigest()}
    header = {"format": FORMAT, "meta": text, **digests}
    with files.atomic(path) as part:
        try:
            safetensors.torch.save_file(tensors, part, metadata=header)
        except safetensors.SafetensorError as error:
            raise OSError(f"cannot write checkpoint {path.name!r}: {error}") from error
    return path


def read(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and meta of a checkpoint; `UserError` names the file if it is absent, foreign, truncated or altered."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint {path.name!r} in {path.parent.name!r}")
    try:
        with safetensors.safe_open(path, "pt") as f:
            header = f.metadata() or {}
            tensors = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - not a dict
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path.name!r} is damaged: {error}") from error
    if header.get("format") != FORMAT:
        raise UserError(f"{path.name!r} is not a kpm checkpoint (format {header.get('format')!r}, expected {FORMAT!r})")
    text = header.get("meta", "")
    found = {"digest": _digest(tensors), "meta_digest": hashlib.sha256(text.encode()).hexdigest()}
    expected = {"digest": header.get("digest"), "meta_digest": header.get("meta_digest", found["meta_digest"])}
    for kind in found:  # files older than the second kind have none of it
        if found[kind] != expected[kind]:
            raise UserError(
                f"checkpoint {path.name!r} is damaged: expected {kind} {expected[kind]}, found {found[kind]}"
            )
    return tensors, json.loads(text)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].contiguous()
        digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
        digest.update(t.reshape(-1).view(torch.uint8).numpy() if t.numel() else b"")
    return digest.hexdigest()


def save_model(
    path: Path,
    model: nn.Module,
    meta: dict[str, Any],
    machine: environment.Environment | None = None,
    half: bool = False,
) -> Path:
    """Weights of `model` for use by others, with its config, how it was trained, how far, and on what machine.

    Parameters
    ----------
    meta : dict
        What is known of the training (config, data, progress), as plain values.
    machine : Environment, optional
        Where it was trained; this process's own by default.
    half : bool
        Store floating-point tensors in bf16 (half the size).
    """
    state = {k: v.bfloat16() if half and v.is_floating_point() else v for k, v in model.state_dict().items()}
    machine = machine or environment.report()
    about = {"model": type(model).__name__, "config": dataclasses.asdict(model.config)}
    return save(path, state, meta | about | {"environment": machine.to_dict()})


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[KoopmanAutoencoder, dict[str, Any]]:
    """The Koopman autoencoder of a checkpoint, see `load_as`."""
    return load_as(KoopmanAutoencoder, path, device)


def load_judge(path: str | Path, device: torch.device | str = "cpu") -> tuple[Judge, dict[str, Any]]:
    """The judge of a checkpoint, see `load_as`."""
    return load_as(Judge, path, device)


def load_as(kind: type[M], path: str | Path, device: torch.device | str = "cpu") -> tuple[M, dict[str, Any]]:
    """The model of a checkpoint in eval mode and the checkpoint's meta; `UserError` if it is another kind."""
    tensors, meta = read(path)
    if meta.get("model") != kind.__name__:
        raise UserError(f"checkpoint {Path(path).name!r} holds a {meta.get('model')!r}, expected a {kind.__name__}")
    return _build(tensors, meta, device, Path(path).name), meta


def load_any(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The model of a checkpoint, whichever it is, in eval mode and the checkpoint's meta."""
    tensors, meta = read(path)
    if meta.get("model") not in _MODELS:
        raise UserError(f"checkpoint {Path(path).name!r} holds a {meta.get('model')!r}, which is not known here")
    return _build(tensors, meta, device, Path(path).name), meta


def _build(tensors: dict[str, Tensor], meta: dict[str, Any], device: torch.device | str, name: str) -> Any:
    make, config = _MODELS[meta["model"]]
    if unknown := sorted(set(meta["config"]) - {f.name for f in dataclasses.fields(config)}):
        raise UserError(f"checkpoint {name!r} is of another version of kpm: no {', '.join(unknown)} is known here")
    model = make(config(**meta["config"]))
    prefix = "model." if any(k.startswith("model.") for k in tensors) else ""
    weights = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    model.load_state_dict(weights)  # in the types the model has, whatever those of the file
    return model.eval().to(device)
