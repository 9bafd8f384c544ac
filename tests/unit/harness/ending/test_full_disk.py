"""A run's folder that takes no more: the answer is built elsewhere, and the exit code stays."""

from __future__ import annotations

import io
import resource
import signal
from pathlib import Path

import pytest

from harness.conclude import build, conclude
from harness.ending.outcome import End, judge_run
from harness.ending.room import keep, why_full, with_disk, with_room
from harness.progress import Narrator
from harness_analysis.store import open_database
from harness_schemas.errors import LaunchError
from harness_schemas.rundir import RunDir, create_run


@pytest.fixture
def run(tmp_path):
    run = RunDir(tmp_path / "runs" / "a-run")
    create_run(run)
    run.write({"version": 1, "run_id": "a-run", "name": "a", "status": "running"})
    return run


@pytest.fixture
def full():
    """No file of this process may grow beyond nothing, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_folder_is_a_line_and_no_end(run, full):
    said = io.StringIO()
    keep(run, {"status": "failed"}, Narrator(stream=said))
    assert "cannot write" in said.getvalue() and why_full(run.path) == "File too large"
    assert run.read()["status"] == "running"
    end = with_disk(End(exit_code=1), run)
    assert end.kernel_lines == (f"File too large: {run.path}",)
    assert with_disk(End(exit_code=0), run) == End(exit_code=0)


def test_a_launch_that_failed_for_the_full_disk_says_so(run, full):
    told = with_room(LaunchError("the launcher ended", "see its log"), run)
    assert told.message == f"the launcher ended: File too large: {run.path}"
    assert told.hint and "--output" in told.hint and told.exit_code == 125


def test_the_full_disk_is_the_verdict_where_ranks_could_not_say_it(run):
    end = End(exit_code=1, kernel_lines=(f"No space left on device: {run.path}",))
    outcome = judge_run(run, end, None)
    assert (outcome.verdict, outcome.exit_code) == ("rank_failed", 1)
    assert "The disk or the quota is full" in (outcome.detail or "")


def test_the_database_is_built_where_there_is_room(run, tmp_path, monkeypatch):
    import harness.conclude as module

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(module.tempfile, "tempdir", None)
    real = module.ingest_run

    def refuses_the_folder(run, output=None, data=None, more=()):
        if output is None:
            raise OSError(28, "No space left on device")
        return real(run, output=output, data=data)

    monkeypatch.setattr(module, "ingest_run", refuses_the_folder)
    end = End(exit_code=3)
    data = {**run.read(), "end": end.to_json(), "exit_code": 3, "verdict": "rank_failed"}
    said = io.StringIO()
    result = conclude(run, judge_run(run, end, None), Narrator(stream=said), data)
    assert result.exit_code == 3 and not result.problems
    assert result.database is not None and run.path not in result.database.parents
    assert f"the database is {result.database}" in said.getvalue()
    with open_database(result.database) as con:
        assert con.execute("SELECT exit_code FROM runs").fetchall() == [(3,)]


def test_a_defect_of_ingest_is_told_and_kept(run, monkeypatch):
    def broken(run, **_):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("harness.conclude.ingest_run", broken)
    built = build(run)
    assert built.database is None and "ZeroDivisionError: division by zero" in built.problems[0]
    assert "Traceback" in Path(run.logs / "ingest.log").read_text()
