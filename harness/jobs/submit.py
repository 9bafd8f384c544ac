"""From a specification to a submitted job."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.progress import Narrator
from harness.setup.record import first_record
from harness_runners.files.cache import cache_dir
from harness_runners.preflight import preflight
from harness_schemas.errors import HarnessError, SpecError
from harness_schemas.rundir import RunDir, create_run, name_run
from harness_schemas.spec import RunSpec
from harness_schemas.spec.slurm import array_tasks
from harness_slurm.job.controller import Controller
from harness_slurm.job.marks import PARTS, JobRecord, folder, task_run
from harness_slurm.job.script import describe_slurm, job_shape, render_script

HERE_ONLY = frozenset(
    {
        *("device", "generation.mode", "inject.where", "inject.every", "runner"),
        *("stage.weights", "stage.spool"),
    }
)
"""Keys whose mistakes only a compute node can tell: a login node has no GPU, nor the job's
variables."""


@dataclass(frozen=True)
class Submission:
    """A job to submit: its script, and the run folder that it will fill."""

    spec: RunSpec
    run: RunDir
    script: str
    strict: bool = False

    @property
    def tasks(self) -> tuple[int, ...]:
        """Tasks of the job array; empty where it is none."""
        return tuple(array_tasks(self.spec.slurm.array)) if self.spec.slurm.array else ()


def plan_submission(spec: RunSpec, strict: bool) -> Submission:
    """Check a specification as far as this node can, and write its script. Touches nothing.

    Raises:
        SpecError: all mistakes, with their paths.
    """
    check_for_slurm(spec)
    run = name_run(Path(spec.output.dir).absolute(), spec.name)
    inside = (sys.executable, "-P", "-m", "harness", "run", "--in-job", str(run.path))
    env = {"HARNESS_CACHE_DIR": str(cache_dir())}
    return Submission(spec, run, render_script(spec, run.path, inside, env), strict)


def check_for_slurm(spec: RunSpec) -> None:
    """Find the mistakes that can be seen from a login node.

    Raises:
        SpecError: all of them, with their paths.
    """
    problems = slurm_problems(spec)
    if problems:
        raise SpecError(spec.name, problems)


def slurm_problems(spec: RunSpec) -> list[tuple[str, str]]:
    """The mistakes that can be seen from a login node, with their paths."""
    here = spec.model_copy(update={"device": "cpu"})
    problems = [problem for problem in preflight(here) if problem[0] not in HERE_ONLY]
    if spec.slurm.container and not Path(spec.slurm.container).expanduser().exists():
        problems.append(("slurm.container", f"there is no {spec.slurm.container}"))
    if not problems:
        try:
            job_shape(spec)
        except SpecError as error:
            problems += error.problems
    return problems


def submit(submission: Submission, narrator: Narrator, controller: Controller) -> JobRecord:
    """Make the run folder and hand the script to sbatch.

    Raises:
        HarnessError: the folder cannot be made, or sbatch refused the script.
    """
    run = submission.run
    create_run(run)
    script = folder(run) / "script.sh"
    script.parent.mkdir()
    script.write_text(submission.script)
    # Before sbatch: the job may begin at once, and from then on run.json is its own.
    make_tasks(run, submission.tasks, initial_record(submission))
    with told_if_refused(run):
        job_id, cluster, _ = controller.submit(("sbatch", "--parsable", str(script)))
    record = JobRecord(job_id, "spec", cluster, submission.tasks, time.time_ns())
    note_job(run, record)
    narrator.say(f"run {run.path}")
    where = describe_slurm(submission.spec.slurm)
    narrator.say(f"job {job_id} submitted" + (f" ({where})" if where else ""))
    return record


@contextlib.contextmanager
def told_if_refused(run: RunDir) -> Iterator[None]:
    """A job that sbatch refuses shall not look submitted for ever: note why in run.json."""
    try:
        yield
    except HarnessError as error:
        said = f"not submitted: {error.message}"
        failed = {"status": "failed", "verdict": "unknown", "verdict_detail": said}
        run.write({**run.read(), **failed, "exit_code": error.exit_code})
        raise


def initial_record(submission: Submission) -> dict[str, Any]:
    """run.json before the job has begun."""
    return first_record(
        submission.spec.name,
        "submitted",
        run_id=submission.run.run_id,
        strict=submission.strict,
        spec=submission.spec.model_dump(mode="json"),
    )


def make_tasks(run: RunDir, tasks: Sequence[int], data: dict[str, Any]) -> None:
    """Write run.json, and a run folder for every task of an array."""
    run.write(data)
    for task in tasks:
        make_task(run, task, {**data, "name": f"{data['name']} task-{task}"})


def make_task(run: RunDir, task: int, data: dict[str, Any]) -> None:
    """Make the run folder of a task of an array."""
    own = task_run(run, task)
    for part in PARTS:
        (own.path / part).mkdir(parents=True, exist_ok=True)
    own.write({**data, "run_id": f"{run.run_id}-{own.run_id}"})


def note_job(run: RunDir, record: JobRecord) -> None:
    """Leave the job's id in the run's folder, and in those of its tasks."""
    record.write(run)
    for shown, own in record.runs(run).items():
        if record.tasks:
            replace(record, job_id=shown, tasks=()).write(own)
