"""Host samples: real processes; a made-up control group and pressure files."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness_collectors import sampling
from harness_collectors.kernel_files import CgroupMemory, pressure
from harness_collectors.psutil_host import HostSource

HOST = socket.gethostname()


def write_start(run_dir, rank, **fields):
    spans = run_dir / "spans"
    spans.mkdir(exist_ok=True)
    line = {"t": "start", "rank": rank, "host": HOST, "boot_id": sampling.boot_id(), **fields}
    (spans / f"rank-{rank:05d}.meta.jsonl").write_text(json.dumps(line) + "\n")


def by_rank(source):
    found = {}
    for reading in source.read():
        found[reading.rank, reading.metric] = reading.value
    return found


def test_a_rank_s_process_is_measured(tmp_path):
    write_start(tmp_path, 7, pid=os.getpid())
    source = HostSource(tmp_path, HOST)
    first = by_rank(source)
    total = sum(i * i for i in range(2_000_000))
    with Path("/dev/null").open("wb") as sink:
        sink.write(b"x" * (1 << 20))
    second = by_rank(source)
    assert total and second[7, "cpu_seconds"] > first[7, "cpu_seconds"]
    assert first[7, "rss"] > 10 << 20
    assert second[7, "write_call_bytes"] - first[7, "write_call_bytes"] >= 1 << 20
    assert 0 <= second[None, "cpu_share"] <= 1
    assert second[None, "memory_available"] > 0
    assert source.describe()["ranks"] == {"7": os.getpid()}
    assert source.problems() == []


def test_ranks_of_other_hosts_and_boots_are_not_ours(tmp_path):
    write_start(tmp_path, 0, pid=os.getpid(), host="elsewhere")
    write_start(tmp_path, 1, pid=os.getpid(), boot_id="before")
    source = HostSource(tmp_path, HOST)
    assert {rank for rank, _ in by_rank(source)} == {None}
    assert source.problems() == ["no rank of this host was found in spans/"]


def test_ranks_come_late_and_leave_early(tmp_path):
    source = HostSource(tmp_path, HOST)
    assert {rank for rank, _ in by_rank(source)} == {None}
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    (tmp_path / "spans").mkdir()
    (tmp_path / "spans" / "rank-00002.meta.jsonl").write_text("")  # created, not yet written
    assert {rank for rank, _ in by_rank(source)} == {None}
    write_start(tmp_path, 2, pid=child.pid)
    assert {rank for rank, _ in by_rank(source)} == {None, 2}
    child.communicate(b"\n")
    assert {rank for rank, _ in by_rank(source)} == {None}
    assert source.describe()["ranks_ended"] == 1


def test_the_memory_of_a_rank_that_has_just_ended_is_not_zero(tmp_path):
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked how
    write_start(tmp_path, 2, pid=child.pid)
    found = by_rank(HostSource(tmp_path, HOST))
    child.wait()
    assert (2, "cpu_seconds") in found and (2, "rss") not in found


@pytest.mark.parametrize("line", ["", "{", "[]", '{"rank": "x"}', '{"rank": 1, "pid": null}'])
def test_odd_start_lines_are_passed_over(tmp_path, line):
    (tmp_path / "spans").mkdir()
    (tmp_path / "spans" / "rank-00001.meta.jsonl").write_text(line)
    assert {rank for rank, _ in by_rank(HostSource(tmp_path, HOST))} == {None}


def cgroup_tree(tmp_path, where):
    mount, proc = tmp_path / "cgroup", tmp_path / "proc"
    group = mount / "job" / "step"
    group.mkdir(parents=True)
    (mount / "cgroup.controllers").write_text("memory\n")
    (mount / "job" / "memory.current").write_text("4096\n")
    (mount / "job" / "memory.peak").write_text("8192\n")
    (mount / "job" / "memory.events").write_text("low 0\nhigh 2\nmax 3\noom 1\noom_kill 1\n")
    (proc / "42").mkdir(parents=True)
    (proc / "42" / "cgroup").write_text(where)
    return CgroupMemory(42, proc, mount)


def test_memory_of_the_nearest_group_that_has_it(tmp_path):
    group = cgroup_tree(tmp_path, "1:name=systemd:/x\n0::/job/step\n")
    values = {reading.metric: reading.value for reading in group.read()}
    assert values == {
        "cgroup_memory_current": 4096,
        "cgroup_memory_peak": 8192,
        "cgroup_high": 2,
        "cgroup_max": 3,
        "cgroup_oom": 1,
        "cgroup_oom_kill": 1,
    }


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("0::/../../other\n", "no readable memory.current"),
        ("4:memory:/x\n", "in no cgroup v2"),
    ],
)
def test_no_group_says_why(tmp_path, where, reason):
    group = cgroup_tree(tmp_path, where)
    assert reason in group.reason
    assert list(group.read()) == []


def test_pressure(tmp_path):
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "memory").write_text(
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=45\nnonsense\n"
    )
    values = {reading.metric: (reading.value, reading.unit) for reading in pressure(tmp_path)}
    assert values == {"pressure_memory_some": (123, "us"), "pressure_memory_full": (45, "us")}
