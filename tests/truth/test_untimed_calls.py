"""Calls that nobody timed are matched by a shorter way, which says what the usual way says."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from truth.simulate_devices import make_batch

from harness_analysis.build import chunks
from harness_analysis.build.database import build_database
from harness_analysis.store import open_database
from harness_analysis.store.writer import Writer

NOTHING_IS_UNTIMED = """
CREATE TEMP TABLE untimed AS SELECT '' AS source LIMIT 0;
CREATE TEMP VIEW timed_parts AS FROM collective_parts;
CREATE TEMP VIEW untimed_parts AS FROM collective_parts LIMIT 0;
"""
OPS = ("all_reduce", "broadcast", "all_to_all", "send", "recv", None)

calls = st.lists(
    st.tuples(
        st.sampled_from(OPS),
        st.sampled_from([0, 1, 2, None]),
        st.sampled_from([0, 1, 2, None]),
        st.sampled_from(["[0,1]#0", "[0,1,2]#1", None]),
        st.booleans(),
    ),
    max_size=24,
)


def listed(op: str | None, rank: int | None, seq: int | None, group: str | None, said: bool):
    """What all ranks say of a call, and why it is not split where the source says that."""
    return {
        **{"source": "nccl_log", "timeline": "host", "rank": rank, "seq": seq, "op": op},
        **{"comm_group": group, "bytes": 1024, "group_size": 2 if group == "[0,1]#0" else 3},
        **{"batch": 1, "microbatch": 2, "repeat": 3, "phase": "decode", "step": seq},
        **{"warmup": seq == 1, "perturbed_by": "nsys"},
        **{"src_rank": 0 if op in ("send", "recv") else None},
        **{"dst_rank": 1 if op in ("send", "recv") else None},
        "unsplit_reason": "the log prints calls, not intervals" if said else None,
    }


def tables(
    rows: list[dict[str, object]], of_instances: str = "*"
) -> list[list[tuple[object, ...]]]:
    floors = {"implementation": "gloo", "op": "all_reduce", "group_size": 2, "p50_ns": 5_000}
    floors |= {"bytes": 1024, "warm_ns": 4_000, "p90_ns": 6_000, "p10_ns": 4_500}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run.duckdb"
        batches = [make_batch("collectives", rows), make_batch("floors", [floors])]
        build_database(path, "run", {"tp": 2}, batches)
        with open_database(path) as con:
            return [
                con.execute(f"SELECT {columns} FROM {name} ORDER BY ALL").fetchall()
                for name, columns in (("collectives", "*"), ("collective_instances", of_instances))
            ]


@settings(max_examples=15, deadline=None)
@given(calls, st.sampled_from([3, chunks.CHUNK_ROWS]))
def test_the_short_way_says_what_the_usual_way_says(drawn: list[tuple], at_once: int):
    # One of a group's calls has one operation, or what `any_value` gives is a matter of luck.
    ops = {}
    rows = [
        listed(op if op in ("send", "recv") else ops.setdefault((seq, group), op), *rest)
        for op, *rest in drawn
        for _, seq, group, _ in [rest]
    ]
    usual = Writer.script

    def script(writer: Writer, name: str) -> None:
        writer.con.execute(NOTHING_IS_UNTIMED) if name == "untimed" else usual(writer, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK_ROWS", at_once)
        short = tables(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "script", script)
        assert tables(rows) == short


def test_calls_with_a_floor_have_it():
    (rows, instances) = tables([listed("all_reduce", rank, 0, "[0,1]#0", True) for rank in (0, 1)])
    assert len(rows) == 2
    assert len(instances) == 1
    assert all(5_000 in row and 4_000 in row for row in (*rows, *instances))


def test_a_rank_that_shows_a_call_twice_is_one_rank():
    twice = [listed("all_reduce", rank, 0, "[0,1]#0", True) for rank in (0, 1, 1)]
    (rows, instances) = tables(
        [*twice, listed("all_reduce", 0, 1, "[0,1]#0", True)], "ranks_present"
    )
    assert len(rows) == 4
    assert instances == [(1,), (2,)]
