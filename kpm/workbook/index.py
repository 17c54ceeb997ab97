"""The pages a run leaves behind: one HTML page per executed notebook and ``index.html`` over all of them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from nbformat import NotebookNode

from kpm import files
from kpm.workbook import notebooks
from kpm.workbook.runner_plan import NotebookRun, read_status
from kpm.workbook.runner_table import duration, memory

_WIDGET = "application/vnd.jupyter.widget-view+json"
_NO_WIDGET = "*Interactive control: open the notebook in JupyterLab to use it.*"
_FIGURES = (".png", ".svg")

# nbconvert's page without what it would fetch from other hosts (require.js, widgets, mermaid). MathJax stays: where
# it cannot be reached, formulas show as TeX.
_PAGE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
"""

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1b1b; --dim: #666; --line: #ddd; --link: #0b57a4;
        --good: #1a7f37; --bad: #b3261e; --panel: #f6f6f6; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #16181b; --text: #e6e6e6; --dim: #9aa0a6; --line: #3a3d41; --link: #7fb4f0;
          --good: #6fce8b; --bad: #ff8a80; --panel: #202327; } }
body { background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; max-width: 72rem;
       margin: 2rem auto; padding: 0 1rem; }
a { color: var(--link); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.succeeded, .unchanged { color: var(--good); } .failed, .interrupted, .skipped { color: var(--bad); }
.dim { color: var(--dim); }
section { margin-top: 2.5rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; max-width: 22rem; } figcaption { font-size: .85rem; color: var(--dim); }
figure img { max-width: 100%; background: #fff; border: 1px solid var(--line); }
pre { background: var(--panel); padding: 1rem; overflow-x: auto; font-size: .85rem; }
code { background: var(--panel); padding: 0 .2rem; }
"""


def notebook_page(notebook: Path, page: Path, folder: Path) -> None:
    """Convert an executed notebook to one HTML file; images linked from its text are looked up in `folder`."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"kpm.html.j2": _PAGE})], template_file="kpm.html.j2", embed_images=True
    )
    resources = {"metadata": {"name": notebook.stem, "path": str(folder)}}
    body, _ = exporter.from_notebook_node(_without_widgets(notebooks.read(notebook)), resources)
    files.write_text(page, body)


def _without_widgets(notebook: NotebookNode) -> NotebookNode:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if _WIDGET in output.get("data", {}):
                output.data = {"text/markdown": _NO_WIDGET}
    notebook.metadata.pop("widgets", None)
    return notebook


def figures(folder: Path) -> list[Path]:
    """The PNG and SVG files below `folder`."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in _FIGURES and p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def write_index(out: Path, runs: Sequence[NotebookRun]) -> Path:
    """Write ``index.html``: the notebooks of this run, then those that earlier runs left in `out`."""
    now = {run.name for run in runs}
    folders = sorted(p.parent.name for p in out.glob("*/status.json"))
    earlier = [last for name in folders if name not in now and (last := read_status(out, name))]
    entries = sorted([*runs, *earlier], key=lambda run: run.name)
    when = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Workbook run</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Workbook run</h1>
<p class="dim">{when}; {len(runs)} notebooks in this run, {len(earlier)} from earlier ones</p>
<table>
<tr><th>notebook</th><th>state</th><th>profile</th><th class="n">time</th><th class="n">peak memory</th></tr>
{"".join(_row(run, run.name not in now) for run in entries)}</table>
{"".join(_section(run, out) for run in entries)}</body>
</html>
"""
    return files.write_text(out / "index.html", page)


def _row(run: NotebookRun, earlier: bool) -> str:
    note = ' <span class="dim">(earlier run)</span>' if earlier else ""
    return (
        f'<tr><td><a href="#{escape(run.name)}">{escape(run.name)}</a>{note}</td>'
        f'<td class="{escape(run.state)}">{escape(run.state)}</td><td>{escape(run.profile)}</td>'
        f'<td class="n">{duration(run.wall_s)}</td><td class="n">{memory(run.peak_bytes)}</td></tr>\n'
    )


def _section(run: NotebookRun, out: Path) -> str:
    results = f"{run.name}/results.json"
    files_there = [("read", run.page), ("notebook", run.notebook), ("results", results), ("log", f"{run.name}/log.txt")]
    links = " · ".join(
        f'<a href="{quote(path)}">{label}</a>' for label, path in files_there if path and (out / path).is_file()
    )
    parameters = ", ".join(f"<code>{escape(f'{name} = {value!r}')}</code>" for name, value in run.parameters.items())
    facts = [
        f'<span class="{escape(run.state)}">{escape(run.state)}</span>',
        duration(run.wall_s) + (f" (expected {duration(run.expected_s)})" if run.expected_s else ""),
        memory(run.peak_bytes),
        f"{run.cells_done} of {run.cells} code cells",
        f"started {escape(run.started)}" if run.started else "",
    ]
    parts = [
        f'<section id="{escape(run.name)}">\n<h2>{escape(run.name)}</h2>',
        f"<p>{'; '.join(filter(None, facts))}</p>",
        f"<p>{escape(run.reason)}</p>" if run.reason else "",
        f"<p>{parameters}</p>",
        f"<p>{links}</p>" if links else "",
        f"<pre>{escape(run.error)}</pre>" if run.error else "",
        _gallery(run, out),
        "</section>\n",
    ]
    return "\n".join(filter(None, parts))


def _gallery(run: NotebookRun, out: Path) -> str:
    """Thumbnails of the figures; one that is older than the run is marked so."""
    shown = []
    for path in figures(out / run.name):
        name = path.relative_to(out / run.name).as_posix()
        old = " (older than this run)" if _older(path, run.started) else ""
        link = quote(f"{run.name}/{name}")
        shown.append(
            f'<figure><a href="{link}"><img src="{link}" alt="{escape(name)}" loading="lazy"></a>'
            f"<figcaption>{escape(name)}{old}</figcaption></figure>"
        )
    return f'<div class="figures">\n{"".join(shown)}\n</div>' if shown else ""


def _older(path: Path, started: str) -> bool:
    if not started:
        return False
    return os.path.getmtime(path) < datetime.datetime.fromisoformat(started).timestamp() - 1
