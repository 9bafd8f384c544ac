"""What DuckDB may take of the memory that is left, and what is said where it does not suffice."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from harness_analysis.build.database import build_database
from harness_analysis.store import open_database, writer
from harness_analysis.store.memory import (
    build_memory,
    loading_memory,
    more_memory,
    needed_memory,
    shortages_told,
)
from harness_schemas.errors import HarnessError
from harness_schemas.spi import Batch

GB = 1 << 30
TEXTS = {
    **{"source": "torch_profiler", "timeline": "device", "op": "all_reduce"},
    "comm_group": "[0,1]#0",
}


def host(tmp_path, free, group="", **files):
    """A machine's /proc and control groups."""
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {99 << 20} kB\nMemAvailable: {free >> 10} kB\n")
    (proc / "self" / "cgroup").write_text(group)
    for name, text in files.items():
        path = mount / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return build_memory(proc, mount)


@pytest.fixture(autouse=True)
def not_given(monkeypatch):
    monkeypatch.delenv("HARNESS_MEMORY", raising=False)


@pytest.mark.parametrize(
    ("free", "limit"), [(64 * GB, "2048MiB"), (4 * GB, "1024MiB"), (GB, "640MiB")]
)
def test_a_quarter_of_what_is_free_within_bounds(tmp_path, free, limit):
    assert host(tmp_path, free) == limit


def test_no_more_than_the_rows_need(tmp_path):
    host(tmp_path, 64 * GB)
    assert build_memory(tmp_path / "proc", tmp_path / "cgroup", most=GB) == "1024MiB"
    assert build_memory(tmp_path / "proc", tmp_path / "cgroup", most=9 * GB) == "2048MiB"
    assert loading_memory(2) == "128MiB"


def test_the_tightest_control_group_counts(tmp_path):
    found = host(
        tmp_path,
        64 * GB,
        "0::/job/step\n",
        **{
            "job__memory-max": str(6 * GB),
            "job__memory-current": str(3 * GB),
            "job__memory-stat": f"anon 1\ninactive_file {GB}\n",
            "job__step__memory-max": "max",
            "job__step__memory-current": "1",
        },
    )
    assert found == "1024MiB"


def test_the_first_version_of_control_groups(tmp_path):
    found = host(
        tmp_path,
        64 * GB,
        "9:cpu:/job\n4:memory:/job\n",
        **{
            "memory__memory-limit_in_bytes": str((1 << 63) - 4096),
            "memory__memory-usage_in_bytes": "0",
            "memory__job__memory-limit_in_bytes": str(4 * GB),
            "memory__job__memory-usage_in_bytes": str(3 * GB),
            "memory__job__memory-stat": f"total_inactive_file {2 * GB}\n",
        },
    )
    assert found == f"{3 * GB // 4 >> 20}MiB"


def test_what_is_given_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MEMORY", "much")
    with pytest.raises(HarnessError, match="HARNESS_MEMORY is 'much', no size"):
        build_memory()
    monkeypatch.setenv("HARNESS_MEMORY", "3GB")
    assert host(tmp_path, GB) == "3GB"


def test_too_little_memory_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_MEMORY", "1MB")
    with pytest.raises(HarnessError, match="not enough memory to build") as caught:
        build_database(tmp_path / "a.duckdb", "run", {"name": "run"}, [])
    assert "HARNESS_MEMORY" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_each_thread_needs_its_own():
    assert needed_memory(0, 2) == 320 << 20
    assert needed_memory(10_000_000, 4) == 4 * needed_memory(10_000_000, 1) == 8_000_000_000


def test_more_is_taken_up_to_the_share(tmp_path, monkeypatch):
    assert host(tmp_path, 8 * GB) == "2048MiB"
    places = (tmp_path / "proc", tmp_path / "cgroup")
    assert more_memory("700MiB", *places) == "1400MiB"
    assert more_memory("1400MiB", *places) == "2048MiB"
    assert more_memory("2048MiB", *places) is None
    monkeypatch.setenv("HARNESS_MEMORY", "700MiB")
    assert more_memory("700MiB", *places) is None


def test_a_step_that_needs_more_gets_it(tmp_path, monkeypatch):
    """Aggregates cannot leave memory: on four threads 100 MB of calls once needed more."""
    calls = 60_000
    rows = pa.table(
        {
            **{"seq": pa.array(range(calls), pa.int64()), "start_ns": pa.array(range(calls))},
            **{name: pa.array([text] * calls) for name, text in TEXTS.items()},
            **{name: pa.array([1] * calls, pa.int32()) for name in ("rank", "group_size")},
        }
    )
    limits = []
    monkeypatch.setattr(writer, "needed_memory", lambda calls, threads: 12 << 20)
    monkeypatch.setattr(
        writer, "more_memory", lambda limit: limits.append(limit) or more_memory(limit)
    )
    path = tmp_path / "a.duckdb"
    build_database(path, "run", {"name": "run"}, [Batch("collectives", rows)])
    assert limits[0] == "12MiB"
    with open_database(path) as con:
        assert con.execute("SELECT count(*) FROM collective_waits").fetchone() == (calls,)


def test_no_space_to_spill_to_is_said_to_be_that(tmp_path):
    path = tmp_path / "a.duckdb"
    with (
        pytest.raises(HarnessError, match="no space left to build") as caught,
        shortages_told(path),
        duckdb.connect() as con,
    ):
        con.execute(f"SET temp_directory = '{tmp_path / 'spill'}'")
        con.execute("SET max_temp_directory_size = '1MB'")
        con.execute("SET memory_limit = '10MB'")
        con.execute("CREATE TABLE t AS SELECT random() AS x FROM range(10000000)")
    assert "--output" in caught.value.hint
