"""``kpm``: the command line. Each command is a function; its arguments are its flags."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from kpm.errors import UserError, pick

# name: (module, function, one line of help); modules are imported only when their command is used.
COMMANDS = {
    "run": ("kpm.workbook.runner", "run_command", "run notebooks with papermill"),
    "search": ("kpm.workbook.search_command", "search_command", "random search of a model's settings"),
    "sweep": ("kpm.workbook.sweep_command", "sweep_command", "run a notebook over a grid of parameters"),
    "train": ("kpm.training.command", "train_command", "train a model on a dataset"),
    "ablate": ("kpm.workbook.ablations", "ablate_command", "SSM-SKD without LSTMs and with losses on swaps, seeds"),
    "evaluate": ("kpm.workbook.evaluate", "evaluate_command", "swap, decode and judge: factor table, D_sd, D_mf"),
    "explore": ("kpm.workbook.explore_page", "explore_command", "explore a checkpoint in the browser"),
    "partition": ("kpm.workbook.partition", "partition_command", "which static components carry which factor"),
    "kann": ("kpm.workbook.kann_command", "kann_command", "Koopman analysis of a trained recurrent network"),
    "dse vdp": ("kpm.workbook.dse_spectra", "vdp_command", "spectra of Van der Pol's oscillator, all methods"),
    "dse sl": ("kpm.workbook.dse_spectra", "sl_command", "spectra of the Stuart-Landau oscillator, all methods"),
    "dse quadlink": ("kpm.workbook.dse_quadlink", "quadlink_command", "predict films of the quad-link pendulum"),
    "kae mnist": ("kpm.workbook.kae_command", "mnist_command", "layers of a classifier of digits as a linear system"),
    "kae yinyang": ("kpm.workbook.kae_command", "yinyang_command", "the same on points of a plane"),
    "sim toys": ("kpm.workbook.sim_toys", "toys_command", "limit sets with known answers, and the rank they need"),
    "sim mnist": ("kpm.workbook.sim_mnist", "mnist_command", "invariant, equilibrium and feed-forward models"),
    "publish": ("kpm.workbook.publish", "publish_command", "ship the best weights of a run with what they measure"),
    "data list": ("kpm.datasets.command", "data_list", "datasets and where they are"),
    "data fetch": ("kpm.datasets.command", "data_fetch", "get a dataset, hash-checked"),
    "data show": ("kpm.datasets.command", "data_show", "samples: a picture per factor, or texts"),
    "results": ("kpm.workbook.results", "results_command", "our figures beside the papers'"),
    "bench": ("kpm.workbook.bench", "bench_command", "speed ratios to a named reference"),
    "student": ("kpm.workbook.notebooks", "student_command", "copies of the notebooks without solutions"),
    "report": ("kpm.environment", "report_command", "the environment report"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status (2 for a mistake in what was asked, with one line that says which)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if not argv or argv[0] in ("-h", "--help"):
            print(usage())
            return 0
        if argv[0] == "--version":
            from kpm import __version__

            print(__version__)
            return 0
        name, rest = _command(argv)
        if name is None:
            print(usage(argv[0]))
            return 0
        module, function, _ = COMMANDS[name]
        command = getattr(importlib.import_module(module), function)
        return int(call(command, rest, f"kpm {name}") or 0)
    except UserError as error:
        print(f"kpm: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `kpm ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ArithmeticError, OSError) as error:  # a loss that is not finite; a disk that is full
        print(f"kpm: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("kpm: interrupted", file=sys.stderr)
        return 130


def usage(group: str = "") -> str:
    """The list of commands, of one group (``"data"``) or all."""
    shown = {k: v for k, v in COMMANDS.items() if not group or k.split()[0] == group}
    width = max(map(len, shown)) + 2
    lines = [f"  {name:<{width}}{text}" for name, (_, _, text) in shown.items()]
    return "\n".join(["usage: kpm COMMAND [ARGUMENTS]", "", *lines, "", "kpm COMMAND --help says more."])


def _command(argv: list[str]) -> tuple[str | None, list[str]]:
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    if argv[0] in groups:
        if len(argv) == 1 or argv[1] in ("-h", "--help"):
            return None, []
        words = [name.split()[1] for name in COMMANDS if name.startswith(argv[0] + " ")]
        return f"{argv[0]} {pick(f'{argv[0]} command', argv[1], words)}", argv[2:]
    return pick("command", argv[0], groups | {n for n in COMMANDS if " " not in n}), argv[1:]


def call(command: Callable[..., Any], argv: Sequence[str], prog: str) -> Any:
    """Parse `argv` by the signature of `command` and call it; an unknown flag is one line with the nearest names.

    A command with an attribute ``prepare`` gets `argv` first and answers with the function to parse for and the rest of
    `argv`: that is how defaults can depend on what is asked for. The words it takes off the front belong to the name
    of the command in help and errors (``kpm train copy``).
    """
    import tyro

    if hasattr(command, "prepare"):
        command, rest = command.prepare(list(argv))
        prog, argv = " ".join([prog, *argv[: len(argv) - len(rest)]]), rest

    @functools.wraps(command)
    def later(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return lambda: command(*args, **kwargs)

    try:
        with contextlib.redirect_stderr(io.StringIO()) as complaint:
            run, unknown = tyro.cli(later, args=list(argv), prog=prog, return_unknown_args=True)
    except SystemExit as error:
        if error.code:
            raise UserError(_one_line(complaint.getvalue(), prog)) from None
        raise
    if unknown:
        with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
            tyro.cli(later, args=["--help"], prog=prog)
        flags = sorted(set(re.findall(r"--[a-z][\w-]*", text.getvalue())))
        near = difflib.get_close_matches(unknown[0], flags, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"see {prog} --help"
        raise UserError(f"unknown argument {unknown[0]!r}; {hint}")
    return run()


def _one_line(complaint: str, prog: str) -> str:
    """What tyro says in a box over many lines, as one."""
    text = re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯]", "", complaint)
    said: list[str] = []
    for line in (line.strip() for line in text.splitlines()):
        if set(line) <= set("─ ") or line.startswith("For full helptext"):
            if said and set(line) == {"─"}:
                break
            continue
        if not line.startswith("─"):
            said.append(line)
    return f"{' '.join(said)} (see {prog} --help)"


if __name__ == "__main__":
    sys.exit(main())
