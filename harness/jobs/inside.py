"""What runs in the batch job: `harness run --in-job FOLDER`, the run itself without its ingest."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from harness.progress import Narrator
from harness.session import plan_run, record_run
from harness_schemas.errors import ExitCode, HarnessError, UsageError
from harness_schemas.rundir import RunDir
from harness_schemas.spec import RunSpec
from harness_slurm.job.marks import set_aside, task_run, write_begin, write_end
from harness_slurm.step.placement import Allocation

ENDED_BY_SLURM = 128 + signal.SIGTERM


KEPT = ("run_id", "name", "sweep_id", "cell", "cell_key", "repeat")
"""What run.json says of the run since it was submitted."""


class _StoppedBySlurm(BaseException):
    """SIGTERM outside of the launch, where nobody else takes it."""


def run_inside(root: RunDir, narrator: Narrator) -> int:
    """Run the folder's specification in this job; returns the workload's exit code.

    Raises:
        HarnessError: no job, or the run could not be started (the end mark says so too).
    """
    allocation = Allocation.read(os.environ)
    if allocation is None:
        raise UsageError("--in-job works inside a Slurm job only")
    task = allocation.array_task
    run = root if task is None else task_run(root, task)
    set_aside(run, allocation.restart)
    write_begin(run, allocation.shown_id, allocation.restart)
    code: int = ExitCode.HARNESS_FAILED
    try:
        with _stopped_early():
            code = _record(run, narrator)
    except _StoppedBySlurm:
        code = ENDED_BY_SLURM
    except HarnessError as error:
        code = error.exit_code
        raise
    finally:
        with contextlib.suppress(HarnessError):  # the accounting has the exit code too
            write_end(run, code, stopped=code == ENDED_BY_SLURM)
    return code


def _record(run: RunDir, narrator: Narrator) -> int:
    data = run.read()
    spec = RunSpec.model_validate(data["spec"])
    try:
        plan = plan_run(spec, run, bool(data.get("strict")))
    except HarnessError as error:
        said: dict[str, Any] = {"status": "failed", "verdict": "unknown"}
        run.write({**data, **said, "verdict_detail": error.message, "exit_code": error.exit_code})
        raise
    plan.capture.make_folders(run.artifacts)
    narrator.say(f"run {run.path}")
    kept = {name: data[name] for name in KEPT if name in data}
    return record_run(plan, narrator, kept).exit_code


@contextlib.contextmanager
def _stopped_early() -> Iterator[None]:
    """Turn SIGTERM into an exception, and outlive the warning, where no step runs yet."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _StoppedBySlurm

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, stop),
        signal.SIGUSR2: signal.signal(signal.SIGUSR2, signal.SIG_IGN),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
