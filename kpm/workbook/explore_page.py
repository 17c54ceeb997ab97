"""``kpm explore``: the explorers of a checkpoint as a page in the browser, served by voila on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ipywidgets
import nbformat
import torch
import tyro
from matplotlib.figure import Figure
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kpm import paths
from kpm.errors import UserError, pick
from kpm.models.channel_basis import ChannelBasis
from kpm.models.koopman_autoencoder import KoopmanAutoencoder
from kpm.training import checkpoint
from kpm.workbook import evaluate, explorer_overviews, explorers, results
from kpm.workbook.explorer_timing import time_moves
from kpm.workbook.gallery import Gallery, gather
from kpm.workbook.session import render

READY = "kpm-explorers-are-ready"
_PATIENCE = 300.0  # seconds for the page to be made, once


class Section(NamedTuple):
    """A part of the page: heading, what to do, the static figure and the explorer below it."""

    heading: str
    text: str
    overview: Callable[[Gallery], Figure]
    explorer: Callable[[Gallery], ipywidgets.VBox]


SECTIONS = {
    "swap": Section(
        "Exchange",
        "Pick two films and what they exchange. Everything shaded should then be the other film's.",
        explorer_overviews.swaps,
        explorers.swap_explorer,
    ),
    "component": Section(
        "Drag one component",
        "Pick a film and one component of its static part, and drag its value. What the component's factor becomes is "
        "free; all else should stay.",
        explorer_overviews.components,
        explorers.channel_explorer,
    ),
    "hull": Section(
        "Walk a convex hull",
        "Pick three films and walk the triangle between them.",
        explorer_overviews.hull,
        explorers.hull_explorer,
    ),
    "eigenvalue": Section(
        "One mode",
        "Click an eigenvalue to see what its mode adds, and what is left without it.",
        explorer_overviews.eigenvalues,
        explorers.eigenvalue_explorer,
    ),
}


def explore_command(
    checkpoint_file: tyro.conf.Positional[str] = "ssm_skd_sprites",
    split: str = "test",
    films: int = 24,
    components: Literal["auto", "independent"] = "auto",
    partition: Path | None = None,
    judge: str = "",
    seed: int = 7253,
    port: int = 8866,
    browser: bool = True,
    check: bool = False,
    time: bool = False,
) -> int:
    """Explore a checkpoint in the browser: exchange parts of films, drag components, walk hulls, look at modes.

    Args:
        checkpoint_file: A name in data/checkpoints or a file.
        split: Where the films come from.
        films: How many films to choose from.
        components: Static components: as published, or the independent axes in the checkpoint's results.
        partition: JSON file with the components of each factor (out/evaluate_NAME.json), if not those of the results.
        judge: Checkpoint of the judge, judge_DATASET by default.
        seed: Of the choice of films.
        port: Of the page; the next free one if it is taken.
        browser: Open the page in the browser.
        check: Only make the page once; exit code 1 if that goes wrong.
        time: Only measure how long moves take.
    """
    # Whatever is wrong with what was asked shows here, not in the page; and the page is told what it will find.
    path = checkpoint.find(checkpoint_file, KoopmanAutoencoder)
    asked = {"name": str(path.resolve()), "split": split, "films": films, "seed": seed}
    asked |= {"components": components, "partition": partition and str(partition.resolve()), "judge": judge}
    gallery = open_gallery(**asked)
    if time:
        threads = os.environ.get("OMP_NUM_THREADS", "unset")
        print(f"ms per move, 30 of each ({gallery.data.name}, OMP_NUM_THREADS {threads})")
        print(f"  {'explorer':<12}{'control':<14}{'median':>7}{'worst':>7}{'processor':>11}")
        for move in time_moves(gallery):
            print(
                f"  {move.explorer:<12}{move.control:<14}{move.median:>7.0f}{move.worst:>7.0f}{move.processor:>11.0f}"
            )
        return 0
    if not gallery.partition:
        print("no components of factors are known for these weights (kpm evaluate finds them): whole parts only")
    if check:
        return _check(asked)
    with _served(asked, port, browser) as server:
        try:
            return server.wait()
        except KeyboardInterrupt:
            return 0


def open_gallery(
    name: str,
    split: str = "test",
    films: int = 24,
    seed: int = 7253,
    components: str = "auto",
    partition: str | None = None,
    judge: str = "",
) -> Gallery:
    """Films of the data a checkpoint was trained on, with the judge and the partition that go with it.

    Raises
    ------
    UserError
        Where checkpoint, data or judge are absent or do not belong together.
    """
    path = checkpoint.find(name, KoopmanAutoencoder)
    model, meta = checkpoint.load_model(path)
    data = evaluate.films(meta, split)
    shipped = (paths.checkpoints() / f"judge_{data.name}.safetensors").is_file()
    referee = evaluate.find_judge(data, judge)[0] if judge or shipped else None
    known, basis = _components(path, pick("components", components, ("auto", "independent")))
    if partition is not None:
        known = _read_partition(Path(partition))
    try:
        return gather(model, data, referee, known, films, seed, basis)
    except ValueError as error:
        raise UserError(str(error)) from error


def _components(path: Path, components: str) -> tuple[dict[str, Any], ChannelBasis | None]:
    """The components of each factor, and their axes, from the results of these very weights."""
    details: dict[str, Any] = {}
    if path.parent.resolve() == paths.checkpoints().resolve() and (paths.results() / f"{path.stem}.json").is_file():
        result = results.load(path.stem)
        if result.checkpoint is not None and result.checkpoint.status() == "ok":
            details = result.details or {}
    if components == "auto":
        return details.get("partition", {}), None
    if "independent" not in details:
        raise UserError(f"components: no independent axes in the results of {path.stem!r}; kpm evaluate finds them")
    turned = details["independent"]
    return turned["partition"], ChannelBasis.of(torch.tensor(turned["analysis"]))


def _read_partition(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))["partition"]
        return {str(f): [int(c) for c in part] for f, part in known.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"partition: {path.name!r} has no components per factor ({error})") from error


def page(asked: dict[str, Any]) -> NotebookNode:
    """The notebook behind the page: calls of this module and nothing else."""
    title = f"# Explorers of {Path(asked['name']).stem}"
    here = "from kpm.workbook import explore_page"
    arguments = ", ".join(f"{key}={value!r}" for key, value in asked.items())
    cells = [new_markdown_cell(title), new_code_cell(f"{here}\n\ngallery = explore_page.open_gallery({arguments})")]
    for name, section in SECTIONS.items():
        cells.append(new_markdown_cell(f"## {section.heading}\n\n{section.text}"))
        cells.append(new_code_cell(f"explore_page.overview(gallery, {name!r})"))
        cells.append(new_code_cell(f"explore_page.SECTIONS[{name!r}].explorer(gallery)"))
    cells.append(new_code_cell("explore_page.ready()"))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata={**kernel, "title": f"kpm explore {Path(asked['name']).stem}"})


def overview(gallery: Gallery, name: str) -> None:
    """Show the static figure of a section."""
    from IPython.display import display

    display({"image/png": render(SECTIONS[name].overview(gallery)), "text/plain": name}, raw=True)


def ready() -> None:
    """Tell whoever waits for the page that all of it is there."""
    from IPython.display import HTML, display

    display(HTML(f'<span id="{READY}"></span>'))


def _check(asked: dict[str, Any]) -> int:
    """Have the page made once, as a browser would."""
    began = time.monotonic()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with _served(asked, port, browser=False, quiet=True) as server:
        url, text = f"http://localhost:{port}/", ""
        while server.poll() is None and time.monotonic() - began < _PATIENCE and not text:
            try:
                with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
                    text = answer.read().decode()
            except urllib.error.HTTPError as error:
                text = str(error)
            except OSError:  # voila is not there yet
                time.sleep(0.3)
        if READY in text and text.count("image/png") >= len(SECTIONS):
            print(f"the page works: {len(SECTIONS)} explorers in {time.monotonic() - began:.0f} s")
            return 0
    print("the page does not work: a cell of it failed" if text else "the page does not work: no answer from voila")
    return 1


@contextmanager
def _stoppable() -> Iterator[None]:
    """Where a request to end arrives as `KeyboardInterrupt`, so that what has been started is ended too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _served(asked: dict[str, Any], port: int, browser: bool, quiet: bool = False) -> Iterator[subprocess.Popen]:
    """A voila process that serves the page; it and the page's file are gone afterwards."""
    environment = dict(os.environ)
    # The page's kernel works in another folder than the one in which relative paths were meant.
    for variable, path in (("KPM_MIRROR", paths.mirror()), ("KPM_HOME", paths.root()), ("KPM_CACHE", paths.cache())):
        if os.environ.get(variable) and path is not None:
            environment[variable] = str(path)
    with tempfile.TemporaryDirectory(prefix="kpm-explore-") as folder, _stoppable():
        notebook = Path(folder) / "explore.ipynb"
        nbformat.write(page(asked), notebook)
        flags = [f"--port={port}", "--Voila.ip=localhost", "--VoilaConfiguration.show_tracebacks=True"]
        flags += [] if browser else ["--no-browser"]
        flags += ["--Voila.log_level=ERROR"] if quiet else []
        server = subprocess.Popen([sys.executable, "-m", "voila", str(notebook), *flags], env=environment)
        try:
            yield server
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
