"""Rules that the whole source keeps: sizes, imports, words that must not appear."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("harness", "collectors", "runners", "slurm", "analysis", "schemas", "benchmarks")
PROJECT = (*CODE, "tests", "docs", "examples", ".ci")
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")
TEXT = {".py", ".md", ".toml", ".sql", ".sh", ".svg", ".html", ".css", ".js", ".def", ".j2", ""}


def files(folders, suffixes):
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in suffixes and path.is_file() and "__pycache__" not in path.parts
    )


def nodes(kinds):
    """(place, lines) of every definition of these kinds in the source."""
    for path in files(CODE, {".py"}):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, kinds):
                place = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                yield place, node.end_lineno - node.lineno + 1


def test_functions_are_short():
    sizes = dict(nodes((ast.FunctionDef, ast.AsyncFunctionDef)))
    assert len(sizes) > 100
    assert {place: lines for place, lines in sizes.items() if lines > 80} == {}
    long = {place: lines for place, lines in sizes.items() if lines >= 40}
    assert len(long) <= len(sizes) / 10, long


def test_classes_are_short():
    assert {place: lines for place, lines in nodes(ast.ClassDef) if lines > 250} == {}


def test_files_are_short():
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in files((*CODE, "tests"), {".py", ".sql"})
    }
    assert {name: lines for name, lines in sizes.items() if lines > 500} == {}


def test_source_is_ascii():
    odd = {
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*files([*CODE, "tests"], {".py", ".sql", ".toml"}), ROOT / "Makefile"]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if not line.isascii()
    }
    assert odd == set()


# Spelled so that this file does not hold what it forbids.
REGISTRIES = ("py" + "pi.org", "python" + "hosted", "download.py" + "torch", "ana" + "conda.org")
MACHINE = re.compile(r"(?<![\w.$}/-])/(?:work|root|opt/(?:wheels|py" + r"pi))(?![\w-])")


def test_no_file_names_a_registry_or_a_path_of_one_machine():
    found = []
    for path in [*files(PROJECT, TEXT), *(ROOT / name for name in TOP)]:
        if not path.exists():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if any(name in line for name in REGISTRIES) or MACHINE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}")
    assert found == []


@pytest.mark.parametrize("text", ["cd /" + "work/main", "'/" + "root'", "/" + "opt/wheels"])
def test_a_path_of_one_machine_is_recognised(text):
    assert MACHINE.search(text)


@pytest.mark.parametrize("text", ["$HOME/work/x", "a/root", "/workspace", "/roots"])
def test_other_paths_are_not(text):
    assert not MACHINE.search(text)


def test_imports_keep_their_direction():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def imported(tree, modules):
    """Modules of ours that a file imports anywhere in it, for types alone too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in inside if name in modules]
            yield from found
            if len(found) < len(inside) and node.module in modules:
                yield node.module


def test_no_module_needs_one_that_needs_it():
    """Two that need each other are one, or share something that belongs into a third."""
    modules = {}
    for path in files(CODE[:-1], {".py"}):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts if parts[0] == "harness" else parts[1:])
        modules[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    needs = {name: set(imported(tree, modules)) - {name} for name, tree in modules.items()}
    assert len(needs) > 300
    while free := [name for name, needed in needs.items() if not needed & needs.keys()]:
        for name in free:
            del needs[name]
    # What is left lies on a circle, or above one.
    assert sorted(needs) == []


HEAVY = ("torch", "duckdb", "pyarrow", "plotly", "pydantic")
HELP = f"""
import json, sys
sys.argv = ["harness", "--help"]
try:
    from harness.__main__ import main
    main()
except SystemExit as end:
    loaded = [name for name in {HEAVY!r} if name in sys.modules]
    json.dump({{"code": end.code or 0, "loaded": loaded}}, sys.stderr)
"""


def test_help_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True)
    assert json.loads(done.stderr.splitlines()[-1]) == {"code": 0, "loaded": []}
    assert "harness" in done.stdout


def test_every_top_folder_leaves_the_users_own_package_alone():
    # A folder without __init__.py never shadows a package of the same name elsewhere.
    for folder in ("collectors", "runners", "slurm", "analysis", "schemas"):
        assert not (ROOT / folder / "__init__.py").exists()
