"""The marks of a job, and the attempts of one that was requeued."""

from __future__ import annotations

import json

from harness.ingest.evidence import find_evidence
from harness.jobs.follow import Follower
from harness.progress import Narrator
from harness.runs import find_run
from harness_schemas.rundir import RunDir, create_run
from harness_slurm.job.controller import JobState
from harness_slurm.job.marks import (
    JobRecord,
    attempts,
    folder,
    read_begin,
    read_end,
    set_aside,
    task_run,
    write_begin,
    write_end,
)


def made(tmp_path, name="r") -> RunDir:
    run = RunDir(tmp_path / name)
    create_run(run)
    run.write({"run_id": name, "status": "running"})
    return run


def test_an_attempt_is_set_aside_whole_and_its_log_goes_on(tmp_path):
    run = made(tmp_path)
    JobRecord("7", "spec").write(run)
    write_begin(run, "7", 0)
    write_end(run, 143, stopped=True)
    (run.spans / "rank-00000.meta.jsonl").write_text('{"t":"start","rank":0}\n')
    with (run.logs / "launcher.err").open("a") as slurm:  # opened before the attempt begins
        slurm.write("first\n")
        slurm.flush()
        set_aside(run, 1)
        set_aside(run, 1)
        slurm.write("second\n")
    assert (run.logs / "launcher.err").read_text() == "first\nsecond\n"
    (first,) = attempts(run)
    assert (first.logs / "launcher.err").read_text() == "first\n"
    assert read_end(first) is not None and read_end(run) is None and read_begin(run) is None
    assert JobRecord.read(run) == JobRecord("7", "spec")
    assert not list(run.spans.iterdir()) and list(first.spans.iterdir())
    assert first.read()["run_id"] == "r"


def test_a_run_within_a_run_is_no_evidence_of_the_outer_one(tmp_path):
    run = made(tmp_path)
    (run.spans / "rank-00000.meta.jsonl").write_text('{"t":"start","rank":0}\n')
    assert "app_timers" in find_evidence([run.path])
    set_aside(run, 1)
    assert "app_timers" not in find_evidence([run.path])
    assert "app_timers" in find_evidence([run.path / "attempts" / "0"])


def test_a_job_id_names_its_run_even_before_the_job_has_written(tmp_path):
    for name, job in (("a-16", "5"), ("b", "16")):
        JobRecord(job, "spec").write(made(tmp_path, name))
    assert find_run("16", tmp_path).name == "b" and find_run("5", tmp_path).name == "a-16"


class Asked:
    """A controller with prepared answers, which counts."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.calls = 0

    def due(self) -> float:
        return 0.0

    def states(self, jobs):
        self.calls += 1
        state = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return {job: JobState(state) for job in jobs}


def follower(run, controller, record=None):
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    found = Follower(
        record or JobRecord("7", "spec"), run, Narrator(True), controller, lambda: now[0], sleep
    )
    return found, now


def test_an_end_mark_ends_the_wait_without_a_question(tmp_path):
    run = made(tmp_path)
    write_begin(run, "7", 0)
    write_end(run, 3, stopped=False)
    asked = Asked("RUNNING")
    follower(run, asked)[0].wait()
    assert asked.calls == 0


def test_a_stopped_attempt_is_over_only_when_the_controller_says_so(tmp_path):
    run = made(tmp_path)
    write_begin(run, "7", 0)
    write_end(run, 143, stopped=True)
    asked = Asked("COMPLETING", "PENDING", "CANCELLED")
    states = follower(run, asked)[0].wait()
    assert asked.calls == 3 and states["7"] == JobState("CANCELLED")


def test_a_running_job_is_asked_about_every_twenty_seconds(tmp_path):
    run = made(tmp_path)
    write_begin(run, "7", 0)
    found, now = follower(run, asked := Asked("RUNNING", "RUNNING", "RUNNING", "NODE_FAIL"))
    found.wait()
    assert asked.calls == 4 and 60 <= now[0] < 63


def test_tasks_of_an_array_end_one_by_one(tmp_path):
    run = made(tmp_path)
    record = JobRecord("7", "wrap", tasks=(0, 2))
    for task in record.tasks:
        task_run(run, task).path.mkdir()
        write_begin(task_run(run, task), f"7_{task}", 0)
    found, _ = follower(run, Asked("RUNNING"), record)
    assert set(found.tasks) == {"7_0", "7_2"}
    write_end(task_run(run, 0), 0, stopped=False)
    assert not found.tick()
    write_end(task_run(run, 2), 0, stopped=False)
    assert found.tick()
    assert json.loads((folder(task_run(run, 2)) / "end.json").read_text())["exit_code"] == 0
