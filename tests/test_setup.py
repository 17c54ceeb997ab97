"""The project's own files agree with one another."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = [d for extra in PROJECT["optional-dependencies"].values() for d in extra]


def name(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def test_environment_yml_has_the_dependencies_of_pyproject():
    text = (ROOT / "environment.yml").read_text()
    listed = re.findall(r"^      - ([a-z].*)$", text, re.M)
    assert sorted(listed) == sorted(PROJECT["dependencies"])
    assert f"python{PROJECT['requires-python']}" in text
    extras = re.search(r"--editable \.\[(.*)\]", text)
    assert extras and set(extras[1].split(",")) == set(PROJECT["optional-dependencies"])


def test_dependencies_have_lower_bounds_only_and_tested_versions_above_them():
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(), re.M))
    pinned = {name(k): v for k, v in pinned.items()}
    numbers = lambda v: [int(n) for n in re.findall(r"\d+", v)]  # noqa: E731
    for requirement in PROJECT["dependencies"] + OPTIONAL:
        match = re.fullmatch(r"[\w.-]+>=([\d.]+)", requirement)
        assert match, f"{requirement}: expected NAME>=VERSION"
        assert numbers(pinned[name(requirement)]) >= numbers(match[1]), requirement


def test_what_the_package_imports_is_declared():
    import ast
    import importlib.metadata
    import sys

    declared = {name(r) for r in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["topology"]}
    top_level = importlib.metadata.packages_distributions()
    for path in (ROOT / "kpm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for module in (m.split(".")[0] for m in modules):
                if module in sys.stdlib_module_names or module == "kpm":
                    continue
                owners = {name(d) for d in top_level.get(module, [module])}
                # IPython and its kin come with any kernel that runs a notebook.
                assert owners & (declared | {"ipython", "traitlets", "jinja2"}), f"{path.name} imports {module}"


@pytest.mark.parametrize("command", ["make run", "make test"])
def test_readme_names_the_two_commands_of_the_makefile(command):
    assert command in (ROOT / "README.md").read_text()
    assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)


def test_makefile_has_exactly_the_two_commands():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony and phony[1].split() == ["run", "test"]


def test_ci_calls_make_test():
    assert "exec make test" in (ROOT / ".ci/run").read_text()


def test_readme_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text()):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_examples_of_the_readme_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_map_of_the_first_notebook_has_a_line_for_every_notebook():
    folder = ROOT / "notebooks"
    cells = json.loads((folder / "00_start_here.ipynb").read_text())["cells"]
    (chart,) = (text for c in cells if (text := "".join(c["source"])).startswith("## The map"))
    stems = sorted(path.stem for path in folder.glob("[0-9][0-9]_*.ipynb"))
    assert re.findall(r"^\| `(\d\d_\w+)` \|", chart, re.M) == stems
