"""The built wheel: complete, light, and at home beside packages of the same common names."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
EXTRAS_ONLY = ("torch", "deepspeed", "transformers", "pytest")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("inference_harness-*.whl")
    return built


def tree():
    """Every file of the packages, by its name in the wheel."""
    return {
        str(path.relative_to((ROOT / package).parent))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_the_trees_modules_and_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    assert names == tree()
    assert any(name.endswith(".sql") for name in names)
    assert any(name.endswith(".jsonl") for name in names)
    assert len(licences) == 1


def base_distributions():
    """The base dependencies and theirs, as installed here; no extra among them."""
    found, todo = {}, [Requirement(text) for text in PROJECT["project"]["dependencies"]]
    while todo:
        requirement = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        distribution = metadata.distribution(requirement.name)
        if distribution.name not in found:
            found[distribution.name] = distribution
            todo += [Requirement(text) for text in distribution.requires or []]
    return list(found.values())


def lend(distribution, site):
    """Link a distribution's top-level packages and modules into another site-packages."""
    tops = {path.parts[0] for path in distribution.files if path.parts[0] not in ("..", ".")}
    for top in tops - {"__pycache__"}:
        link = site / top
        if not link.exists():
            link.symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory):
    """A fresh environment that holds the wheel and its base dependencies only."""
    venv = tmp_path_factory.mktemp("light") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", wheel], check=True)
    (site,) = (venv / "lib").glob("python*/site-packages")
    for distribution in base_distributions():
        lend(distribution, site)
    return venv


@pytest.fixture
def desk(tmp_path):
    """A user's folder with a run in it and packages named as this project's folders are."""
    for name in ("collectors", "schemas"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')\n")
    for name in ("analysis.py", "runners.py", "slurm.py"):
        (tmp_path / name).write_text("raise RuntimeError('the wrong module')\n")
    shutil.copytree(ROOT / "tests/fixtures/runs/tiny2x2", tmp_path / "tiny2x2")
    return tmp_path


@pytest.fixture
def harness(light, desk):
    def run(*words):
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(desk), "PYTHONPATH": str(desk)}
        command = [light / "bin" / "harness", *words]
        done = subprocess.run(command, cwd=desk, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_environment_is_light(light):
    code = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    command = [light / "bin" / "python", "-c", code, *EXTRAS_ONLY]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_light_wheel_ingests_queries_and_reports_beside_foreign_packages(harness, desk):
    harness("ingest", "tiny2x2", "-o", "tiny2x2/run.duckdb")
    ranks = harness("query", "tiny2x2", "SELECT count(DISTINCT rank) AS n FROM spans", "--csv")
    assert ranks.split() == ["n", "4"]
    units = harness("query", "tiny2x2", "SELECT count(*) > 0 AS some FROM step_breakdown", "--csv")
    assert units.split() == ["some", "true"]
    assert "decode" in harness("report", "tiny2x2")
