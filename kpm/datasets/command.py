"""``kpm data``: list datasets, fetch one, look at one."""

from __future__ import annotations

from pathlib import Path

import tyro

from kpm import datasets, paths
from kpm.datasets import registry
from kpm.datasets.catalogue import ENTRIES
from kpm.errors import pick
from kpm.files import atomic, write_text


def data_list() -> int:
    """List the datasets: what is here, how large each is, and its licence."""
    rows = [("name", "what it is", "cache", "mirror", "size", "licence")]
    for name, entry in ENTRIES.items():
        places = ("yes" if there else "no" for there in (registry.is_cached(name), registry.is_mirrored(name)))
        rows.append((name, entry.title, *places, _size(entry.size), entry.licence))
    for name in datasets.names():
        if name not in ENTRIES:
            files = datasets.entries(name)
            what = f"sequences made of {' or '.join(files)}" if files else "made by kpm, needs no files"
            package = datasets.comes_with(name)
            what, licence = (f"comes with {package}", "-") if package else (what, "-" if files else "MIT")
            rows.append((name, what, "-", "-", "-", licence))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print(f"\ncache   {paths.cache()}\nmirror  {paths.mirror() or 'none (KPM_MIRROR names no folder)'}")
    return 0


def data_fetch(name: tyro.conf.Positional[str]) -> int:
    """Fetch the files of a dataset into the cache, from the mirror or the network, and check them.

    Args:
        name: dataset, as in ``kpm data list``
    """
    entry = ENTRIES[pick("dataset", name, ENTRIES)]
    folder = registry.fetch(name)
    print(f"{name}: {len(entry.files)} {'file' if len(entry.files) == 1 else 'files'}, checked, in {folder}")
    print(f"licence: {entry.licence}; please cite: {entry.citation} ({entry.homepage})")
    return 0


def data_show(
    name: tyro.conf.Positional[str], split: str = "train", source: str = "auto", out: Path | None = None
) -> int:
    """Show a dataset: the factors of films, the classes of signals, images or points, or the first few reviews.

    Args:
        name: dataset
        split: split of it
        source: auto, real or synthetic
        out: where the picture goes, figures/data_NAME.png if not given; reviews are printed and go there only if given
    """
    dataset = datasets.load(name, split, source)
    if isinstance(dataset, datasets.Reviews):
        from kpm.datasets.texts import excerpt

        print(excerpt(dataset))
        if out is not None:
            write_text(out, excerpt(dataset) + "\n")
        return 0
    if isinstance(dataset, datasets.Signals):
        from kpm.datasets.show_signals import plot_signals as plot
    elif isinstance(dataset, datasets.Images):
        from kpm.datasets.show_images import plot_images as plot
    elif isinstance(dataset, datasets.Points):
        from kpm.datasets.show_points import plot_points as plot
    else:
        from kpm.datasets.show import plot_samples as plot
    target = out or paths.figures() / f"data_{dataset.name}.png"
    figure = plot(dataset)
    with atomic(target) as part:
        figure.savefig(part, format=target.suffix.removeprefix(".") or "png", dpi=150)
    print(f"{dataset.name} ({dataset.source}): {target}")
    return 0


def _size(count: int) -> str:
    if not count:
        return "?"
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
