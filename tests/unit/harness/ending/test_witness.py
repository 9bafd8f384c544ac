"""What the machine says of an end: counters of the control group, the kernel's log, run.json."""

from __future__ import annotations

import signal

import pytest

from harness.ending.outcome import End, end_of, known_end
from harness.ending.witness import Witness, kernel_log, oom_kills
from harness_analysis.verdict.judge import judge
from harness_schemas.spi import LaunchResult, RankExit


def cgroup(tmp_path, version, kills):
    mount, proc = tmp_path / "cgroup", tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    if version == 2:
        group = mount / "job"
        files = {"memory.current": "1\n", "memory.events": f"oom 9\noom_kill {kills}\n"}
        where = "0::/job\n"
    else:
        group = mount / "memory" / "job"
        control = f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
        files = {"memory.usage_in_bytes": "1\n", "memory.oom_control": control}
        where = "4:cpu,memory:/job/step\n0::/\n"
    group.mkdir(parents=True)
    if version == 2:
        (mount / "cgroup.controllers").write_text("memory\n")
    for name, text in files.items():
        (group / name).write_text(text)
    (proc / "self" / "cgroup").write_text(where)
    return proc, mount


@pytest.mark.parametrize("version", [1, 2])
def test_kills_for_memory_are_counted_in_both_versions_of_cgroups(tmp_path, version):
    assert oom_kills(*cgroup(tmp_path, version, 3)) == 3


def test_no_counter_is_unknown_not_zero(tmp_path):
    assert oom_kills(tmp_path, tmp_path) is None
    assert Witness(None, 0).oom_kills_since() is None


KERNEL = (
    (5, "NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus."),
    (20, "usb 1-1: new device"),
    (30, "Memory cgroup out of memory: Killed process 4711 (python3)"),
    (40, "NVRM: Xid (PCI:0000:02:00): 31, pid=3, MMU Fault"),
)


def test_kernel_lines_are_of_this_run_and_kills_only_where_one_was_killed(monkeypatch):
    monkeypatch.setattr("harness.ending.witness.kernel_log", lambda: list(KERNEL))
    witness = Witness(0, 10)
    assert witness.kernel_lines(killed=False) == (KERNEL[3][1],)
    assert witness.kernel_lines(killed=True) == (KERNEL[2][1], KERNEL[3][1])
    raised = end_of(LaunchResult(1, (RankExit(2, 1),)), witness)
    assert raised.kernel_lines == (KERNEL[3][1],)
    assert end_of(LaunchResult(0), witness).kernel_lines == ()
    shot = end_of(LaunchResult(137, (RankExit(2, -signal.SIGKILL),)), Witness(0, 25))
    assert shot.kernel_lines[0] == KERNEL[2][1]


def test_records_of_the_kernel_are_read_as_documented(tmp_path):
    device = tmp_path / "kmsg"
    device.write_bytes(b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=acpi\n")
    fifo_like = kernel_log(device)
    assert fifo_like[0] == (5140900, "NET: Registered")
    assert kernel_log(tmp_path / "none") == []


def test_what_run_json_keeps_is_judged_again_at_ingest(tmp_path):
    end = End(1, rank_exits=(RankExit(3, -9, "killed by SIGKILL HF_TOKEN=hf_abcdefghijkl"),))
    data = {"end": end.to_json(), "spec": {"parallel": {"tp": 2, "pp": 2}}}
    assert "hf_" not in str(data)
    known = known_end(data, tmp_path)
    assert (known.exit_code, known.rank_exits[0].exit_code, known.world_size) == (1, -9, 4)
    assert judge(known).suspect == 3
    for odd in (None, [], {"rank_exits": 3}, {"rank_exits": [{"x": 1}]}):
        assert known_end({"end": odd}, tmp_path).exit_code is None
