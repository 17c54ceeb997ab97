"""The notebook of a sweep's figures: written from the table, executed, for the reader of the sweep."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from kpm import files
from kpm.workbook import runner
from kpm.workbook.runner_plan import NotebookRun

_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def write(folder: Path, name: str, parameters: list[str]) -> NotebookRun:
    """Write and execute ``NAME_sweep.ipynb`` in the folder of a sweep, beside its ``sweep.csv``, and a page of it.

    How that went is returned; the notebook is put in place only if it succeeded.
    """
    stem = f"{name}_sweep"
    made = folder / ".figures"
    files.write_text(made / f"{stem}.ipynb", nbformat.writes(_notebook(folder, name, parameters)) + "\n")
    done = runner.run([str(made / f"{stem}.ipynb")], out=made).notebooks[0]
    if done.state == "succeeded":
        for kind in ("ipynb", "html"):
            shutil.move(made / stem / f"{stem}.{kind}", folder / f"{stem}.{kind}")
    shutil.rmtree(made)
    return done


def _notebook(folder: Path, name: str, parameters: list[str]) -> nbformat.NotebookNode:
    first = 'profile = "quick"\nseed = 0\ndevice = "cpu"\nout_dir = None\n'
    first += f"table_file = {str(folder / 'sweep.csv')!r}\nparameters = {parameters!r}"
    cells = [
        new_markdown_cell(f"# Sweep of `{name}`\n\nOne row per run. Points are runs, lines their means."),
        new_code_cell(first, metadata={"tags": ["parameters"]}),
        new_code_cell(
            "import pandas as pd\n\n"
            "from kpm.workbook import session, sweep_plots\n\n"
            f'run = session.start("{name}_sweep", profile, seed, device, out_dir)\n'
            "table = pd.read_csv(table_file)\n"
            "table.state.value_counts()"
        ),
        new_code_cell("table"),
        new_code_cell(
            "along, colour = sweep_plots.axes_of(table, parameters)\n"
            "good = table[table.state == 'succeeded']\n"
            "for result in sweep_plots.results_of(good, parameters) if along and len(good) else []:\n"
            "    run.show(sweep_plots.plot_sweep(good, result, along, colour), result.replace('/', '_'))"
        ),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": _KERNEL})
