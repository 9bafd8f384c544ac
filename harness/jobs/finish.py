"""When a job has ended: accounting, verdict, database."""

from __future__ import annotations

import contextlib
import re
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.conclude import RunResult, build, conclude
from harness.ending.outcome import End, Outcome, judge_run, outputs_elsewhere
from harness.ending.room import keep, why_full, with_disk
from harness.progress import Narrator
from harness_collectors.sacct.fields import Step
from harness_collectors.sacct.query import (
    DELIMITER,
    Answer,
    CommandClient,
    Fetched,
    Policy,
    SlurmClient,
    fetch,
)
from harness_collectors.sacct.scontrol import read_scontrol
from harness_schemas.errors import ExitCode
from harness_schemas.rundir import RunDir
from harness_slurm.job.controller import JobState
from harness_slurm.job.marks import JobRecord, attempts, read_begin, read_end

STOPPED_CODES = {
    "TIMEOUT": ExitCode.TIMED_OUT,
    "DEADLINE": ExitCode.TIMED_OUT,
    "CANCELLED": 143,
    "PREEMPTED": 143,
    "REVOKED": 143,
    "NODE_FAIL": 137,
    "BOOT_FAIL": 137,
    "OUT_OF_MEMORY": 137,
}
"""What `harness run` returns for a job that Slurm ended (docs/exit-codes.md)."""
ENDED_FROM_OUTSIDE = STOPPED_CODES.keys() - {"OUT_OF_MEMORY"}
"""States in which no failure is the script's own; memory may run out beside a script that fails."""
_TAKEN = re.compile(rb"harness\.probe: not recording: .*File exists")


def finish(
    run: RunDir,
    record: JobRecord,
    states: Mapping[str, JobState | None],
    narrator: Narrator,
    client: SlurmClient | None = None,
) -> list[RunResult]:
    """Fetch the accounting of all jobs with one question, then judge and ingest each."""
    narrator.say("accounting")
    folder = _sacct_folder(run)
    if why_full(run.path) is not None:
        folder = Path(tempfile.mkdtemp(prefix="harness-sacct-"))
    fetched = fetch(
        list(record.runs(run)),
        folder,
        client or _client(record.cluster),
        Policy(sleep=told_sleep(narrator)),
    )
    if fetched.state != "ok":
        narrator.say(f"  {fetched.reason}")
        narrator.say(f"  `harness run --attach {record.job_id}` asks again")
    results = [
        _finish_one(own, job, states.get(job), fetched, record, narrator)
        for job, own in record.runs(run).items()
    ]
    if record.tasks and run.run_json.is_file():  # a sweep's folder has none
        worst = next((one.outcome for one in results if one.exit_code), results[0].outcome)
        _write(run, {**run.read(), "job_id": record.job_id}, worst, narrator)
    return results


def told_sleep(narrator: Narrator) -> Callable[[float], None]:
    """Between two questions about the accounting: sleep, and say so."""

    def sleep(seconds: float) -> None:
        narrator.say(f"  not its last word yet, asked again in {seconds:.0f} s")
        time.sleep(seconds)

    return sleep


def _client(cluster: str | None) -> SlurmClient:
    return CommandClient() if cluster is None else _ClusterClient(cluster)


class _ClusterClient:
    """Asks about another cluster than this node's own."""

    def __init__(self, cluster: str) -> None:
        self._where = ("-M", cluster)

    def run(self, argv: Sequence[str]) -> Answer:
        """Run and wait."""
        return CommandClient().run((argv[0], *self._where, *argv[1:]))


def _sacct_folder(run: RunDir) -> Path:
    return run.collector_dir("sacct", socket.gethostname())


def _finish_one(
    run: RunDir,
    job: str,
    state: JobState | None,
    fetched: Fetched,
    record: JobRecord,
    narrator: Narrator,
) -> RunResult:
    elsewhere: list[Path] = []
    if record.tasks:
        _share(fetched, job, _sacct_folder(run))
    else:
        elsewhere = [path for path in fetched.files if run.path not in path.parents]
    data = {**run.read(), "job_id": job}
    own = [step for step in fetched.steps if step.step_id is None and step.job_id == job]
    last = max(own, key=lambda step: step.attempt or 0) if own else None
    if data.get("attempt") is None:
        data["attempt"] = last.attempt if last else len(attempts(run))
    mark = read_end(run)
    if last is not None and last.state == "FAILED" and mark and mark.exit_code == 0:
        narrator.say(f"  sacct calls job {job} FAILED, its own mark says exit 0: the mark counts")
    end = final_end(run, data, last, state)
    if end.exit_code not in STOPPED_CODES.values():
        end = with_disk(end, run)
    data["end"] = end.to_json()
    _times(data, last)
    if unrecorded := later_programs(run):
        known = [row for row in data.get("collection", []) if row not in unrecorded]
        data["collection"] = known + unrecorded
        narrator.say(f"  {unrecorded[0]['reason']}")
    for earlier in attempts(run):
        row = next((step for step in own if str(step.attempt) == earlier.run_id), None)
        _finish_earlier(earlier, job, row, narrator)
    outcome = judge_run(run, end, None)
    _write(run, data, outcome, narrator)
    narrator.say("ingest" if not record.tasks else f"ingest {job}")
    result = conclude(run, outcome, narrator, data, elsewhere)
    if result.exit_code:
        _point_at_output(run, record, narrator)
    return result


def _point_at_output(run: RunDir, record: JobRecord, narrator: Narrator) -> None:
    """Where the script that failed has written: theirs, or ours that did not get to the run."""
    begin, own = read_begin(run), run.logs / "launcher.err"
    if record.kind == "wrap" and begin and begin.stdout:
        narrator.say(f"its output: {begin.stdout}")
    elif record.kind != "wrap" and begin is None and own.is_file():
        narrator.say("the job's script ended before the run began: slurm.modules, slurm.prologue?")
        narrator.say(f"  its output: {own}")


def later_programs(run: RunDir) -> list[dict[str, str | None]]:
    """A row of `collection` where ranks of a script's later program were not recorded.

    They find the files of their rank taken, and the only trace of it is what the recorder says.
    """
    count = 0
    for path in outputs_elsewhere(run):
        with contextlib.suppress(OSError), path.open("rb") as lines:
            count += sum(_TAKEN.search(line) is not None for line in lines)
    if not count:
        return []
    reason = (
        f"{count} process{'es' * (count > 1)} of a later program in this script not recorded: the "
        "first has the files of these ranks; `harness run -- srun ...` in it keeps them apart"
    )
    return [{"collector": "app_timers", "host": None, "state": "degraded", "reason": reason}]


def final_end(
    run: RunDir, data: Mapping[str, Any], last: Step | None, state: JobState | None
) -> End:
    """How the job ended: what the run itself noted, else its mark, else what Slurm says."""
    noted, mark = End.from_json(data.get("end")), read_end(run)
    code = noted.exit_code if noted.exit_code is not None else mark.exit_code if mark else None
    named = last.state if last and last.state else state.state if state else None
    # Slurm ends the steps before the script: one that ends with its step was never told itself.
    told = bool(code) and named in ENDED_FROM_OUTSIDE
    stopped = (mark.stopped or told) if mark else code is None
    if stopped and named in STOPPED_CODES:
        code = STOPPED_CODES[named]
    elif code is None and last is not None and last.exit_code is not None:
        code = last.exit_code or (128 + last.signal if last.signal else 0)
    exits = noted.rank_exits
    return (
        End(
            None if code is None else int(code),
            stopped and named in ("TIMEOUT", "DEADLINE"),
            noted.interrupted,
            exits,
            noted.oom_kills,
            noted.kernel_lines,
        )
        if stopped or noted.exit_code is None
        else noted
    )


def _times(data: dict[str, Any], last: Step | None) -> None:
    if last is not None and last.started_ns is not None and "ended_ns" not in data:
        data["started_ns"] = last.started_ns
    if "ended_ns" not in data:
        data["ended_ns"] = (last.ended_ns if last else None) or time.time_ns()


def _finish_earlier(run: RunDir, job: str, row: Step | None, narrator: Narrator) -> None:
    """An attempt that was requeued is a run of its own, with a database of its own."""
    data = run.read()
    lost_node = row is not None and row.state in ("NODE_FAIL", "BOOT_FAIL")
    why = "a node failed and the job" if lost_node else "the job"
    data.update(
        run_id=f"{data.get('run_id')}-attempt-{run.run_id}",
        job_id=job,
        attempt=int(run.run_id),
        status="failed",
        verdict="node_fail" if lost_node else "preempted",
        verdict_detail=f"{why} was requeued: the next attempt began anew",
    )
    keep(run, data, narrator)
    build(run, data)


def _write(run: RunDir, data: dict[str, Any], outcome: Outcome, narrator: Narrator) -> None:
    data.update(outcome.to_json())
    keep(run, data, narrator)


def _share(fetched: Fetched, job: str, folder: Path) -> None:
    """A task's rows of the array's accounting, in the task's own folder."""
    for path in fetched.files:
        own = _rows_of(job, path)
        with contextlib.suppress(OSError):  # a full disk: the array's own folder may have them
            if own:
                folder.mkdir(parents=True, exist_ok=True)
                (folder / path.name).write_text(own, encoding="utf-8")


def _rows_of(job: str, path: Path) -> str:
    """What a file of sacct or scontrol says of one task; empty where that is nothing."""
    if path.name not in ("sacct.txt", "scontrol.txt"):
        return ""
    lines = path.read_text(encoding="utf-8").split("\n")
    if path.name == "scontrol.txt":
        own = [line for line in lines if any(s.job_id == job for s in read_scontrol(line).steps)]
        return "".join(f"{line}\n" for line in own)
    own = [row for row in lines[1:] if row.split(DELIMITER)[0].partition(".")[0] == job]
    return "\n".join([lines[0], *own, ""])
