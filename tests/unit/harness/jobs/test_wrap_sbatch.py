"""What becomes of somebody's sbatch line: `harness run -- sbatch`."""

from __future__ import annotations

import io
import os
from types import SimpleNamespace

import pytest

from harness.jobs.wrap import plan_sbatch, submit_wrapped
from harness.progress import Narrator
from harness_schemas.errors import UsageError
from harness_slurm.job.controller import Controller


def planned(tmp_path, *argv):
    plan = plan_sbatch(("sbatch", *argv), tmp_path / "runs", None)
    assert plan is not None
    return plan


def fake_sbatch(tmp_path, monkeypatch):
    """An sbatch that keeps what it is given; returns the file."""
    seen = tmp_path / "seen"
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$* wait=$SBATCH_WAIT" >{seen}\necho Submitted batch job 7\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return seen


def test_sbatch_neither_waits_nor_keeps_the_job_id_to_itself(tmp_path, monkeypatch):
    seen = fake_sbatch(tmp_path, monkeypatch)
    monkeypatch.setenv("SBATCH_WAIT", "1")
    script = tmp_path / "a.sh"
    script.write_text("#!/bin/sh\n#SBATCH -N1 --wait\n#SBATCH -Q\ntrue\n")
    plan = planned(tmp_path, "-Q", "-W", str(script), "-Q")
    record, printed = submit_wrapped(plan, Narrator(quiet=True), Controller())
    assert record.job_id == "7" and plan.said(printed) == ""
    assert seen.read_text() == f"--job-name=a.sh {plan.run.path}/job/script.sh -Q wait=\n"
    submitted = (plan.run.path / "job" / "script.sh").read_text()
    assert (
        "#SBATCH -N1\n" in submitted and "--wait" not in submitted and "#SBATCH -Q" not in submitted
    )


def test_a_script_goes_through_byte_by_byte(tmp_path, monkeypatch):
    fake_sbatch(tmp_path, monkeypatch)
    text = b"#!/bin/sh\n#SBATCH --comment=caf\xe9\necho \xff\n"
    (tmp_path / "latin.sh").write_bytes(text)
    plan = planned(tmp_path, str(tmp_path / "latin.sh"))
    plan.describe().encode()
    submit_wrapped(plan, Narrator(quiet=True), Controller())
    assert plan.copy.read_bytes() == text
    assert b"--comment=caf\xe9\n" in (plan.run.path / "job" / "script.sh").read_bytes()


def test_scripts_are_found_where_sbatch_finds_them(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "a.sh").write_text("#!/bin/sh\n# there\n")
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "b.sh").write_text("#!/bin/sh\n# on PATH\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert "# there" in planned(tmp_path, "-D", "there", "a.sh").theirs
    assert "# on PATH" in planned(tmp_path, "b.sh").theirs


def test_a_refused_job_does_not_look_submitted(tmp_path, monkeypatch):
    fake_sbatch(tmp_path, monkeypatch)
    refusing = tmp_path / "bin" / "sbatch"
    refusing.write_text("#!/bin/sh\necho sbatch: error: no such account >&2\nexit 1\n")
    plan = planned(tmp_path, "--wrap=true")
    with pytest.raises(UsageError, match="no such account"):
        submit_wrapped(plan, Narrator(quiet=True), Controller())
    data = plan.run.read()
    assert data["status"] == "failed" and "no such account" in data["verdict_detail"]


@pytest.mark.parametrize(
    ("argv", "text", "says"),
    [
        (["-N1", ":", "-N2", "a.sh"], b"#!/bin/sh\n", "heterogeneous jobs cannot be wrapped"),
        (["a.sh"], b"#!/bin/sh\n#SBATCH hetjob\n", "heterogeneous jobs cannot be wrapped"),
        (["no.sh"], b"", "cannot read the script no.sh: No such file or directory"),
        (["a.sh"], b"echo\n", "a.sh does not begin with #!"),
        (["a.sh"], b"#!/bin/sh\r\ntrue\r\n", "a.sh has DOS line ends"),
        ([], b"echo\n", "standard input does not begin with #!"),
    ],
)
def test_what_cannot_be_submitted_is_told(tmp_path, monkeypatch, argv, text, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.sh").write_bytes(text)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text)))
    with pytest.raises(UsageError) as refused:
        planned(tmp_path, *argv)
    assert says in refused.value.message
