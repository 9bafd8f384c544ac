"""Compressed spools: what a failed write, a kill or a damaged disk leaves is read, and no more."""

from __future__ import annotations

import os
import random
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.probe.spool import inflated, records_in

import harness_probe as probe
from harness_collectors.app_timers import AppTimers
from harness_collectors.app_timers.spool import read_meta
from harness_collectors.app_timers.streams import LinesFile, find_records, read_records
from harness_probe import gzip_file
from harness_probe.lines import UnitsFile
from harness_probe.spool import BLOCK_RECORDS, CHUNK_BYTES, RECORD, RECORD_BYTES, SpanFile
from harness_schemas import spool

RANK = "rank-00000"


class Disk:
    """The calls of `os` that a stream makes; it refuses to write more than `room` bytes."""

    def __init__(self, real=os):
        self.room, self.cuts = 1 << 40, True
        self.real = real

    def __getattr__(self, name):
        return getattr(self.real, name)

    def write(self, fd, data):
        if not self.room:
            raise OSError(28, "full")
        done = self.real.write(fd, data[: self.room])
        self.room -= done
        return done

    def ftruncate(self, fd, size):
        if not self.cuts:
            raise OSError(5, "does not answer")
        self.real.ftruncate(fd, size)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    monkeypatch.setattr(gzip_file, "os", disk)
    return disk


def record(number, noise):
    """A record as plausible as a real one."""
    start = number * 50_000 + noise.randrange(20_000)
    head = spool.RECORD_MARKER << 48 | 1 << 40 | noise.randrange(1, 9)
    times = (start, start + noise.randrange(30_000))
    return RECORD.pack(head, number, 0, number // 7, *times, -1, -1, -1, 0, -1, 0)


def add(file, records):
    """As the recording thread does."""
    for packed in records:
        file.chunk[file.offset : file.offset + RECORD_BYTES] = packed
        file.offset += RECORD_BYTES
        if file.offset >= CHUNK_BYTES:
            file.roll()


def found(folder):
    """Numbers of the records that are read, and what reading them met."""
    file = find_records(folder / f"{RANK}.meta.jsonl")
    return [int(n) for table in read_records(file) for n in table[:, 1]], file


FLUSHES = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 3, 40, BLOCK_RECORDS, BLOCK_RECORDS + 1, 2100]),
        st.one_of(st.none(), st.none(), st.integers(0, 4000)),  # the room for it
        st.booleans(),  # whether what is left of it can be cut off
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(FLUSHES, st.integers(0, 5000), st.integers(0, 2**32))
def test_what_was_flushed_is_read_wherever_the_file_ends(tmp_path_factory, flushes, cut, seed):
    folder, disk, noise = tmp_path_factory.mktemp("flushes"), Disk(), random.Random(seed)
    path, number = folder / f"{RANK}.spans.gz", 0
    written, sizes = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip_file, "os", disk)
        file = SpanFile(path)
        for count, room, disk.cuts in flushes:
            numbers = range(number, number + count)
            number += count
            add(file, [record(n, noise) for n in numbers])
            disk.room = 1 << 40 if room is None else room
            before = file.written
            file.flush()
            kept = file.written - before
            assert file.written + file.dropped == number
            # A flush of more than a chunk is written in two.
            written += numbers if kept == count else numbers[:kept] if kept >= 2048 else ()
            written += numbers[count - kept :] if 0 < kept < 2048 and kept < count else ()
            sizes.append((path.stat().st_size if kept == count else 0, len(written)))
    kept, health = found(folder)
    assert kept == written and health.readable
    assert health.records == len(written)
    end = max(0, path.stat().st_size - cut)
    safe = max((count for size, count in sizes if 0 < size <= end), default=0)
    os.truncate(path, end)  # the rank was killed when the file was so long
    kept, _ = found(folder)
    assert kept == written[: len(kept)] and len(kept) >= safe
    file.abandon()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_of_a_damaged_file_only_what_was_written_is_read(tmp_path_factory, seed):
    folder, noise = tmp_path_factory.mktemp("damage"), random.Random(seed)
    path = folder / f"{RANK}.spans.gz"
    file, total = SpanFile(path), 0
    for count in (3, 700, 50):
        add(file, [record(n, noise) for n in range(total, total + count)])
        total += count
        file.flush()
    file.close()
    data = bytearray(path.read_bytes())
    for _ in range(noise.randrange(1, 4)):
        data[noise.randrange(len(data))] = noise.randrange(256)
    path.write_bytes(data[: noise.randrange(len(data))] if noise.random() < 0.3 else data)
    with path.open("ab") as stream:
        stream.write(noise.randbytes(noise.choice([0, 5, 300])))
    kept, health = found(folder)
    assert kept == sorted(set(kept)) and set(kept) <= set(range(total))
    assert len(kept) == total or health.cut or health.records > len(kept) or not health.readable


def test_garbage_bombs_and_nothing_are_no_records(tmp_path, monkeypatch):
    path = tmp_path / f"{RANK}.spans.gz"
    assert found(tmp_path) == ([], find_records(path)) and not found(tmp_path)[1].readable
    for content in (b"", b"x" * 300, b"\x1f\x8b" + b"\0" * 50):
        path.write_bytes(content)
        assert found(tmp_path)[0] == [] and not found(tmp_path)[1].readable
    path.unlink()
    monkeypatch.setattr("harness_collectors.reading.gunzip.BOMB_FLOOR_BYTES", 1 << 20)
    file = gzip_file.GzipFile(path, 9)
    file.append([spool.MAGIC + struct.pack("<II", RECORD_BYTES, 1)])
    block = struct.pack("<II", 512, 0) + bytes(512 * RECORD_BYTES)
    file.append([block] * 200)
    file.close()
    numbers, health = found(tmp_path)
    assert numbers == [] and "bomb" in health.cut


def test_lines_come_back_in_order_and_failed_ones_are_counted(tmp_path, disk):
    units = UnitsFile(tmp_path / f"{RANK}.units.jsonl.gz")
    for number in range(3):
        units.write("attrs", id=3 * number, attrs={"n": number})
        units.write("attrs", id=3 * number + 1, attrs={"n": {1, 2}, ("a",): 1})  # no JSON
        disk.room = 10 if number == 1 else 1 << 20
        units.flush()
    units.close()
    units.write("attrs", id=9, attrs={})
    assert units.dropped == 3 + 1 + 1
    (tmp_path / f"{RANK}.meta.jsonl").write_bytes(b"")
    meta = read_meta(tmp_path / f"{RANK}.meta.jsonl")
    assert (list(meta.attrs), meta.unreadable, meta.cut) == ([0, 6], 0, "")


def test_a_line_that_is_cut_is_counted_and_those_before_it_are_used(tmp_path):
    path = tmp_path / f"{RANK}.units.jsonl.gz"
    units = UnitsFile(path)
    for number in range(2000):
        units.write("attrs", id=number + 1, attrs={"path": f"/data/{number * 7919 % 2003}"})
        if number == 1000:
            units.flush()
    units.close()
    os.truncate(path, path.stat().st_size - 2000)
    (tmp_path / f"{RANK}.meta.jsonl").write_bytes(b"not json\n")
    meta = read_meta(tmp_path / f"{RANK}.meta.jsonl")
    assert 1001 <= len(meta.attrs) < 2000 and meta.unreadable in (1, 2)
    assert LinesFile(path).cut == "" and meta.cut == "the gzip stream ends early"


def test_both_forms_of_a_recording_give_the_same_rows(tmp_path):
    """Recordings of before the streams hold plain records, and all lines in the meta file."""
    probe.start(tmp_path / "new", rank=0, world_size=2)
    group = probe.group([0, 1])
    for step in range(700):
        with probe.unit("decode", step=step, batch=0), probe.span("layer", "compute", step % 3):
            with probe.collective("all_reduce", group, 64, "float32"):
                pass
            with probe.io("read", f"/data/{step}") as file:
                file.add(step)
            probe.tokens([1, 2], device_ns=step, host_ns=step + 1)
    probe.request("a", batch=0, output_tokens=3)
    probe.stop()
    new, old = tmp_path / "new" / RANK, tmp_path / "old" / RANK
    old.parent.mkdir()
    raw = records_in(inflated(new, ".spans.gz"))
    assert len(raw) == 700 * 4 * RECORD_BYTES
    header = spool.MAGIC + struct.pack("<II", RECORD_BYTES, 0)
    old.with_suffix(".spans").write_bytes(header + raw)
    rare = new.with_suffix(".meta.jsonl").read_bytes()
    old.with_suffix(".meta.jsonl").write_bytes(rare + inflated(new, ".units.jsonl.gz"))
    tables = []
    for stem in (new, old):
        batches = AppTimers().ingest([stem.with_suffix(".meta.jsonl")], None)
        rows = [(batch.table, row) for batch in batches for row in batch.data.to_pylist()]
        tables.append(
            [(name, {**row, "bytes": 0} if name == "collection" else row) for name, row in rows]
        )
    assert tables[0] == tables[1]
    assert sum(name == "spans" for name, _ in tables[0]) == 2800


def test_chunks_of_any_size_hold_all_records(tmp_path, monkeypatch):
    monkeypatch.setattr("harness_collectors.app_timers.streams.CHUNK_RECORDS", 600)
    file, noise = SpanFile(tmp_path / f"{RANK}.spans.gz"), random.Random(1)
    packed = [record(n, noise) for n in range(5000)]
    add(file, packed)
    file.close()
    spans = find_records(tmp_path / f"{RANK}.meta.jsonl")
    tables = list(read_records(spans))
    assert max(map(len, tables)) <= 600
    wanted = np.frombuffer(b"".join(packed), dtype="<i8").reshape(-1, 12)
    assert (np.concatenate(tables) == wanted).all()
    assert SimpleNamespace(**vars(spans)).torn_bytes == 0
