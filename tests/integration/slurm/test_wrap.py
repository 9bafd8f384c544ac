"""Unchanged scripts of others on a real Slurm, through the ways their jobs end."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_jobs as jobs

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("overlong_job")]


def test_an_unchanged_script_is_recorded_on_all_its_nodes(tmp_path):
    options = "#SBATCH -N2 -n2 -t2\n#SBATCH -o said-%j.txt\n"
    name = jobs.script(
        tmp_path, "theirs.sbatch", f'echo "with $1"\n{jobs.RANK} 2\nexit 3\n', options
    )
    before = (tmp_path / name).read_bytes()
    env, log = jobs.counting_path(tmp_path)
    code, out, err = jobs.harness("run", "--", "sbatch", name, "a b", cwd=tmp_path, **env)
    run = jobs.latest(tmp_path)
    job = jobs.job_of(run)
    assert code == 3, err
    assert out.startswith(f"Submitted batch job {job}\n") and f"Slurm job {job}" in out
    assert (tmp_path / name).read_bytes() == before
    assert (tmp_path / f"said-{job}.txt").read_text() == "with a b\n" and "with a b" in err
    spans = "SELECT count(*), count(DISTINCT rank) FROM spans WHERE name = 'work'"
    ((count, ranks),) = jobs.rows(run, spans)
    assert ranks == 2 and count > 20
    hosts = jobs.rows(run, "SELECT DISTINCT host FROM samples WHERE host IS NOT NULL ORDER BY 1")
    assert hosts == [("node1",), ("node2",)]
    steps = jobs.rows(run, "SELECT state FROM slurm_steps WHERE step_id IS NULL")
    assert steps == [("FAILED",)]
    assert jobs.rows(run, "SELECT job_id, verdict FROM runs") == [(job, "rank_failed")]
    code, out, _ = jobs.harness("query", job, "SELECT name FROM runs", "--csv", cwd=tmp_path)
    assert (code, out.split()) == (0, ["name", "theirs.sbatch"])
    _asked_gently(log)


def _asked_gently(log: Path) -> None:
    """At most one squeue every 5 s, one sacct every 60 s, and nothing else."""
    asked = jobs.calls(log, "squeue")
    assert all(later - earlier > 4.9 for earlier, later in itertools.pairwise(asked))
    assert len(jobs.calls(log, "sacct")) == 1
    assert not jobs.calls(log, "scontrol") and not jobs.calls(log, "sinfo")


def test_an_srun_line_is_wrapped_as_it_is(tmp_path):
    (tmp_path / "rank.py").write_text(jobs.THEIR_RANK)
    line = ("srun", "-n1", "--mem=200", "--export=PATH", sys.executable, "rank.py", "1.5")
    code, out, err = jobs.harness("run", "--", *line, cwd=tmp_path)
    assert code == 0, err
    assert "finished: ok" in out
    run = jobs.latest(tmp_path)
    ((count,),) = jobs.rows(run, "SELECT count(*) FROM spans WHERE name = 'work'")
    assert count > 10
    assert jobs.rows(run, "SELECT DISTINCT state FROM slurm_steps") == [("COMPLETED",)]
    assert jobs.rows(run, "SELECT count(*) > 0 FROM samples") == [(True,)]


def test_every_task_of_an_array_is_a_run(tmp_path):
    body = f"{jobs.RANK} 0.5\nexit $((SLURM_ARRAY_TASK_ID == 2 ? 5 : 0))\n"
    name = jobs.script(tmp_path, "array.sbatch", body, "#SBATCH --array=1-2\n")
    code, out, err = jobs.harness("run", "--", "sbatch", "--parsable", name, cwd=tmp_path)
    assert code == 5, err
    run = jobs.latest(tmp_path)
    job = jobs.job_of(run)
    assert out.splitlines()[0] == job
    told = [tuple(line.split()) for line in out.splitlines() if line.startswith(f"{job}_")]
    assert told == [
        (f"{job}_1", "finished", "ok", "0"),
        (f"{job}_2", "failed", "rank_failed", "5"),
    ]
    for task, state in ((1, "COMPLETED"), (2, "FAILED")):
        own = run / f"task-{task}"
        assert jobs.rows(own, "SELECT job_id FROM runs") == [(f"{job}_{task}",)]
        ended = jobs.rows(own, "SELECT DISTINCT state FROM slurm_steps WHERE step_id IS NULL")
        assert ended == [(state,)]
    code, out, _ = jobs.harness(
        "query", f"{job}_2", "SELECT exit_code FROM runs", "--csv", cwd=tmp_path
    )
    assert (code, out.split()[1]) == (0, "5")


def begin_now(job: str) -> None:
    """A requeued job would wait for two minutes."""
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True)


def test_a_requeued_job_keeps_its_attempts_apart(tmp_path):
    body = f"{jobs.RANK} $((SLURM_RESTART_COUNT ? 1 : 300))\n"
    name = jobs.script(tmp_path, "again.sbatch", body, "#SBATCH --requeue -t3\n")
    process = jobs.start("run", "--", "sbatch", name, cwd=tmp_path)
    jobs.wait_for(tmp_path / "runs" / "latest" / "spans" / "rank-00000.meta.jsonl")
    run = jobs.latest(tmp_path)
    job = jobs.job_of(run)
    time.sleep(1)
    subprocess.run(["scontrol", "requeue", job], check=True)
    time.sleep(3)  # slurmd refuses a job that it killed within the same second
    jobs.wait_for(run / "attempts" / "0" / "run.json", tick=lambda: begin_now(job))
    code, out, err = jobs.end(process)
    assert code == 0, err
    assert "finished: ok" in out and "attempt 1" in err
    assert jobs.rows(run, "SELECT attempt, verdict FROM runs") == [(1, "ok")]
    first = jobs.rows(run / "attempts" / "0", "SELECT attempt, verdict FROM runs")
    assert first == [(0, "preempted")]
    count = "SELECT count(*) FROM spans WHERE name = 'work'"
    assert jobs.rows(run / "attempts" / "0", count)[0][0] > 10
    assert 10 < jobs.rows(run, count)[0][0] < 40


def test_an_interrupt_leaves_the_job_and_a_cancelled_one_keeps_its_spans(tmp_path):
    name = jobs.script(tmp_path, "long.sbatch", f"{jobs.RANK} 300\n")
    process = jobs.start("run", "--", "sbatch", name, cwd=tmp_path)
    jobs.wait_for(tmp_path / "runs" / "latest" / "spans" / "rank-00000.meta.jsonl")
    run = jobs.latest(tmp_path)
    job = jobs.job_of(run)
    process.send_signal(signal.SIGINT)
    code, _, err = jobs.end(process)
    assert code == 130 and f"job {job} goes on" in err
    time.sleep(1)
    cancelled = time.time_ns()
    subprocess.run(["scancel", job], check=True)
    code, _, err = jobs.harness("run", "--attach", job, cwd=tmp_path)
    assert code == 143, err
    assert jobs.rows(run, "SELECT verdict FROM runs") == [("cancelled",)]
    ((last,),) = jobs.rows(run, "SELECT max(end_ns) FROM spans WHERE name = 'work'")
    assert cancelled - last < 1.5e9


def test_the_time_limit_is_named_and_the_last_second_kept(overlong_job):
    folder, job = overlong_job
    run = jobs.latest(folder)
    code, out, err = jobs.harness("run", "--attach", job, cwd=folder)
    assert code == 124, err
    assert jobs.rows(run, "SELECT verdict FROM runs") == [("timeout",)]
    assert "timeout" in out
    ((last,),) = jobs.rows(run, "SELECT max(end_ns) FROM spans WHERE name = 'work'")
    marks = json.loads((run / "job" / "end.json").read_text())
    # `stopped` is not always set: Slurm ends the steps first, and the script may end with its own.
    assert marks["exit_code"] == 143 and marks["ended_ns"] - last < 3e9
    assert _left_running(str(folder.parent)) == []


def _left_running(mark: str) -> list[bytes]:
    """Processes that name these tests' folder or program, after five seconds' patience."""
    left: list[bytes] = []
    for _ in range(50):
        left = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                if mark.encode() in words or b"\0rank.py\0" in words:
                    left.append(words)
        if not left:
            break
        time.sleep(0.1)
    return left
