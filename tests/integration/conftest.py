"""Real components that several files share."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import slurm_jobs as jobs
from xdist.scheduler import LoadScopeScheduling

SLURM = Path(__file__).with_name("slurm")
"""Where tests lie that use the one Slurm there is."""


class _ByFile(LoadScopeScheduling):
    """A file goes to one worker, for its fixtures; all that use Slurm, which is one, to the same.

    xdist's own groups are ids with an ending that pytest 9.2 lets nobody add.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "slurm" if f"/{SLURM.name}/" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """How workers share these tests."""
    return _ByFile(config, log)


def pytest_itemcollected(item: pytest.Item) -> None:
    """A file of which nobody knows that it needs Slurm would run beside others that do."""
    if "slurm" in getattr(item, "fixturenames", ()) and SLURM not in item.path.parents:
        raise pytest.UsageError(f"{item.path.name} uses Slurm: its place is {SLURM}")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test` gives those that failed a second chance, with nothing beside them."""
    parser.addoption("--failed-to", type=Path, help="append the ids of tests that fail to a file")


class _Failed:
    def __init__(self, path: Path) -> None:
        self._path = path

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._path.parent.mkdir(exist_ok=True)
            with self._path.open("a") as stream:
                stream.write(f"{report.nodeid}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Only where results come together, not in xdist's workers."""
    path = config.getoption("--failed-to")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Failed(path))


@pytest.fixture(scope="session")
def slurm() -> None:
    """A real Slurm of two nodes with accounting (tests/integration/tools/slurm_up.sh)."""
    if shutil.which("sbatch") is None:
        pytest.skip("no Slurm here: tests/integration/tools/slurm_up.sh makes one")
    try:
        nodes = subprocess.run(
            ["sinfo", "-hN", "-p", "debug", "-o", "%N %T"],
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout
    except subprocess.TimeoutExpired:
        nodes = ""
    if sum(line.endswith(("idle", "mixed", "allocated")) for line in nodes.splitlines()) < 2:
        pytest.skip("Slurm does not run: tests/integration/tools/slurm_up.sh starts it")


@pytest.fixture(scope="session")
def overlong_job(tmp_path_factory, slurm):
    """A wrapped job that runs into its limit of a minute while other tests are at work."""
    folder = tmp_path_factory.mktemp("overlong")
    name = jobs.script(folder, "long.sbatch", f"{jobs.RANK} 600\n", "#SBATCH --time=1\n")
    code, out, err = jobs.harness("run", "--detach", "--", "sbatch", name, cwd=folder)
    assert code == 0, err
    job = jobs.job_of(jobs.latest(folder))
    assert out.strip() == f"Submitted batch job {job}"
    assert f"harness run --attach {job}" in err
    yield folder, job
    subprocess.run(["scancel", "--quiet", job], capture_output=True)
