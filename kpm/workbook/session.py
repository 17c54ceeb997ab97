"""What every notebook starts and ends with: one call to set up, one to show a figure, one to write the results."""

from __future__ import annotations

import dataclasses
import io
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from kpm import environment, files, paths
from kpm.errors import pick
from kpm.training import hardware
from kpm.workbook import plots

PROFILES = ("quick", "paper")


@dataclasses.dataclass(frozen=True)
class Session:
    """A notebook's run: its name, profile, seed, device and the folder its results go to."""

    name: str
    profile: str
    seed: int
    device: torch.device
    out: Path
    started: float

    @property
    def quick(self) -> bool:
        return self.profile == "quick"

    def show(self, figure: Figure, name: str, alt: str = "", colours: int = 128) -> None:
        """Display `figure` under the cell, in so many colours, and save it as ``NAME.png`` in the run's folder."""
        from IPython.display import display

        png = render(figure, colours)
        with files.atomic(self.out / f"{name}.png") as part:
            part.write_bytes(png)
        width = Image.open(io.BytesIO(png)).width
        metadata = {"image/png": {"width": width // 2}} if width > 1400 else {}
        display({"image/png": png, "text/plain": alt or name}, raw=True, metadata=metadata)

    def folder(self, name: str) -> Path:
        """A folder of this run for what a cell makes: emptied first in the quick profile, kept in the other."""
        path = self.out / name
        if self.quick:
            shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def write_results(self, numbers: Mapping[str, Any], parameters: Mapping[str, Any] | None = None) -> None:
        """Write ``results.json``: the numbers, what they were made with, how long it took, the environment."""
        path = files.write_json(
            self.out / "results.json",
            {
                "notebook": self.name,
                "profile": self.profile,
                "seed": self.seed,
                "device": str(self.device),
                "parameters": dict(parameters or {}),
                "numbers": {k: _plain(v) for k, v in numbers.items()},
                "wall_s": round(time.monotonic() - self.started, 1),
                "environment": environment.report({"notebook": self.seed}).to_dict(),
            },
        )
        print(f"{path.name}: {', '.join(numbers)}")


def start(name: str, profile: str, seed: int, device: str = "auto", out_dir: str | None = None) -> Session:
    """Set up a notebook: style, seeds, threads of torch as they are, the folder for what it makes.

    Parameters
    ----------
    name : str
        The notebook's stem.
    profile : {"quick", "paper"}
    out_dir : str, optional
        Where ``results.json`` and figures go; ``out/NAME`` by default.
    """
    pick("profile", profile, PROFILES)
    plots.use_style()
    hardware.keep_freed_memory()
    torch.manual_seed(seed)
    out = Path(out_dir) if out_dir else paths.root() / "out" / name
    out.mkdir(parents=True, exist_ok=True)
    return Session(name, profile, seed, hardware.device(device), out, time.monotonic())


def render(figure: Figure, colours: int = 128) -> bytes:
    """PNG bytes of a figure, reduced to a palette: a third of the size, which keeps notebooks light."""
    buffer = io.BytesIO()
    with plots.style():
        figure.savefig(buffer, format="png")
    picture = Image.open(buffer).convert("RGB").quantize(colours, method=Image.Quantize.MAXCOVERAGE)
    small = io.BytesIO()
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> Any:
    """A table under the cell, readable as Markdown and as HTML."""
    from IPython.display import Markdown

    lines = [header, ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.item() if value.ndim == 0 else value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"results hold finite numbers only, got {value}")
    return value
