"""The table names tests that exist, and all of those here."""

import ast
import re
from pathlib import Path

from kpm import paths

HERE = Path(__file__).parent


def functions_of(path: Path) -> set[str]:
    return {n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef)}


def test_every_test_of_the_table_exists_and_every_test_is_in_the_table():
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (HERE / "README.md").read_text()))
    assert named
    for file, name in named:
        assert name in functions_of(paths.root() / file), f"{file}::{name}"
    for path in set(HERE.glob("test_*.py")) - {Path(__file__)}:
        file = path.relative_to(paths.root()).as_posix()
        missing = {(file, name) for name in functions_of(path) if name.startswith("test_")} - named
        assert not missing, missing
