"""`harness run -- sbatch THEIRS`: submit it as it is, with marks and samplers around it."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.jobs.submit import make_tasks, note_job, told_if_refused
from harness.progress import Narrator
from harness.session import traced
from harness.setup.capture import Capture, plan_wrap_capture
from harness.setup.record import first_record
from harness_schemas.errors import UsageError
from harness_schemas.rundir import RunDir, create_run, name_run
from harness_schemas.spec.slurm import array_tasks
from harness_slurm.job.arguments import (
    Line,
    asked,
    directive_line,
    directives,
    kept_directives,
    split_line,
)
from harness_slurm.job.controller import Controller
from harness_slurm.job.marks import JobRecord, folder
from harness_slurm.job.wrap_script import render_wrap

PASSED_THROUGH = ("help", "h", "usage", "version", "V", "test-only")
"""With these sbatch submits nothing."""
HELD_BACK = ("wait", "W", "quiet", "Q")
"""We wait ourselves, and need the job's id: with `--quiet` sbatch does not say it."""
_ANY_BYTES = "surrogateescape"
"""Scripts are not always UTF-8: what is none goes through unchanged."""


@dataclass(frozen=True)
class SbatchPlan:
    """Somebody's sbatch line, and what will be submitted for it."""

    line: Line
    run: RunDir
    name: str
    theirs: str
    capture: Capture
    tasks: tuple[int, ...]
    argv: tuple[str, ...]

    @property
    def copy(self) -> Path:
        """Where their script is kept and run from."""
        return folder(self.run) / "theirs"

    def script(self, trace: dict[str, str]) -> str:
        """The script that is submitted."""
        return render_wrap(
            self.run.path,
            self.copy,
            kept_directives(directives(self.theirs), *HELD_BACK),
            {**self.capture.env, **trace},
            _agent(self.capture),
            tuple(self.capture.plans),
        )

    def describe(self) -> str:
        """What `--dry-run` prints."""
        text = f"# {shlex.join(self.argv)}\n{self.script({})}".rstrip("\n")
        return text.encode(errors=_ANY_BYTES).decode(errors="replace")

    def said(self, printed: str) -> str:
        """What sbatch itself would have said, of what it printed."""
        return "" if self.line.value("quiet", "Q") is not None else printed.rstrip("\n")


def _agent(capture: Capture) -> tuple[str, ...]:
    if not capture.samplers:
        return ()
    module = (sys.executable, "-P", "-m", "harness_collectors.agent")
    return (*module, "--samplers", capture.samplers_json())


def plan_sbatch(argv: Sequence[str], output: Path, name: str | None) -> SbatchPlan | None:
    """Plan the submission of an sbatch line; None where it submits nothing (`--help`).

    Raises:
        UsageError: the script cannot be read, or is a heterogeneous job.
    """
    line = split_line(argv[1:], "sbatch")
    if line.value(*PASSED_THROUGH) is not None:
        return None
    heterogeneous = line.rest[:1] == (":",)
    theirs, title, arguments = ("", "", ()) if heterogeneous else _their_script(line)
    script_line = directive_line(directives(theirs))
    if heterogeneous or {"hetjob", "packjob"} & set(script_line.rest):
        raise UsageError(
            "heterogeneous jobs cannot be wrapped",
            "wrap the srun lines inside: `harness run -- srun ...`",
        )
    array = asked(line, script_line, os.environ, "a", "array", variable="SBATCH_ARRAY_INX")
    run = name_run(output.absolute(), name or title)
    own = line.without(*HELD_BACK, "wrap")
    if asked(line, script_line, os.environ, "J", "job-name", variable="SBATCH_JOB_NAME") is None:
        own = (*own, f"--job-name={title}")
    return SbatchPlan(
        line,
        run,
        name or title,
        theirs,
        plan_wrap_capture(run.path, elsewhere=True),
        tuple(array_tasks(array)) if array else (),
        (argv[0], *own, str(folder(run) / "script.sh"), *arguments),
    )


def _their_script(line: Line) -> tuple[str, str, tuple[str, ...]]:
    """Text, name and arguments of what they submit: a file, `--wrap`, or standard input."""
    wrapped = line.value("wrap")
    if wrapped is not None:
        return f"#!/bin/sh\n{wrapped}\n", "wrap", ()
    if not line.rest:
        return _checked(sys.stdin.buffer.read(), "standard input"), "sbatch", ()
    path = _found(line.rest[0], line.value("chdir", "D"))
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the script {path}: {error.strerror}") from None
    return _checked(text, str(path)), path.name, line.rest[1:]


def _found(name: str, folder: str | None) -> Path:
    """Where sbatch looks for a script: in the job's folder, on PATH, here."""
    places = [folder or ".", *os.get_exec_path()]
    found = (path for place in places if (path := Path(place, name)).is_file())
    return next(found, Path(name))


def _checked(text: bytes, where: str) -> str:
    if not text.startswith(b"#!"):
        raise UsageError(f"{where} does not begin with #!, which sbatch wants")
    if b"\r\n" in text:
        raise UsageError(f"{where} has DOS line ends, which sbatch refuses", "dos2unix")
    return text.decode(errors=_ANY_BYTES)


def submit_wrapped(
    plan: SbatchPlan, narrator: Narrator, controller: Controller
) -> tuple[JobRecord, str]:
    """Submit the plan; returns the job and what sbatch printed.

    Raises:
        HarnessError: the folder cannot be made, or sbatch refused.
    """
    run = plan.run
    create_run(run)
    plan.capture.make_folders(run.artifacts)
    folder(run).mkdir()
    plan.copy.write_text(plan.theirs, encoding="utf-8", errors=_ANY_BYTES)
    plan.copy.chmod(0o755)
    make_tasks(run, plan.tasks, _record(plan))
    with traced(run, plan.name) as trace:
        script = folder(run) / "script.sh"
        script.write_text(plan.script(trace), encoding="utf-8", errors=_ANY_BYTES)
        with told_if_refused(run):
            job_id, cluster, printed = controller.submit(plan.argv)
    record = JobRecord(job_id, "wrap", cluster, plan.tasks, time.time_ns())
    note_job(run, record)
    narrator.say(f"run {run.path}")
    for note in plan.capture.notes:
        narrator.say(note)
    return record, printed


def _record(plan: SbatchPlan) -> dict[str, Any]:
    data = first_record(
        plan.name,
        "submitted",
        ("sbatch", *plan.line.without(), *plan.line.rest),
        run_id=plan.run.run_id,
        command="sbatch",
        collection=list(plan.capture.skipped),
    )
    script = hashlib.sha256(plan.theirs.encode(errors=_ANY_BYTES)).hexdigest()[:12]
    data["provenance"]["script"] = script
    return data
