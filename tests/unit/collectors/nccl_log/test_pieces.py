"""Logs read by several processes: parts of any size, joined, are the rows of the whole."""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import interleaved_chunks
from nccl_tables import ingest
from support import ROOT

from harness.ingest import ingest_paths
from harness.ingest.parts import Task, failed_row
from harness_collectors.nccl_log import COLLECTOR
from harness_collectors.nccl_log.pages import pieces, stream
from harness_collectors.nccl_log.pages.stream import Intake
from harness_schemas.spi import IngestContext, Part

FIXTURES = ROOT / "tests" / "fixtures" / "nccl_log"
ONE = (FIXTURES / "nccl.node-a.4100.log").read_bytes()
TWO = (FIXTURES / "nccl.node-b.5200.log").read_bytes()
PLAIN = re.sub(rb"(?m)^\[[\d.]+\] ", b"", ONE)
STARTED = ONE + TWO


class Pieces:
    """The collector, whose `ingest` goes by way of parts of so many bytes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.parts: list[Part] = []

    def ingest(self, files, context):
        blocks = Intake.blocks
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pieces, "PIECE_BYTES", self.size)
            patch.setattr(pieces, "WORTH_PIECES", 0)
            patch.setattr(Intake, "blocks", lambda intake: blocks(intake, self.size))
            self.parts = list(COLLECTOR.divide(files))
            read = [(part, list(COLLECTOR.read_part(part, context))) for part in self.parts]
        yield from COLLECTOR.join(read, context)


def in_pieces(files, size):
    reader = Pieces(size)
    return ingest(files, collector=reader), reader.parts


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    text=st.one_of(st.just(STARTED), interleaved_chunks(ONE, PLAIN)), size=st.integers(400, 4000)
)
def test_spans_of_any_size_are_the_whole(tmp_path, text, size):
    (tmp_path / "a.log").write_bytes(text)
    assert in_pieces([tmp_path / "a.log"], size)[0] == ingest([tmp_path / "a.log"])


def test_files_of_all_kinds_are_the_same_in_parts(tmp_path):
    """Small ones together, large ones in spans, packed ones and UTF-16 as wholes, none at all."""
    kinds = {
        "a.log": STARTED * 3,
        "b.log.gz": gzip.compress(TWO * 20),
        "c.log": b"",
        "d.log": PLAIN,
        "e.log": b"\xff\xfe" + ONE.decode().encode("utf-16-le"),
        "f.log": ONE[:900],
    }
    for name, text in kinds.items():
        (tmp_path / name).write_bytes(text)
    files = [*map(tmp_path.joinpath, kinds), tmp_path / "gone.log"]
    tables, parts = in_pieces(files, 4096)
    assert tables == ingest(files)
    assert {part.files[0].name for part in parts if part.step} == {"a.log"}
    assert sum(len(part.files) for part in parts if not part.step) == 6


def test_a_line_too_long_to_hold_is_dropped_by_one_part(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "MAX_LINE_BYTES", 10_000)
    path = tmp_path / "a.log"
    path.write_bytes(ONE + b"x" * 40_000 + b"\n" + TWO)
    [dropped] = in_pieces([path], 4096)[0]["collection"]
    assert dropped["bytes"] == path.stat().st_size
    path.write_bytes(ONE + TWO)
    [whole] = ingest([path])["collection"]
    assert (dropped["unreadable"], dropped["records"]) == (
        whole["unreadable"] + 1,
        whole["records"],
    )


def test_a_part_whose_reader_died_is_told_of(tmp_path):
    for name, text in (("a.log", ONE), ("b.log", TWO)):
        (tmp_path / name).write_bytes(text)
    context = IngestContext(tmp_path)
    parts = [Part((tmp_path / name,)) for name in ("a.log", "b.log")]
    dead = failed_row(Task("nccl_log", parts[1], 0), context, "its reader died: SIGKILL")
    read = [(parts[0], COLLECTOR.read_part(parts[0], context)), (parts[1], [dead])]
    tables = defaultdict(list)
    for batch in COLLECTOR.join(read, context):
        tables[batch.table] += batch.data.to_pylist()
    whole, lost = tables["collection"]
    assert (whole["state"], json.loads(whole["detail"])["file"]) == ("ok", "a.log")
    assert (lost["state"], lost["reason"]) == ("failed", "b.log: its reader died: SIGKILL")


def test_two_processes_write_the_same_database(tmp_path, monkeypatch):
    logs = tmp_path / "logs"
    logs.mkdir()
    for number in range(4):
        (logs / f"{number}.log").write_bytes(STARTED.replace(b"node-", b"n%d-" % number))
    (logs / "0.log").write_bytes(STARTED * 30)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 50_000)
    monkeypatch.setattr(pieces, "WORTH_PIECES", 0)
    assert len(COLLECTOR.divide(sorted(logs.iterdir()))) > 2
    found = []
    for jobs in (1, 2):
        (tmp_path / str(jobs)).mkdir()
        found.append(contents(ingest_paths([logs], tmp_path / str(jobs) / "a.duckdb", jobs)))
    assert found[0] == found[1]
    assert len(found[0]["nccl_comms"]) > 8


def contents(path: Path):
    with duckdb.connect(str(path), read_only=True) as con:
        names = [
            name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        ]
        return {name: sorted(map(repr, con.execute(f"FROM {name}").fetchall())) for name in names}
