"""`harness status` out of a folder alone: the missing rank among many, torn files, processes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rank_pages import write_rank, write_run

from harness.cli import main
from harness.ending.outcome import End, judge_run
from harness.status.headline import headline
from harness.status.processes import Here
from harness.status.rank_files import read_rank
from harness.status.snapshot import take_snapshot
from harness_probe.recorder import boot_id
from harness_schemas.rundir import RunDir
from harness_slurm.job import marks

LIMIT = 30_000_000_000


def status(capsys, *arguments):
    code = main.invoke(["status", *map(str, arguments)])
    return code, capsys.readouterr()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("large"), 1024, missing=(517,))


def test_the_missing_one_of_1024_ranks_is_in_the_first_line(large, capsys):
    code, said = status(capsys, large)
    first, *rest = said.out.splitlines()
    assert code == 1
    assert first.startswith("HANGS: no rank recorded anything for 4")
    assert "rank 517 has not entered all_reduce 1200 of group [512-519]#0 (4.0 KiB)" in first
    assert "ranks 0-516, 518-1023 wait for that" in first
    assert len(rest) < 40  # readable, however many ranks
    assert max(map(len, rest)) <= 110
    assert any(line.startswith("512-516, 518-519") for line in rest)


def test_machines_get_every_rank_and_group(large, capsys):
    code, said = status(capsys, large, "--json")
    answer = {key: section["rows"] for key, section in json.loads(said.out).items()}
    (state,) = answer["state"]
    assert (code, state["state"], state["kind"], state["culprits"]) == (
        1,
        "hangs",
        "missing",
        [517],
    )
    assert len(answer["ranks"]) == 1024 and len(answer["groups"]) == 129
    assert answer["ranks"][517]["reached"]["[512,513,514,515,516,517,518,519]#0"] == 1199
    assert [call["missing"] for call in answer["calls"]] == [[517], list(range(512, 520))]
    ages = [row["age_ns"] for row in answer["ranks"]]
    assert min(ages) > 39e9 and max(ages) < 80e9  # by wall clocks: theirs is another


def test_a_limit_of_ones_own_decides_what_is_a_hang(large, capsys):
    code, said = status(capsys, large, "--hang-after", 3600)
    assert code == 0 and said.out.startswith("quiet: no rank recorded anything for ")
    assert "so far: rank 517 has not entered" in said.out


def test_a_copied_folder_gives_the_same_diagnosis(large, tmp_path, capsys):
    copy = tmp_path / "elsewhere"
    shutil.copytree(large, copy)
    assert "rank 517 has not entered" in status(capsys, copy)[1].out.splitlines()[0]


def small(folder, **more):
    return write_run(folder, 4, tp=2, **more)


def test_a_rank_that_never_began_is_named(tmp_path, capsys):
    run = small(tmp_path, missing=(3,))
    for path in (run / "spans").glob("rank-00003.*"):
        path.unlink()
    out = status(capsys, run)[1].out
    assert "rank 3 never began to record; ranks 0-2 wait for that" in out.splitlines()[0]
    assert "3 of 4 ranks recorded" in out


def test_ranks_that_recorded_lately_run(tmp_path, capsys):
    code, said = status(capsys, small(tmp_path, missing=(1,), quiet_s=0.2))
    assert code == 0 and said.out.startswith("runs: a rank recorded something ")


def test_an_ended_run_says_how_it_ended_and_in_what(tmp_path, capsys):
    run = small(tmp_path, missing=(1,))
    data = json.loads((run / "run.json").read_text())
    data.update(status="failed", verdict="timeout", ended_ns=time.time_ns())
    (run / "run.json").write_text(json.dumps(data))
    code, said = status(capsys, run)
    assert code == 0
    assert said.out.startswith("ended: timeout\n  when it ended: rank 1 has not entered all_reduce")


def test_nothing_recorded_is_unknown_not_fine(tmp_path, capsys):
    run = small(tmp_path)
    shutil.rmtree(run / "spans")
    assert status(capsys, run)[1].out.startswith("unknown: no rank has begun to record")
    code, said = status(capsys, tmp_path / "no-such")
    assert code == 2 and "no run" in said.err
    (tmp_path / "empty").mkdir()
    code, said = status(capsys, tmp_path / "empty")
    assert code == 2 and "no run folder" in said.err


def test_a_process_of_this_host_that_is_stopped_is_named(tmp_path):
    """Both are inside the call: that rank 1 is stopped only the kernel knows."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        here = Here.now()
        pids = (os.getpid(), sleeper.pid)
        key = ("all_reduce", 1, -1)
        for rank in (0, 1):
            where = {"host": here.host, "boot": boot_id(), "pid": pids[rank]}
            where.update(clock_s=0, began_s=0)
            write_rank(
                tmp_path / "spans",
                rank,
                2,
                groups={1: (0, 1)},
                entered={key: 8},
                pending=key,
                **where,
            )
        os.kill(sleeper.pid, signal.SIGSTOP)
        while here.state(sleeper.pid, None) != "stopped":
            time.sleep(0.01)
        now = take_snapshot(RunDir(tmp_path), LIMIT)
        assert (now.diagnosis.kind, now.diagnosis.culprits) == ("halted", (1,))
        assert "the process of rank 1 is stopped, inside of all_reduce 8" in "".join(
            headline(now, None, None)
        )
    finally:
        sleeper.kill()
        sleeper.wait()
    assert here.state(sleeper.pid, None) == "gone"


def test_definitions_far_from_both_ends_are_found(tmp_path):
    key = ("all_reduce", 1, -1)
    write_rank(tmp_path, 0, 2, groups={1: (0, 1)}, entered={key: 8}, pending=key)
    path = tmp_path / "rank-00000.meta.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    filler = b'{"t":"tokens","unit":1,"first_row":0,"n":[1],"device_ns":1,"host_ns":1}\n' * 3000
    # As in recordings whose pages did not name the unit, and whose lines were all in this file.
    page = (tmp_path / "rank-00000.live").read_bytes()
    (tmp_path / "rank-00000.live").write_bytes(page[:2048] + bytes(2048))
    lines.insert(-1, b'{"t":"unit","id":3,"start_ns":5,"phase":"decode","step":7}\n')
    group = next(line for line in lines if line.startswith(b'{"t":"group"'))
    lines.remove(group)
    path.write_bytes(b"".join([*lines[:2], filler, group, filler, *lines[2:], filler]))
    files = read_rank(tmp_path, 0)
    assert files.groups[1]["ranks"] == [0, 1]
    assert files.descriptors[1]["op"] == "all_reduce" and files.unit["step"] == 7


def test_a_submitted_job_says_whether_it_has_begun(tmp_path, capsys):
    run = RunDir(small(tmp_path))
    shutil.rmtree(run.spans)
    marks.JobRecord("4711", "spec").write(run)
    said = status(capsys, run.path)[1].out
    assert said.startswith("waits: job 4711 was submitted ") and "`squeue -j 4711`" in said
    marks.write_begin(run, "4711", 1)
    said = status(capsys, run.path)[1].out
    assert said.startswith("unknown: job 4711 began on ") and "job 4711, attempt 1" in said
    marks.write_end(run, 143, stopped=True)
    said = status(capsys, run.path)[1].out
    assert said.startswith("ended: job 4711 was told to end, code 143; requeued, it begins again")
    marks.write_end(run, 3, stopped=False)
    said = status(capsys, run.path)[1].out
    assert said.startswith("ended: job 4711 ended with code 3; `harness run --attach 4711`")
    (marks.folder(run) / marks.BEGIN).unlink()
    run.write({**run.read(), "status": "failed", "verdict": "cancelled"})
    assert status(capsys, run.path)[1].out.startswith("ended: cancelled")


def test_of_a_sweep_the_run_that_goes_on_is_shown(tmp_path, capsys):
    for name, state in (("a", "finished"), ("b", "running"), ("c", "finished")):
        path = small(tmp_path / name)
        data = json.loads((path / "run.json").read_text()) | {"status": state, "started_ns": 5}
        (path / "run.json").write_text(json.dumps(data))
        path.rename(tmp_path / f"run-{name}")
    (tmp_path / "sweep.json").write_text("{}")
    assert "  run-b\n" in status(capsys, tmp_path)[1].out


def test_a_time_limit_names_the_stage_that_did_not_send(tmp_path):
    """Stages wait for messages only: the chain ends at the first."""
    pair = {1: (0, 1), 2: (1, 2)}
    (tmp_path / "logs").mkdir()
    for rank in range(3):
        entered = {("send", rank + 1, rank + 1): 4} if rank < 2 else {}
        entered |= {("recv", rank, rank - 1): 5} if rank else {}
        pending = ("recv", rank, rank - 1) if rank else None
        write_rank(tmp_path / "spans", rank, 3, groups=pair, entered=entered, pending=pending)
    outcome = judge_run(RunDir(tmp_path), End(exit_code=124, timed_out=True), 3)
    assert (outcome.verdict, outcome.rank) == ("timeout", 0)
    assert "suspect: rank 0 (had not entered send 5 to rank 1)" in outcome.detail


class Whole(dict):
    """Files by path; short when a failure prints it."""

    def __repr__(self):
        return f"{len(self)} files"


@pytest.fixture(scope="module")
def to_damage(tmp_path_factory):
    run = small(tmp_path_factory.mktemp("whole"), missing=(1,))
    return run, Whole({path: path.read_bytes() for path in run.rglob("*") if path.is_file()})


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_torn_files_never_raise(to_damage, capsys, seed):
    run, whole = to_damage
    noise = random.Random(seed)
    for path, data in sorted(whole.items()):
        damaged = bytearray(
            data[: noise.randrange(len(data) + 1)] if noise.random() < 0.3 else data
        )
        for _ in range(noise.randrange(6) if damaged else 0):
            damaged[noise.randrange(len(damaged))] = noise.choice((0, 34, 44, 50, 91, 125, 255))
        odd = noise.choice((b"null", b'"x"', b"-1", b"1e999", b"[]", b"{}", b"9" * 30))
        if path.suffix != ".live" and noise.random() < 0.3:
            values = list(re.finditer(rb"(?<=:)(-?\d+|\"[^\"]*\"|\[[^]]*\])", damaged))
            at = noise.choice(values).span() if values else (0, 0)
            damaged[at[0] : at[1]] = odd
        path.write_bytes(damaged)
    code, said = status(capsys, run, *(("--json",) if noise.random() < 0.5 else ()))
    assert code in (0, 1) and said.out and not said.err
