"""Two exports of strangers against numbers that were counted by other means (NOTES.md, SQL)."""

from __future__ import annotations

import gzip
import json
import sqlite3
from functools import cache

import duckdb
import pytest
from support import SAMPLES, needs_samples
from unit.collectors.nsys.exports import device_spans, tables

from harness.ingest import ingest_paths

pytestmark = needs_samples
NAMES = ("mfu_2gpu_before", "h100_2gpu_1s")
KERNELS = "CUPTI_ACTIVITY_KIND_KERNEL"


def path_of(name):
    return SAMPLES / f"nsys/{name}.sqlite.gz"


@cache
def sample(name):
    return tables([path_of(name)], SAMPLES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Connections to the samples through SQLite, which shares no code with the reader."""
    folder = tmp_path_factory.mktemp("plain")
    connections = {}
    for name in NAMES:
        path = folder / f"{name}.sqlite"
        path.write_bytes(gzip.decompress(path_of(name).read_bytes()))
        connections[name] = sqlite3.connect(path)
    yield connections
    for con in connections.values():
        con.close()


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("databases")
    return {name: ingest_paths([path_of(name)], folder / f"{name}.duckdb") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_device_work_is_what_sqlite_says(name, plain):
    """Names, times and launches; kernels and calls joined by process and correlation."""
    rows = plain[name].execute(
        f"""
        SELECT k.globalPid >> 24 & 0xFFFFFF, k.start, k.end, k.deviceId, k.streamId, s.value,
          (SELECT min(r.start) FROM CUPTI_ACTIVITY_KIND_RUNTIME r
           WHERE r.correlationId = k.correlationId AND r.globalTid >> 24 = k.globalPid >> 24)
        FROM {KERNELS} k JOIN StringIds s ON s.id = k.demangledName
        """
    )
    (epoch,) = (
        plain[name].execute("SELECT utcEpochNs FROM TARGET_INFO_SESSION_START_TIME").fetchone()
    )
    pids = {row["rank"]: row["pid"] for row in sample(name)["ranks"]}
    found = [
        (
            pids[row["rank"]], row["start_ns"] - epoch, row["end_ns"] - epoch, row["device"],
            row["stream"], row["name"],
            None if row["launch_ns"] is None else row["launch_ns"] - epoch,
        )
        for row in device_spans(sample(name))
        if row["category"] in ("compute", "comm")
    ]  # fmt: skip
    assert sorted(found, key=repr) == sorted(rows.fetchall(), key=repr)


def test_launches_are_joined_by_process(plain):
    """A join by correlation alone gives 4,280 rows."""
    work = [r for r in device_spans(sample("mfu_2gpu_before")) if r["rule"] != "memcpy"]
    kernels = [row for row in work if row["category"] in ("compute", "comm")]
    assert len(kernels) == 4010
    assert sum(row["launch_ns"] is not None for row in kernels) == 3986


@pytest.mark.parametrize("name", NAMES)
def test_every_range_is_kept_or_inside_another(name, plain):
    """Outermost operators by a query over all pairs of neighbours in a thread."""
    (outermost,) = (
        plain[name]
        .execute(
            """
        WITH r AS (SELECT start, end, max(end) OVER (PARTITION BY globalTid ORDER BY start, end DESC
                     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
                   FROM NVTX_EVENTS WHERE domainId = 0)
        SELECT count(*) FROM r WHERE reached IS NULL OR end > reached
        """
        )
        .fetchone()
    )
    kept = [row for row in sample(name)["spans"] if row["rule"] == "host-launch"]
    assert len(kept) == outermost


def breakdown(database):
    query = """
        SELECT window_ns, compute_ns, comm_transfer_ns + comm_wait_ns + comm_unsplit_ns, memcpy_ns,
          idle_ns
        FROM rank_breakdown WHERE phase = 'all' ORDER BY rank
    """
    with duckdb.connect(str(database), read_only=True) as con:
        return con.execute(query).fetchall()


def in_ms(row, digits):
    return tuple(round(value / 1e6, digits) for value in row)


def test_breakdown_of_a_training_step(databases):
    found = breakdown(databases["mfu_2gpu_before"])
    assert [in_ms(row, 2) for row in found] == [
        (299.85, 253.80, 17.17, 2.84, 26.03),
        (298.66, 256.20, 8.23, 2.85, 31.39),
    ]


def test_breakdown_of_an_inference_that_mostly_copies(databases):
    found = breakdown(databases["h100_2gpu_1s"])
    assert [in_ms(row, 1)[:4] for row in found] == [
        (969.4, 22.4, 0, 940.5),
        (969.3, 22.5, 0, 940.4),
    ]


def test_exchanges_are_named_and_their_group_is_not(databases):
    """The report holds no communicator: 64 kernels are all_to_all by the ranges around them, two
    were launched before the cut."""
    rows = sample("mfu_2gpu_before")["collectives"]
    assert len(rows) == 66
    assert sorted({(row["op"], row["comm_group"]) for row in rows}, key=repr) == [
        ("all_to_all", "world?"),
        (None, "world?"),
    ]
    assert sum(row["op"] is None for row in rows) == 2
    with duckdb.connect(str(databases["mfu_2gpu_before"]), read_only=True) as con:
        query = "SELECT count(*) FROM collectives WHERE wait_ns IS NOT NULL"
        assert con.execute(query).fetchone() == (0,)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_about_the_report(name):
    (row,) = sample(name)["collection"]
    detail = json.loads(row["detail"])
    assert (row["state"], row["unreadable"], row["host"]) == ("ok", 0, "modal")
    assert (detail["schema"], detail["ranks_from"]) == ("3.25.0", "the order of processes")
    assert [(r["rank"], r["device"]) for r in sample(name)["ranks"]] == [
        (0, "cuda:0"),
        (1, "cuda:1"),
    ]
