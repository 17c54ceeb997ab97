"""``kpm kann``: the Koopman analyses of trained recurrent networks, over whole splits, into their results files."""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from kpm import datasets, files, paths
from kpm.analysis.kann import KANN
from kpm.analysis.kann_measures import agreements, relative_errors
from kpm.datasets import lexicon
from kpm.datasets.texts import Reviews
from kpm.errors import UserError
from kpm.metrics.kann_tables import AGREEMENT, E_REL
from kpm.models.beat_autoencoder import BeatAutoencoder
from kpm.models.copy_memory import CopyMemoryNet
from kpm.models.sentiment import SentimentNet
from kpm.training import checkpoint
from kpm.training.copy_memory import CopyTrainConfig, held_out
from kpm.workbook import kann_copy, kann_ecg, kann_sentiment, results
from kpm.workbook.output_path import check_writable

SHIPPED = {"sentiment": "sentiment_imdb", "ecg": "ecg_ecg5000", "copy": "copy"}
MODELS = {"sentiment": SentimentNet, "ecg": BeatAutoencoder, "copy": CopyMemoryNet}
PAPER = {
    # The paper's are with padding, so they have their like in our figures with padding, not in those of real words.
    "sentiment": {"agreement_padded": AGREEMENT["sentiment"], "e_rel_padded": E_REL["sentiment"]},
    "ecg": {"agreement": AGREEMENT["ecg"], "e_rel": E_REL["ecg"]},
    "copy": {},  # appendix D of [KANN], which has the copy problem, was not at hand
}


def kann_command(
    task: tyro.conf.Positional[Literal["sentiment", "ecg", "copy"]],
    checkpoint_file: str = "",
    split: str = "test",
    draws: int = 1000,
    delays: tuple[int, ...] = (),
    seed: int = 7253,
    out: Path | None = None,
    save: bool = False,
    progress: bool = True,
) -> int:
    """Analyse the hidden states of a trained network: eigenvalues, fidelity, what its slow modes follow.

    Args:
        task: Which network.
        checkpoint_file: A name in data/checkpoints or a file; the shipped one by default.
        split: The data whose states are analysed.
        draws: Random directions that scores are held against (sentiment).
        delays: Also train a small network for each of these delays and analyse it, a minute or so each (copy).
        seed: Of these and of samples.
        out: The JSON file, out/kann_TASK.json (for copy, out/kann_CHECKPOINT.json) by default.
        save: Add what is found to the results file kann_TASK (for copy, kann_CHECKPOINT).
        progress: Show a progress bar.
    """
    path = checkpoint.find(checkpoint_file or SHIPPED[task], MODELS[task])
    if delays and task != "copy":
        raise UserError(f"delays: goes with copy, not with {task}")
    name = f"kann_{path.stem if task == 'copy' else task}"
    target = out or paths.root() / "out" / f"{name}.json"
    check_writable(target, "out")
    run = {"sentiment": sentiment, "ecg": ecg, "copy": functools.partial(copy, delays=delays)}[task]
    metrics, details = run(path, split, draws, seed, progress)
    for key, value in metrics.items():
        beside = f" (paper {PAPER[task][key]})" if key in PAPER[task] else ""
        print(f"{key:<28}{value:.6g}{beside}")
    files.write_json(target, {"checkpoint": path.stem, "split": split, "metrics": metrics, "details": details})
    print(f"written to {target}")
    if save:
        _save(name, path, split, metrics, PAPER[task], details)
    return 0


def _data(meta: dict[str, Any], split: str) -> Any:
    """A split of the very data a network was trained on."""
    trained = meta["data"]["train"]
    data = datasets.load(trained["name"], split, "real" if trained["source"] == "real" else "synthetic")
    if data.name != trained["name"]:
        raise UserError(f"the network was trained on {trained['name']!r}, found {data.name!r}")
    return data


def sentiment(path: Path, split: str, draws: int, seed: int, progress: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and tables of the sentiment network on every review of a split."""
    model, meta = checkpoint.load_as(SentimentNet, path)
    data, longest = _data(meta, split), meta["train"]["max_length"]
    _same_words(meta, data)
    reading = kann_sentiment.read(model, data, longest, progress)
    whole = kann_sentiment.fidelity(model, reading.kann, data, longest, progress)
    learnt = lexicon.lexicon(_data(meta, "train"))
    found = kann_sentiment.scores(reading, model, learnt.weights, seed, draws)
    names, pairs = kann_sentiment.context(model, reading, found["lexicon"], data, longest)
    some = data.subset(torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:64])
    line = kann_sentiment.linearised(model, data, longest, seed)
    baseline = kann_sentiment.fidelity(model, line, some, longest) if line else None
    batch = _one_batch(model, some, longest)
    values = torch.as_tensor(reading.kann.eigenvalues_)
    slow = kann_sentiment.slow_modes(reading.kann)
    r = {name: s.pearson for name, s in found.items()}
    metrics = {
        "agreement": whole.agreement,
        "e_rel_all": whole.e_rel,
        **batch,
        "slow_modes": sum(map(len, slow)),
        "lexicon_r": float(r["lexicon"].value.max()),
        "lexicon_r_null95": float(r["lexicon"].null_single.quantile(0.95)),
        "readout_r": float(r["read-out"].value.max()),
        "reviews": reading.reviews,
        "states": reading.states,
        "read_s": round(reading.wall_s, 1),
        "moments_s": round(reading.moments_s, 1),
        "peak_gib": round(reading.peak_gib, 2),
    }
    if baseline:
        metrics |= {"linearised_e_rel": baseline.e_rel, "linearised_agreement": baseline.agreement}
    details = {
        "slow": [
            {
                "modes": list(pair),
                "real": float(values[pair[0]].real),
                "imag": float(values[pair[0]].imag),
                "modulus": float(values[pair[0]].abs()),
                "horizon": _finite(float(reading.kann.memory_horizon_[pair[0]])),  # none: it does not fade
                **{f"{name}_r": float(s.pearson.value[i]) for name, s in found.items()},
                **{f"{name}_rank_r": float(s.spearman.value[i]) for name, s in found.items()},
                **{f"{name}_p": float(s.pearson.p[i]) for name, s in found.items()},
                **{f"{name}_z": float(s.pearson.z[i]) for name, s in found.items()},
            }
            for i, pair in enumerate(slow)
        ],
        "words_scored": found["lexicon"].words,
        "pairs": {
            name: {"mean": pairs.mean[i].tolist(), "count": pairs.count[i].tolist()} for i, name in enumerate(names)
        },
        "slow_points": len(line.points) if line else 0,
    }
    return metrics, details


def _same_words(meta: dict[str, Any], data: Reviews) -> None:
    if list(data.vocabulary.words) != meta["vocabulary"]:
        raise UserError("the network was trained with another vocabulary; fetch the data again or train anew")


def _one_batch(model: SentimentNet, data: Reviews, longest: int) -> dict[str, float]:
    """Figures of one batch of reviews by its own operator: fitted without padding, and as published, with it."""
    ids, lengths, _ = data.batch(torch.arange(len(data)), longest)
    with torch.inference_mode():
        h = model.states(ids, lengths).clone()
    own = KANN().fit(h, lengths)
    published = KANN(rank="published", pair="abs").fit(h)
    return {
        "e_rel": float(relative_errors(own, h, lengths=lengths).mean),
        "e_rel_padded": float(relative_errors(published, h).mean),
        "agreement_padded": float(agreements(published, model.read, h).mean),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def ecg(path: Path, split: str, draws: int, seed: int, progress: bool) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and tables of the autoencoder of heartbeats on the normal beats of a split."""
    model, meta = checkpoint.load_as(BeatAutoencoder, path)
    beats, learnt = kann_ecg.normal(_data(meta, split)), kann_ecg.normal(_data(meta, "train"))
    found = kann_ecg.analyse(model, learnt, beats)
    own = kann_ecg.analyse(model, beats, beats, split)
    metrics = {
        "agreement": found.agreement,
        "e_rel": own.e_rel,
        "e_rel_of_train": found.e_rel,
        "agreement_own": own.agreement,
        "beats": len(beats),
        "moments_s": round(found.fit_s, 2),
    }
    values = torch.as_tensor(found.kann.eigenvalues_)
    details = {
        "dominant": [
            {"modes": list(p), "real": float(values[p[0]].real), "imag": float(values[p[0]].imag)}
            for p in kann_ecg.dominant_pairs(found, 8)
        ],
        "moduli": values.abs().tolist(),
    }
    return metrics, details


def copy(
    path: Path, split: str, draws: int, seed: int, progress: bool, delays: tuple[int, ...] = ()
) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and tables of a network that copies, on sequences that it was not trained on."""
    model, meta = checkpoint.load_as(CopyMemoryNet, path)
    config = CopyTrainConfig(**meta["train"])
    found = kann_copy.analyse(model.eval(), held_out(config, "train"), held_out(config, split), config.delay, seed)
    details = {
        "errors": {name: part.errors.tolist() for name, part in found.fidelity.items()},
        "moduli": {name: values.abs().tolist() for name, values in found.eigenvalues().items()},
    }
    if delays:
        with tempfile.TemporaryDirectory() as folder:
            details["delays"] = kann_copy.by_delay(delays, Path(folder))
    return kann_copy.metrics(found), details


def _save(
    name: str, path: Path, split: str, metrics: dict[str, float], paper: dict[str, float], details: dict[str, Any]
) -> None:
    result = results.load(name)
    if result.split != split or result.checkpoint is None or result.checkpoint.status() != "ok":
        raise UserError(f"save: {name}.json is of {result.split!r} and {result.checkpoint}")
    if (paths.root() / result.checkpoint.file).resolve() != path.resolve():
        raise UserError(f"save: {name}.json is of {result.checkpoint.file}")
    results.save(
        dataclasses.replace(
            result,
            metrics={**result.metrics, **metrics},
            paper={**result.paper, **paper},
            details={**(result.details or {}), **details},
        )
    )
    print(f"{name}.json has it; kpm results --readme renews the table")
