"""What is left of a spool when its writer is killed, forked or out of disk."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from unit.probe.spool import lines, read

from harness_collectors.app_timers import AppTimers
from harness_probe.lines import MetaFile


def run(folder, code, **options):
    return subprocess.Popen(
        [sys.executable, "-c", f"folder = {str(folder)!r}\n" + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


KILLED = """
import sys, time
import harness_probe as probe
probe.start(folder, rank=0, world_size=1)
group = probe.group([0])
step = 0
print("ready", flush=True)
while True:
    step += 1
    with probe.unit("decode", step=step), probe.collective("all_reduce", group, 8):
        time.sleep(0.001)
"""


def test_kill_loses_at_most_a_second_and_leaves_readable_files(tmp_path):
    process = run(tmp_path, KILLED)
    assert process.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 60
    while len(read(tmp_path).records) < 3000:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    killed_ns = time.monotonic_ns()
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    spool = read(tmp_path)
    assert spool.torn == 0
    assert lines(spool, "end") == []
    newest = max(record.end_ns for record in spool.records)
    assert killed_ns - newest < 1_000_000_000
    assert 0 < spool.live.recorded_ns <= newest
    known = {line["id"] for line in lines(spool, "unit")}
    assert {record.unit_id for record in spool.records} <= known
    # The live page is exact to the last call, though its record was never flushed.
    assert spool.live.entered >= len(spool.records) / 2
    assert spool.live.updated_ns > newest
    assert killed_ns - spool.live.updated_ns < 500_000_000


def test_what_a_killed_rank_hung_in_is_on_record(tmp_path):
    process = run(
        tmp_path,
        """
        import time
        import harness_probe as probe
        probe.start(folder, rank=0, world_size=1)
        group = probe.group([0, 1])
        with probe.unit("decode", step=9), probe.collective("all_reduce", group, 77):
            print("inside", flush=True)
            time.sleep(60)
        """,
    )
    assert process.stdout.readline() == "inside\n"
    process.kill()
    process.wait()
    spool = read(tmp_path)
    assert spool.records == []
    assert (spool.live.bytes, spool.live.ordinal) == (77, 0)
    (described,) = [line for line in lines(spool, "desc") if line["id"] == spool.live.pending]
    assert described["name"] == "all_reduce"
    unit = spool.live.unit  # its line was to be written within the next half second
    assert (unit.unit_id, unit.step, unit.phase) == (spool.live.unit_id, 9, b"decode" + bytes(10))
    batches = list(AppTimers().ingest([tmp_path / "rank-00000.meta.jsonl"], None))
    (call,) = [b.data.to_pylist()[0] for b in batches if b.table == "collectives"]
    assert (call["op"], call["phase"], call["step"], call["seq"]) == ("all_reduce", "decode", 9, 0)
    (unit,) = [b.data.to_pylist()[0] for b in batches if b.table == "spans"]
    assert (unit["phase"], unit["step"], unit["complete"]) == ("decode", 9, False)


def test_a_forked_child_records_nothing_and_harms_nothing(tmp_path):
    process = run(
        tmp_path,
        """
        import os, sys
        import harness_probe as probe
        probe.start(folder, rank=0, world_size=1)
        with probe.span("before"):
            pass
        with probe.unit("decode", step=1):
            child = os.fork()
            if child == 0:
                assert not probe.enabled()
                for _ in range(5000):
                    with probe.span("child"):
                        pass
                sys.exit(7)  # runs atexit: it must not close the parent's files
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with probe.span("after"):
            pass
        """,
    )
    assert process.wait(30) == 0
    spool = read(tmp_path)
    assert [record.name for record in spool.records] == ["before", "decode", "after"]
    assert len(lines(spool, "start")) == len(lines(spool, "end")) == 1


FULL = """
import os, resource, signal, sys, time
import harness_probe as probe
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
probe.start(folder, rank=0, world_size=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, resource.RLIM_INFINITY))
for _ in range(3000):
    with probe.span("x"):
        pass
    probe.fact(stage=0)
    probe.attrs(noise=os.urandom(8).hex())
probe.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for _ in range(10):
    with probe.span("y"):
        pass
probe.stop()
print("finished")
"""


def test_a_full_disk_is_counted_and_the_file_stays_aligned(tmp_path):
    process = run(tmp_path, FULL)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "finished\n")
    spool = read(tmp_path)
    for path in tmp_path.glob("*.gz"):
        gzip.decompress(path.read_bytes())  # whole, by its checksum
    (end,) = lines(spool, "end")
    assert end["dropped"] > 0
    assert end["records"] == len(spool.records)
    assert end["records"] + end["dropped"] == 3010
    assert [record.name for record in spool.records[-10:]] == ["y"] * 10
    kept = len(lines(spool, "fact")) + len(lines(spool, "attrs"))
    assert end["dropped_meta"] + kept == 6000
    assert len(lines(spool, "attrs")) < 3000
    assert spool.torn <= 1


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_really_full_disk(small_disk):
    (small_disk / "ballast").write_bytes(b"x" * 50_000)
    process = run(small_disk, FULL)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "finished\n")
    spool = read(small_disk)
    assert len(spool.records) < 3010
    # The line that names them may have found no room.
    assert {record.name for record in spool.records} <= {"x", "y", None}


def test_no_room_at_all_is_one_line(small_disk):
    (small_disk / "ballast").write_bytes(b"x" * 65_536)
    code = "import harness_probe as probe\nprint(probe.start(folder))"
    process = run(small_disk, code, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert out == "False\n"
    assert err.count("\n") == 1 and "not recording" in err


def test_lines_of_a_slow_file_system_are_left_to_the_flusher_in_order(tmp_path):
    meta = MetaFile(tmp_path / "rank-00000.meta.jsonl")
    reader, writer = os.pipe()
    os.dup2(writer, meta.fd)
    os.close(writer)
    filled = fcntl.fcntl(meta.fd, fcntl.F_GETPIPE_SZ)
    os.write(meta.fd, b" " * (filled - 1) + b"\n")
    drained: list[bytes] = []

    def drain() -> None:
        time.sleep(0.05)  # the one write that meets it waits, and is slow
        drained.append(os.read(reader, filled))

    thread = threading.Thread(target=drain)
    thread.start()
    meta.write("fact", n=0)
    thread.join()
    os.write(meta.fd, b" " * (filled - 4096 - 1) + b"\n")
    for n in range(1, 5000):  # far more than the pipe holds, and nobody reads: none waits
        meta.write("fact", n=n)
    assert meta.dropped == 0
    closer = threading.Thread(target=meta.close)
    closer.start()
    while data := os.read(reader, 1 << 16):
        drained.append(data)
    closer.join()
    rows = [line for line in b"".join(drained).split(b"\n") if line.strip()]
    assert [json.loads(row)["n"] for row in rows] == list(range(5000))
