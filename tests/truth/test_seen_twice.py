"""A record that lies there twice stays two rows, and says nothing of waiting: which is the call?"""

from __future__ import annotations

from pathlib import Path

import pytest
from truth.simulate_devices import EPOCH_NS, make_batch

from harness_analysis.build.database import build_database
from harness_analysis.store import open_database

CLOCKS = [
    {
        **{"source": "app_timers", "rank": rank, "clock_domain": "boot"},
        **{"raw_ns": EPOCH_NS, "wall_ns": EPOCH_NS},
    }
    for rank in (0, 1)
]


def row(op: str, rank: int, start: int, end: int, span: int) -> dict[str, object]:
    ends = {"src_rank": 0, "dst_rank": 1} if op in ("send", "recv") else {}
    return {
        **{"source": "app_timers", "timeline": "host", "rank": rank, "op": op, "seq": 0},
        **{"comm_group": "[0,1]#0", "group_size": 2, "bytes": 4096, "span_id": span},
        **{"start_ns": EPOCH_NS + start, "end_ns": EPOCH_NS + end, **ends},
    }


def waits(path: Path, rows: list[dict[str, object]]) -> list[tuple[object, ...]]:
    batches = [make_batch("clock_anchors", CLOCKS), make_batch("collectives", rows)]
    build_database(path, "run", {"tp": 2}, batches)
    with open_database(path) as con:
        return con.execute(
            "SELECT op, rank, wait_ns, unsplit_reason FROM collectives ORDER BY ALL"
        ).fetchall()


@pytest.mark.parametrize(("ours", "theirs"), [("send", "recv"), ("all_reduce", "all_reduce")])
def test_a_call_seen_twice_on_a_rank(tmp_path, ours, theirs):
    early, late = row(ours, 0, 500, 1_000, 1), row(theirs, 1, 200, 1_000, 2)
    assert waits(tmp_path / "once.duckdb", [early, late]) == sorted(
        [(ours, 0, 0, None), (theirs, 1, 300, None)]
    )
    why = "seen twice on a rank"
    assert waits(tmp_path / "twice.duckdb", [early, late, late | {"span_id": 3}]) == sorted(
        [(ours, 0, None, why), *[(theirs, 1, None, why)] * 2]
    )
