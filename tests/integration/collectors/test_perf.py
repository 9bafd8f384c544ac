"""The real perf: what is put around a rank, what it leaves, and what three forms of it say."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness_collectors.perf import COLLECTOR, EVENTS
from harness_collectors.perf.stat import read_stat
from harness_schemas.spi import CaptureRequest, IngestContext

pytestmark = [
    pytest.mark.integration,
    pytest.mark.alone,
    pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not on PATH"),
]

# CPU seconds, not seconds: other work on the machine must not change what is counted.
SPIN = "import time\nwhile time.process_time() < {seconds}: pass\n"
SOFTWARE = ["task-clock", "context-switches", "page-faults"]


def wrapped(tmp_path, options, *command, rank="3"):
    """The command as the harness would start it on one rank."""
    plan = COLLECTOR.prepare(CaptureRequest(tmp_path, 1, "cpu", options))
    env = {**os.environ, "RANK": rank}
    return subprocess.run([*plan.argv_prefix, *command], env=env, check=False, timeout=60)


def files(tmp_path, pattern):
    """Files of our perf, once it has ended (within an interval of the rank's end)."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        found = sorted((tmp_path / "artifacts" / "perf").rglob(pattern))
        if found and all(not held(path) for path in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} was finished")


def held(path):
    """Whether a process of perf still has the file open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [str(fd.readlink()) for fd in (process / "fd").iterdir()]
        except OSError:
            continue
        if str(path) in links:
            return True
    return False


def test_what_a_rank_forks_at_once_is_counted_too(tmp_path):
    """As the runtime of a container does."""
    spin = SPIN.format(seconds=0.6)
    forks = f"import os\nif os.fork(): os.wait()\nelse:\n    exec({spin!r})"
    options = {"interval_ms": 100, "events": SOFTWARE}
    wrapped(tmp_path, options, sys.executable, "-I", "-S", "-c", forks)
    rows = ingest(files(tmp_path, "*.jsonl"), tmp_path)["perf_counters"]
    assert sum(row["value"] or 0 for row in rows if row["event"] == "task-clock") > 550


def ingest(paths, root):
    found = {"perf_counters": [], "samples": [], "collection": []}
    for batch in COLLECTOR.ingest(paths, IngestContext(root)):
        found[batch.table] += batch.data.to_pylist()
    return found


def test_check_tells_what_this_machine_counts():
    found = COLLECTOR.check("cpu")
    facts = found.facts
    if not found.available:
        assert found.reason
        pytest.skip(f"perf counts nothing here: {found.reason}")
    assert set(facts["supported"]) | set(facts["unsupported"]) == set(EVENTS)
    assert "task-clock" in facts["supported"]


def test_counters_of_a_rank(tmp_path):
    began = time.time_ns()
    options = {"interval_ms": 100, "events": SOFTWARE}
    done = wrapped(tmp_path, options, sys.executable, "-c", SPIN.format(seconds=0.8))
    assert done.returncode == 0
    [path] = files(tmp_path, "*.jsonl")
    assert COLLECTOR.recognise(path, path.read_bytes())
    rows = ingest([path], tmp_path)["perf_counters"]
    clock = [row for row in rows if row["event"] == "task-clock"]
    assert {row["rank"] for row in rows} == {3}
    assert {row["host"] for row in rows} == {os.uname().nodename}
    # 0.8 s of one busy thread, less what passed before perf was attached.
    assert 400 < sum(row["value"] or 0 for row in clock) < 1500
    assert len(clock) >= 5
    assert all(began < row["ts_ns"] < time.time_ns() for row in rows)
    # A rank that did not run in an interval was not counted in it; that is no 0.
    assert {row["state"] for row in clock if row["value"] is None} <= {"not_counted"}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["-c", "raise SystemExit(7)"], 7),
        (["-c", "import os; os.kill(os.getpid(), 9)"], -signal.SIGKILL),
        (["-c", "import os; os.kill(os.getpid(), 11)"], -signal.SIGSEGV),
    ],
)
def test_the_exit_of_a_rank_is_its_own(tmp_path, command, code):
    """`perf stat -- COMMAND` turns a death by signal into success; ours may not."""
    assert wrapped(tmp_path, {}, sys.executable, *command).returncode == code


def test_a_rank_has_no_child_that_it_did_not_start(tmp_path):
    script = "import os, sys\ntry:\n os.wait()\nexcept ChildProcessError:\n sys.exit(5)\n"
    assert wrapped(tmp_path, {}, sys.executable, "-c", script).returncode == 5


def test_a_rank_runs_where_nothing_can_be_written():
    """A folder below a device: mkdir fails even for root."""
    plan = COLLECTOR.prepare(CaptureRequest(Path("/dev/null/run"), 1, "cpu", {}))
    argv = [*plan.argv_prefix, "sh", "-c", "exit 6"]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 6


def test_perf_ends_with_the_rank(tmp_path):
    wrapped(tmp_path, {"interval_ms": 100}, sys.executable, "-c", SPIN.format(seconds=0.4))
    [path] = files(tmp_path, "*.jsonl")
    assert not held(path)


def test_stacks_of_a_rank(tmp_path):
    options = {"mode": "record", "frequency": 199}
    done = wrapped(tmp_path, options, sys.executable, "-c", SPIN.format(seconds=1.0))
    assert done.returncode == 0
    [path] = files(tmp_path, "*.data")
    assert COLLECTOR.recognise(path, path.read_bytes()[:4096])
    found = ingest([path], tmp_path)
    [state] = found["collection"]
    assert state["state"] == "ok", state["reason"]
    assert 40 <= state["records"] <= 300
    assert sum(row["value"] for row in found["samples"]) <= state["records"]
    assert {row["rank"] for row in found["samples"]} == {3}


def test_the_three_forms_of_one_perf_agree(tmp_path):
    command = ["--", sys.executable, "-c", SPIN.format(seconds=0.3)]
    events = ",".join([*SOFTWARE, "cycles:u"])
    readings = []
    for number, form in enumerate((["-j"], ["-x", ","], [])):
        path = tmp_path / f"{number}.out"
        argv = ["perf", "stat", *form, "-e", events, "-o", str(path), *command]
        subprocess.run(argv, check=True, env={**os.environ, "LC_ALL": "C"})
        readings.append(read_stat(path.read_text()))
    assert [reading.form for reading in readings] == ["json", "csv", "people"]
    assert [reading.unreadable for reading in readings] == [0, 0, 0]
    for reading in readings:
        assert [c.event for c in reading.counters] == [*SOFTWARE, "cycles:u"]
        assert [c.state for c in reading.counters] == [c.state for c in readings[0].counters]
        assert reading.counters[0].value == pytest.approx(readings[0].counters[0].value, rel=0.5)


@pytest.mark.parametrize("aggregate", [["-A"], ["--per-core"], ["--per-socket"], ["--per-node"]])
def test_counts_of_parts_of_the_machine(tmp_path, aggregate):
    for number, form in enumerate((["-j"], ["-x", ";"], [])):
        path = tmp_path / f"{number}.out"
        argv = ["perf", "stat", "-a", *aggregate, *form, "-I", "50", "-e", "context-switches",
                "-o", str(path), "--", "sleep", "0.12"]  # fmt: skip
        done = subprocess.run(argv, check=False, capture_output=True)
        if done.returncode:
            pytest.skip("counting the whole machine is forbidden here")
        reading = read_stat(path.read_text())
        assert reading.unreadable == 0, path.read_text()
        assert {c.event for c in reading.counters} == {"context-switches"}
        assert None not in {c.scope for c in reading.counters}
        assert len({c.offset_ns for c in reading.counters}) >= 2
