"""From a submitted job to its answer, in this process or a later one."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

from harness.conclude import RunResult
from harness.jobs.finish import finish
from harness.jobs.follow import Follower
from harness.progress import Narrator
from harness_schemas.errors import ExitCode, UsageError
from harness_schemas.rundir import RunDir
from harness_slurm.job.controller import Controller
from harness_slurm.job.marks import JobRecord


@dataclass(frozen=True)
class JobAnswer:
    """Where a job's run is, and how its runs ended; none while the job goes on without us."""

    run: RunDir
    job_id: str
    results: tuple[RunResult, ...]
    exit_code: int


def see_through(
    run: RunDir, record: JobRecord, narrator: Narrator, controller: Controller | None = None
) -> JobAnswer:
    """Follow a job to its end, then account, judge and ingest.

    An interrupt leaves the job running, unless the user, asked on a terminal, has it cancelled.
    """
    controller = controller or Controller(record.cluster)
    follower = Follower(record, run, narrator, controller)
    while True:
        try:
            states = follower.wait()
            follower.settle()
            break
        except KeyboardInterrupt:
            if not _cancels(record.job_id, narrator):
                return leave(run, record, narrator, ExitCode.INTERRUPTED)
            controller.cancel(record.job_id)
            narrator.say(f"job {record.job_id} is being cancelled")
    results = tuple(finish(run, record, states, narrator))
    return JobAnswer(run, record.job_id, results, first_failure(results))


def leave(run: RunDir, record: JobRecord, narrator: Narrator, code: int) -> JobAnswer:
    """Say how to come back to a job that goes on."""
    narrator.say(f"job {record.job_id} goes on; come back with")
    narrator.say(f"  harness run --attach {record.job_id}" + _output_of(run))
    return JobAnswer(run, record.job_id, (), code)


def _output_of(run: RunDir) -> str:
    from harness.runs.folders import runs_root

    root = run.path.parent.absolute()
    return "" if root == runs_root().absolute() else f" --output {root}"


def _cancels(job: str, narrator: Narrator) -> bool:
    if not (narrator.interactive and sys.stdin.isatty()):
        return False
    question = f"cancel job {job}, or leave it running?"
    try:
        answer: str = click.prompt(
            question, type=click.Choice(["cancel", "leave"]), default="leave", err=True
        )
    except (click.Abort, KeyboardInterrupt):
        return False
    return answer == "cancel"


def job_of(run: RunDir) -> JobRecord:
    """The job of a run.

    Raises:
        UsageError: it was not submitted.
    """
    record = JobRecord.read(run)
    if record is None:
        raise UsageError(f"{run.path} was not submitted to Slurm", "`harness list` shows the runs")
    return record


def first_failure(results: tuple[RunResult, ...]) -> int:
    """The exit code of the first run that did not end with 0; 0 where all did."""
    return next((result.exit_code for result in results if result.exit_code), 0)
