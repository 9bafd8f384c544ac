"""A sweep under Slurm: one job with a step a run, or a job array with a task a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.jobs.finish import finish
from harness.jobs.follow import Follower
from harness.jobs.submit import make_task, note_job
from harness.progress import Narrator
from harness.setup.record import first_record
from harness.sweep.folder import CellRun, claimed, done_runs, write_sweep
from harness.sweep.plan import Item, SweepPlan
from harness_runners.files.cache import cache_dir
from harness_schemas.errors import ExitCode
from harness_schemas.rundir import RunDir, point_latest
from harness_schemas.spec import RunSpec
from harness_slurm.job.arguments import directives
from harness_slurm.job.controller import Controller
from harness_slurm.job.marks import BEGIN, END, JobRecord, folder
from harness_slurm.job.script import render_script
from harness_slurm.job.wrap_script import render_wrap

IGNORE_WARNING = "trap '' USR2 # only a step that runs has something to flush"
AT_ONCE = 4
"""Tasks of an array that run at the same time."""


@dataclass(frozen=True)
class SweepJob:
    """A sweep to submit: where it goes, what is left of it, and the script that does it.

    `first_task`: number of the array's first task; None for one job with a step a run. `theirs`:
    what that job runs, between its marks. `refused`: runs of cells that no job can run.
    """

    plan: SweepPlan
    root: Path
    left: tuple[Item, ...]
    script: str
    first_task: int | None = None
    theirs: str = ""
    refused: Mapping[tuple[str, int], CellRun] = field(default_factory=dict)

    @property
    def run(self) -> RunDir:
        """The sweep's folder, in which the job leaves its marks."""
        return RunDir(self.root)


def plan_sweep_job(
    plan: SweepPlan, root: Path, left: Sequence[Item], words: Sequence[str], array: bool
) -> SweepJob:
    """The job for what is left of a sweep; its nodes are those of the largest cell.

    `left`: of cells that a job can run (`slurm_problems`). `words`: the sweep's own command line,
    which the one job runs.
    """
    largest = max((item.cell.spec for item in left), key=lambda spec: spec.world_size)
    env = {"HARNESS_CACHE_DIR": str(cache_dir())}
    harness = (sys.executable, "-P", "-m", "harness")
    root = root.absolute()
    if array:
        first = 1 + max((int(path.name[5:]) for path in root.glob("task-[0-9]*")), default=-1)
        tasks = f"{first}-{first + len(left) - 1}%{AT_ONCE}"
        inside = (*harness, "run", "--in-job", str(root))
        script = render_script(_with(largest, plan.name, tasks), root, inside, env)
        return SweepJob(plan, root, tuple(left), script, first)
    theirs = render_script(
        _with(largest, plan.name, None, IGNORE_WARNING), root, (*harness, "sweep", *words), env
    )
    script = render_wrap(root, root / "job" / "theirs", directives(theirs), {}, (), ())
    return SweepJob(plan, root, tuple(left), script, theirs=theirs)


def _with(spec: RunSpec, name: str, array: str | None, *prologue: str) -> RunSpec:
    lines = [*spec.slurm.prologue, *prologue]
    slurm = spec.slurm.model_copy(update={"array": array, "prologue": lines})
    return spec.model_copy(update={"slurm": slurm, "name": name})


def submit_sweep(job: SweepJob, narrator: Narrator, controller: Controller) -> JobRecord:
    """Submit what is left of a sweep.

    Raises:
        UsageError: another process works in the folder, or sbatch refused.
    """
    job.root.mkdir(parents=True, exist_ok=True)
    point_latest(job.run)
    with claimed(job.root):
        write_sweep(job.root, job.plan, {**done_runs(job.root), **job.refused}, "running")
    marks = folder(job.run)
    marks.mkdir(exist_ok=True)
    job.run.logs.mkdir(exist_ok=True)
    for name in (BEGIN, END):
        (marks / name).unlink(missing_ok=True)
    (marks / "theirs").write_text(job.theirs)
    (marks / "theirs").chmod(0o755)
    (marks / "script.sh").write_text(job.script)
    tasks = []
    if job.first_task is not None:
        for task, item in enumerate(job.left, job.first_task):
            make_task(job.run, task, _record(job, item))
            tasks.append(task)
    job_id, cluster, _ = controller.submit(("sbatch", "--parsable", str(marks / "script.sh")))
    record = JobRecord(job_id, "sweep", cluster, tuple(tasks), time.time_ns())
    note_job(job.run, record)
    narrator.say(f"job {job_id} submitted")
    return record


def _record(job: SweepJob, item: Item) -> dict[str, Any]:
    return first_record(
        item.cell.spec.name,
        sweep_id=job.plan.sweep_id,
        cell=item.cell.label,
        cell_key=item.cell.key,
        repeat=item.repeat,
        spec=item.cell.spec.model_dump(mode="json"),
    )


def see_sweep_through(
    job: SweepJob, record: JobRecord, narrator: Narrator, controller: Controller
) -> int:
    """Follow a sweep's job to its end; returns 0 where every run is good, 1 where some are not.

    An interrupt leaves the job running.
    """
    follower = Follower(record, job.run, narrator, controller)
    try:
        states = follower.wait()
        follower.settle()
    except KeyboardInterrupt:
        narrator.say(f"job {record.job_id} goes on; `harness report {job.root}` when it has ended")
        return ExitCode.INTERRUPTED
    if record.tasks:
        finish(job.run, record, states, narrator)
    done = {**done_runs(job.root), **job.refused}
    write_sweep(job.root, job.plan, done, "finished")
    wanted = [(item.cell.key, item.repeat) for item in job.plan.items()]
    good = all(place in done and done[place].good for place in wanted)
    return ExitCode.OK if good else ExitCode.GATE_FAILED
