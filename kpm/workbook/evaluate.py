"""``kpm evaluate``: judge a checkpoint: the factor table, D_sd and D_mf."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from kpm import datasets, files, paths
from kpm.datasets.base import SequenceDataset
from kpm.errors import UserError
from kpm.metrics import thesis_tables
from kpm.metrics.disentanglement import no_skill, within_reach
from kpm.metrics.evaluation import Evaluation, evaluate
from kpm.metrics.prediction import prediction
from kpm.metrics.reconstruction import reconstruction, shuffled
from kpm.metrics.representation import dci, mig, sap
from kpm.metrics.swaps import SwapConfig
from kpm.models.channel_basis import ChannelBasis, independent_basis
from kpm.models.judge import Judge
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.models.parts import latents
from kpm.models.resplit import AGREEMENT, Resplit, resplit_of
from kpm.training import checkpoint, hardware
from kpm.workbook import results

_FAST = 3  # repeats
_MOST = 2560  # films per repeat, of splits that have more than twice as many; Sprites has 2664
METHODS = {"batch": "skd", "sequence": "ssm_skd"}


def evaluate_command(
    checkpoint_file: tyro.conf.Positional[str],
    split: str = "test",
    explore_split: str = "validation",
    judge: str = "",
    repeats: int = 25,
    exploration_repeats: int = 5,
    batch_size: int = 256,
    films_per_repeat: int | None = None,
    partner: Literal["mixture", "instance"] = "mixture",
    reference: Literal["label", "judge"] = "label",
    components: Literal["auto", "modes", "channels", "independent"] = "auto",
    resplit: bool = False,
    seed: int = 7253,
    fast: bool = False,
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto",
    device: str = "auto",
    out: Path | None = None,
    save: bool = False,
    progress: bool = True,
) -> int:
    """Swap, decode and judge: print the accuracy of each factor after each swap, D_sd and D_mf; write them as JSON.

    Args:
        checkpoint_file: A name in data/checkpoints or a file.
        split: Films that are judged.
        explore_split: Films on which the static components of each factor are found; the thesis uses those judged.
        judge: Checkpoint of the judge, judge_DATASET by default.
        repeats: Passes over the split, each with new partners.
        exploration_repeats: The same for finding components.
        batch_size: Films that exchange parts.
        films_per_repeat: Films looked at in each repeat, drawn anew; all by default, of the largest splits 2560.
        partner: Take from a convex combination of two films or from one.
        reference: What counts as right: a film's label, or what the judge says of the film as it is.
        components: What static components are: modes (SKD) or channels (SSM-SKD); channels also work for SKD. Or
            independent axes of the static part, which a component analysis of the training films finds.
        resplit: Take for a film's motion what films of its kind of motion have in common, and for static what is left
            (not in the thesis); training films say which kinds there are.
        seed: Of partners and weights.
        fast: Three repeats throughout, to get an idea.
        precision: Of decoder and judge; auto probes whether bf16 is faster here.
        device: auto, cpu or cuda.
        out: The JSON file, out/evaluate_NAME.json by default.
        save: Put what is found into the results file of this shipped checkpoint too.
        progress: Show a progress bar.
    """
    how = {"command": _command(locals())}
    check_counts(batch_size, films_per_repeat, repeats=repeats, exploration_repeats=exploration_repeats)
    where = hardware.device(device)
    path = checkpoint.find(checkpoint_file, KoopmanAutoencoder)
    model, meta = checkpoint.load_model(path, where)
    data = films(meta, split)
    most = _MOST if len(data) > 2 * _MOST else None
    most = most if films_per_repeat is None else films_per_repeat
    config = SwapConfig(_FAST if fast else repeats, batch_size, partner, reference, seed, most)
    if resplit and components not in ("auto", "channels"):
        raise UserError(f"resplit: is for channels, not for components {components!r}")
    ablation = model.config.scope == "batch" and components == "channels" and not resplit
    as_published = (partner, reference) == ("mixture", "label") and (components in ("auto", "independent") or ablation)
    if save:
        _check_save(path, data, as_published and not fast and not judge)
    referee, about_judge = find_judge(data, judge, where)
    precision = hardware.faster_precision(where) if precision == "auto" else precision
    basis = independent_basis(model, films(meta, "train"), seed) if components == "independent" else None
    kinds = resplit_of(model, films(meta, "train"), seed) if resplit else None
    if kinds:
        count = len(kinds.kinds)
        same = f"two halves of the films agree on them to {kinds.agreement:.3f}"
        print(f"{count} kinds of motion, mean silhouette {kinds.silhouettes[count]:.2f}; {same}", flush=True)
        if kinds.agreement < AGREEMENT:
            print(f"that is below {AGREEMENT}: motions do not fall into kinds here, and the scores mean little")
    found = judged(
        model,
        referee,
        data,
        films(meta, explore_split),
        config,
        exploration_repeats=_FAST if fast else exploration_repeats,
        precision=precision,
        components="auto" if basis else "channels" if kinds else components,
        basis=basis,
        progress=progress,
        resplit=kinds,
    )
    method = METHODS[model.config.scope]
    print(f"{path.stem} on {data.name} ({data.source}), {split}: {found.films} films, {found.repeats} repeats")
    print(table(found, data.name, method if as_published and not ablation else ""))
    target = out or paths.root() / "out" / f"evaluate_{path.stem}.json"
    plain = as_plain(found, data)
    some = fewer(data)
    plain |= {"reconstruction": dataclasses.asdict(reconstruction(model, some))}
    plain |= {"prediction": dataclasses.asdict(prediction(model, some))}
    how |= {
        "components": "channels" if kinds else components,
        "precision": precision,
        "device": str(where),
        "judge": about_judge,
    }
    how |= {"kinds": len(kinds.kinds)} if kinds else {}
    how |= {"exploration_repeats": _FAST if fast else exploration_repeats}
    plain |= {"config": dataclasses.asdict(config), "how": how, "split": split}
    learn_from = "train" if split == "validation" else "validation"  # never the films they are read on
    plain |= {"representation": representation(model, fewer(films(meta, learn_from)), some, seed)}
    others = ", ".join(f"{k} {v:.3f}" for k, v in plain["representation"].items())
    print(f"time-averaged latents (forests and thresholds of {learn_from}, read on {split}): {others}")
    files.write_json(target, plain)
    print(f"written to {target.name}; {found.wall_s:.0f} s")
    if save and basis:
        store_beside(path.stem, found, plain, "independent", ("D_mf",), {"analysis": basis.analysis.tolist()})
    elif save and kinds:
        tables = {"explained": [round(float(v), 4) for v in kinds.explained]}
        tables |= {"agreement": round(kinds.agreement, 4)}
        tables |= {"silhouettes": {str(k): round(v, 4) for k, v in kinds.silhouettes.items()}}
        store_beside(path.stem, found, plain, "resplit", ("D_sd", "D_mf"), tables)
    elif save and ablation:
        store_beside(path.stem, found, plain, "channels", ("D_mf",), {})
    elif save:
        store(path.stem, found, data, plain, method)
    return 0


def _command(given: Mapping[str, Any]) -> str:
    """The command that gives the same again: what differs from the defaults, in the order of the help."""
    file = Path(given["checkpoint_file"])
    shipped = file.parent.resolve() == paths.checkpoints().resolve()  # by its name: the folder is this machine's
    words = ["kpm", "evaluate", file.stem if shipped else str(file)]
    for name, parameter in inspect.signature(evaluate_command).parameters.items():
        value, flag = given[name], "--" + name.replace("_", "-")
        if parameter.default is parameter.empty or value == parameter.default or name in ("out", "progress", "device"):
            continue
        words += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, str(value)]
    return " ".join(words)


def check_counts(batch_size: int, films_per_repeat: int | None, **repeats: int) -> None:
    """Before anything is loaded, and by the names that were typed; `repeats` are all options that count some."""
    for name, value in repeats.items():
        if value < 2:
            flag = name.replace("_", "-")
            raise UserError(f"{flag}: expected at least 2, one repeat has no standard error; got {value}")
    if batch_size < 2:
        raise UserError(f"batch-size: expected at least 2, a film needs a partner; got {batch_size}")
    if films_per_repeat is not None and films_per_repeat < batch_size:
        raise UserError(f"films-per-repeat: expected at least the {batch_size} of a batch, got {films_per_repeat}")


def _check_save(path: Path, data: SequenceDataset, as_published: bool) -> None:
    """Before anything is measured: whether its scores may go into a results file."""
    if path.parent.resolve() != paths.checkpoints().resolve():
        raise UserError("save: only what a shipped checkpoint does goes into a results file")
    if not as_published:
        raise UserError("save: only the published procedure with the shipped judge goes into a results file")
    result = results.load(path.stem)
    if (result.dataset, result.source, result.split) != (data.name, data.source, data.split):
        raise UserError(f"save: {path.stem}.json is on {result.dataset} ({result.source}), {result.split}")
    if result.checkpoint is None or result.checkpoint.status() != "ok":
        raise UserError(f"save: {path.stem}.json is of other weights than {path.name}; publish them first")


def representation(
    model: KoopmanAutoencoder, learn_from: SequenceDataset, data: SequenceDataset, seed: int = 0
) -> dict[str, float]:
    """DCI, MIG and SAP of the latents averaged over time, for comparison with other work."""
    z = [latents(model, d).mean(1).cpu().numpy() for d in (learn_from, data)]
    labels = [{f: d.factors[f].cpu().numpy() for f in (*d.static, *d.dynamic)} for d in (learn_from, data)]
    by_forests = dci(z[0], labels[0], z[1], labels[1], seed)
    return {
        "dci_disentanglement": by_forests.disentanglement,
        "dci_completeness": by_forests.completeness,
        "dci_informativeness": by_forests.informativeness_test,
        "mig": mig(z[1], labels[1]).score,
        "sap": sap(z[0], labels[0], z[1], labels[1], seed).score,
    }


def store(name: str, found: Evaluation, data: SequenceDataset, plain: dict[str, Any], method: str) -> None:
    """Add the scores to the results file `name`, with the thesis's beside them and the tables in `details`."""
    result = results.load(name)
    scores = {k: round(getattr(found, k.lower()), 6) for k in ("D_sd", "D_sd_se", "D_mf", "D_mf_se")}
    # One operator per film gives its own film back: what it "predicts" is the reconstruction.
    errors = ("ambient_one_step", "ambient_rollout") if method == "skd" else ()
    scores |= {k: plain["prediction"][k] for k in errors}
    tables = ("rows", "rows_se", "frames", "consistency", "partition", "explored_on", "films", "repeats", "how")
    details = {k: plain[k] for k in tables}
    details |= {k: plain[k] for k in ("representation", "exploration", "config", "prediction")}
    details["evaluation_s"] = round(found.wall_s, 1)
    details = {**(result.details or {}), **details}
    paper = {**result.paper, **thesis_scores(data.name, method)}
    results.save(dataclasses.replace(result, metrics={**result.metrics, **scores}, paper=paper, details=details))
    print(f"{name}.json has them; kpm results --readme renews the table")


def store_beside(
    name: str, found: Evaluation, plain: dict[str, Any], key: str, scores: Sequence[str], more: dict[str, Any]
) -> None:
    """Add `scores` of another split of the films to the results file `name` as ``SCORE_key``; the thesis has no such.

    The tables behind them, and what `more` says of the split, stand in its details under `key`.
    """
    result = results.load(name)
    values = {f"{s}_{key}{se}": round(getattr(found, f"{s.lower()}{se}"), 6) for s in scores for se in ("", "_se")}
    tables = ("rows", "rows_se", "partition", "explored_on", "films", "repeats", "exploration", "how", "config")
    details = {**(result.details or {}), key: {k: plain[k] for k in tables} | more}
    results.save(dataclasses.replace(result, metrics={**result.metrics, **values}, details=details))
    print(f"{name}.json has {' and '.join(f'{s}_{key}' for s in scores)}")


def judged(
    model: KoopmanAutoencoder,
    judge: Judge,
    data: SequenceDataset,
    explore_on: SequenceDataset,
    config: SwapConfig,
    exploration_repeats: int = 5,
    precision: str = "auto",
    components: str = "auto",
    progress: bool = False,
    partition: dict[str, tuple[int, ...]] | None = None,
    basis: ChannelBasis | None = None,
    resplit: Resplit | None = None,
) -> Evaluation:
    """`kpm.metrics.evaluation.evaluate` in the precision that is faster on this machine."""
    where = next(model.parameters()).device
    precision = hardware.faster_precision(where) if precision == "auto" else precision
    if where.type == "cpu":
        hardware.keep_freed_memory()
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    return evaluate(
        model,
        judge,
        data,
        explore_on,
        config,
        partition,
        exploration_repeats,
        dtype,
        components,
        basis,
        progress,
        resplit,
    )


def films(meta: dict[str, Any], split: str) -> SequenceDataset:
    """A split of the very data a checkpoint was trained on; `UserError` if only a stand-in for it is here."""
    trained = meta["data"]["train"]
    data = datasets.load(trained["name"], split, "real" if trained["source"] == "real" else "synthetic")
    if (data.name, data.source) != (trained["name"], trained["source"]):
        raise UserError(f"the checkpoint was trained on {trained['name']!r} ({trained['source']}), found {data.name!r}")
    return data


def fewer(data: SequenceDataset) -> SequenceDataset:
    """Films for what is measured once, without swaps: of the largest splits so many as are swapped in a repeat."""
    if len(data) <= 2 * _MOST:
        return data
    return data.subset(shuffled(len(data))[:_MOST], f"{data.split}, {_MOST} films")


def find_judge(
    data: SequenceDataset, name: str = "", device: torch.device | str = "cpu"
) -> tuple[Judge, dict[str, str]]:
    """The judge of a dataset, its file and hash; `UserError` if it learnt another one."""
    path = checkpoint.find(name or f"judge_{data.name}", Judge)
    judge, meta = checkpoint.load_judge(path, device)
    learnt = meta["data"]["train"]
    if learnt["name"] != data.name:
        raise UserError(f"the judge has learnt {learnt['name']!r}, the films are {data.name!r}")
    return judge, {"file": path.name, "sha256": files.sha256(path)}


def table(found: Evaluation, dataset: str, method: str) -> str:
    """Accuracies after each swap, the thesis's of `method` in brackets where it has them, the scores and their ends."""
    paper, scores = thesis_rows(dataset, method), thesis_scores(dataset, method)
    factors = [*found.static, *found.dynamic]
    lines = [["", *factors], ["chance", *(f"{1 / found.classes[f]:.4f}" for f in factors)]]
    for name, row in found.rows.items():
        beside = paper.get(name, {})
        lines.append([name, *(f"{row[f]:.4f}" + (f" ({beside[f]:.4f})" if f in beside else "") for f in factors)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in lines]
    parts = ", ".join(f"{f} {list(c)}" for f, c in found.partition.items())
    text.append(f"components ({found.explored_on}): {parts}")
    judged_films = found.films * found.repeats
    kinds = (found.classes, found.static, found.dynamic)
    least, most = no_skill(*kinds), within_reach(*kinds, judged_films)
    for label, value, error in (("D_sd", found.d_sd, found.d_sd_se), ("D_mf", found.d_mf, found.d_mf_se)):
        beside = f", thesis {scores[label]:.4f}" if label in scores else ""
        ends = f"; everything destroyed {least[label]:.4f}, a perfect model {most[label]:.4f} with {judged_films} films"
        text.append(f"{label} {value:.4f} (se {error:.4f}){beside}{ends}")
    return "\n".join(text)


def thesis_scores(dataset: str, method: str) -> dict[str, float]:
    """The thesis's D_sd and D_mf of a method (``"skd"``, ``"ssm_skd"``) on a dataset, if it has them."""
    base = dataset.removesuffix("_rerender")
    if method == "ssm_skd" and base in thesis_tables.D_SD:
        return {"D_sd": thesis_tables.D_SD[base], "D_mf": thesis_tables.D_MF[base]}
    return dict(thesis_tables.SKD_SPRITES) if (method, base) == ("skd", "sprites") else {}


def thesis_rows(dataset: str, method: str = "ssm_skd") -> dict[str, dict[str, float]]:
    """The thesis's accuracies under the names of our rows; a re-render is compared with the original.

    It has none for SKD.
    """
    base = dataset.removesuffix("_rerender")
    if method != "ssm_skd" or base not in thesis_tables.STATIC_SWAP:
        return {}
    rows = {"static swap": thesis_tables.STATIC_SWAP[base], "dynamic swap": thesis_tables.DYNAMIC_SWAP[base]}
    return rows | {f"retain {f}": row for f, row in thesis_tables.FACTORIAL[base].items()}


def as_plain(found: Evaluation, data: SequenceDataset) -> dict[str, Any]:
    """Everything `evaluate` found as JSON values."""
    value = dataclasses.asdict(found)
    if found.exploration is not None:
        arrays = ("reference", "reference_se", "gain", "gain_se")
        value["exploration"] |= {k: getattr(found.exploration, k).round(6).tolist() for k in arrays}
    return {"dataset": data.name, "source": data.source, **value}
