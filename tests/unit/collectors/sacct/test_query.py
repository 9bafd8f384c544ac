"""Asking Slurm: how often, with what, and what happens when it does not answer."""

from __future__ import annotations

import json
import stat

import pytest

from harness_collectors.sacct import COLLECTOR
from harness_collectors.sacct.query import (
    DELIMITER,
    Answer,
    CommandClient,
    Policy,
    fetch,
    sacct_argv,
)
from harness_schemas.errors import UsageError
from harness_schemas.spi import IngestContext

DISABLED = Answer(1, "", "Slurm accounting storage is disabled\n")
SCONTROL = (
    "JobId=7 JobName=decode UserId=me(1) GroupId=me(1) MCS_label=N/A Priority=1 "
    "JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 RunTime=00:00:09 "
    "StartTime=1700000000 EndTime=1700000009 NodeList=n1 NumTasks=2\n"
)


class Slurm:
    """Answers in the order given (the last one again and again), and counts."""

    def __init__(self, *answers, scontrol=None):
        self.answers = list(answers)
        self.scontrol = scontrol or Answer(1, "", "slurm_load_jobs error: Invalid job id")
        self.asked = []

    def run(self, argv):
        self.asked.append(tuple(argv))
        if argv[0] == "scontrol":
            return self.scontrol
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(argv) if callable(answer) else answer

    def count(self, command):
        return len([argv for argv in self.asked if argv[0] == command])


class Clock:
    """Time that passes only when slept through."""

    def __init__(self):
        self.now = 0.0
        self.slept = []

    def policy(self, calls=3):
        return Policy(calls=calls, clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def rows(*steps):
    """An answer for the fields that were asked: `(id, state)` pairs, job 7 by default."""

    def answer(argv):
        fields = argv[-1].split(",")
        lines = []
        for job, state in steps:
            known = {"JobID": job, "JobIDRaw": job, "State": state, "ExitCode": "0:0"}
            known |= {"Start": "1700000000", "End": "" if state == "RUNNING" else "1700000009"}
            lines.append(DELIMITER.join(known.get(name, "") for name in fields))
        return Answer(0, "".join(line + "\n" for line in lines), "")

    return answer


def ingest(folder):
    batches = list(COLLECTOR.ingest(sorted(folder.iterdir()), IngestContext(folder)))
    found = [row for b in batches if b.table == "slurm_steps" for row in b.data.to_pylist()]
    [state] = [row for b in batches if b.table == "collection" for row in b.data.to_pylist()]
    return found, state


def test_one_question_for_all_jobs(tmp_path):
    slurm, clock = Slurm(rows(("7", "COMPLETED"), ("7.0", "FAILED"), ("8", "FAILED"))), Clock()
    found = fetch(["7", "8"], tmp_path, slurm, clock.policy())
    assert (found.state, found.calls, clock.slept) == ("ok", 1, [])
    assert slurm.asked == [sacct_argv(["7", "8"])]
    [argv] = slurm.asked
    assert argv[:4] == ("sacct", "-j", "7,8", "-n")
    assert {"-P", "--duplicates", f"--delimiter={DELIMITER}"} <= set(argv)
    steps, state = ingest(tmp_path)
    assert [(s["job_id"], s["step_id"], s["state"]) for s in steps] == [
        ("7", None, "COMPLETED"),
        ("7", "0", "FAILED"),
        ("8", None, "FAILED"),
    ]
    assert state["state"] == "ok"
    assert "time_zone" not in json.loads(state["detail"])  # Unix seconds were asked for


def test_late_accounting_is_asked_again_once_a_minute(tmp_path):
    slurm, clock = Slurm(rows(), rows(("7", "RUNNING")), rows(("7", "TIMEOUT"))), Clock()
    found = fetch(["7"], tmp_path, slurm, clock.policy())
    assert (found.state, found.calls) == ("ok", 3)
    assert clock.slept == [60.0, 60.0]
    assert slurm.count("scontrol") == 0


def test_the_number_of_calls_is_bounded(tmp_path):
    slurm, clock = Slurm(rows(("7", "RUNNING")), scontrol=Answer(0, SCONTROL, "")), Clock()
    found = fetch(["7"], tmp_path, slurm, clock.policy(calls=2))
    assert (slurm.count("sacct"), slurm.count("scontrol")) == (2, 1)
    assert (found.state, found.method) == ("degraded", "sacct+scontrol")
    steps, state = ingest(tmp_path)
    assert state["state"] == "degraded"
    assert "RUNNING" in state["reason"]
    assert {step["state"] for step in steps} == {"RUNNING", "OUT_OF_MEMORY"}


def test_from_inside_the_job_there_is_one_call(tmp_path):
    slurm, clock = Slurm(rows(("7", "RUNNING"), ("7.0", "COMPLETED"))), Clock()
    fetch(["7"], tmp_path, slurm, clock.policy(), ended=False)
    assert (slurm.count("sacct"), clock.slept) == (1, [])


def test_disabled_accounting_falls_back_at_once(tmp_path):
    slurm, clock = Slurm(DISABLED, scontrol=Answer(0, SCONTROL, "")), Clock()
    found = fetch(["7"], tmp_path, slurm, clock.policy())
    assert (slurm.count("sacct"), slurm.count("scontrol"), clock.slept) == (1, 1, [])
    assert (found.state, found.method) == ("degraded", "scontrol")
    [step], state = ingest(tmp_path)
    assert (step["source"], step["state"], step["signal"]) == ("scontrol", "OUT_OF_MEMORY", 125)
    assert state["state"] == "degraded"
    assert "disabled" in state["reason"]


def test_nothing_answers(tmp_path):
    slurm = Slurm(Answer(127, "", "sacct is not on PATH"))
    found = fetch(["7"], tmp_path, slurm, Clock().policy())
    assert (found.state, found.method, found.calls) == ("skipped", "none", 1)
    steps, state = ingest(tmp_path)
    assert steps == []
    assert (state["state"], state["reason"]) == ("skipped", "sacct is not on PATH")


def test_a_database_that_is_down_is_asked_again(tmp_path):
    down = Answer(1, "", "sacct: error: slurmdbd: Connection refused\nmore")
    slurm, clock = Slurm(down, rows(("7", "FAILED"))), Clock()
    assert fetch(["7"], tmp_path, slurm, clock.policy()).state == "ok"
    assert clock.slept == [60.0]


def test_nobody_waits_for_a_database_that_is_down_if_the_controller_knows_the_end(tmp_path):
    down = Answer(1, "", "sacct: error: Problem talking to the database: Connection refused")
    slurm, clock = Slurm(down, scontrol=Answer(0, SCONTROL, "")), Clock()
    found = fetch(["7"], tmp_path, slurm, clock.policy())
    assert (slurm.count("sacct"), slurm.count("scontrol"), clock.slept) == (1, 1, [])
    assert [(step.job_id, step.state) for step in found.steps] == [("7", "OUT_OF_MEMORY")]
    assert (found.state, found.method) == ("degraded", "scontrol")


def test_a_field_that_this_version_lacks_is_left_out(tmp_path):
    refused = Answer(1, "", 'sacct: error: Invalid field requested: "TRESUsageOutTot"\n')
    slurm, clock = Slurm(refused, rows(("7", "FAILED"))), Clock()
    found = fetch(["7"], tmp_path, slurm, clock.policy())
    assert (found.state, found.calls, clock.slept) == ("ok", 1, [])
    assert "TRESUsageOutTot" not in slurm.asked[1][-1]
    assert ingest(tmp_path)[0][0]["state"] == "FAILED"


def test_only_the_last_run_of_a_requeued_job_must_have_ended(tmp_path):
    slurm = Slurm(rows(("7", "REQUEUED"), ("7.0", "CANCELLED"), ("7", "COMPLETED")))
    assert fetch(["7"], tmp_path, slurm, Clock().policy()).state == "ok"


@pytest.mark.parametrize("job", ["", "7;rm", "-a", "7,8", "seven"])
def test_a_job_id_is_no_option(tmp_path, job):
    with pytest.raises(UsageError, match="no Slurm job id"):
        fetch([job], tmp_path, Slurm(rows()))


def test_the_real_client_asks_for_unix_seconds(tmp_path, monkeypatch):
    script = tmp_path / "sacct"
    script.write_text('#!/bin/sh\necho "$SLURM_TIME_FORMAT $LC_ALL $1"; echo oops >&2; exit 3\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert CommandClient().run(["sacct", "-j"]) == Answer(3, "%s C -j\n", "oops\n")
    assert CommandClient().run(["no-such-command-of-slurm"]).code == 127
