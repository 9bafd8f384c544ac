"""Numbers that no evidence has: none of them ends an ingest, or a query of what came of it."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from harness.ingest import ingest_paths
from harness_analysis.store import open_database

RUN = Path(__file__).parents[3] / "fixtures" / "runs" / "h200_tp2_graph"
WILD = (
    *("-1", "0", "99999999999999999999", "1e400", "NaN", "4294967296", "9223372036854775807"),
    *("-9223372036854775809", "1.5", '""', "null"),
)  # fmt: skip


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.02])
def test_meta_lines_with_wild_numbers_are_stored_and_answer(tmp_path, share):
    rng = random.Random(round(share * 100))
    for source in sorted((RUN / "spans").glob("*.meta.jsonl")):
        text = re.sub(
            r"(?<=[:\[,])-?\d[\d.e+-]*(?=[,\]}])",
            lambda found: rng.choice(WILD) if rng.random() < share else found[0],
            source.read_text(),
        )
        (tmp_path / source.name).write_text(text)
    database = tmp_path / "run.duckdb"
    ingest_paths([tmp_path], database, 1)
    with open_database(database) as con:
        failed = "SELECT reason FROM collection WHERE reason LIKE '%reader failed%'"
        assert con.execute(failed).fetchall() == []
        views = con.execute(
            "SELECT view_name FROM duckdb_views() WHERE NOT internal ORDER BY ALL"
        ).fetchall()
        for (view,) in views:
            con.execute(f"SELECT * FROM {view}").fetchall()
        assert con.execute("SELECT count(*) FROM ranks").fetchone()[0] >= 1
        plans = con.execute("SELECT memory_plan FROM ranks").fetchall()
        assert all(json.loads(plan, parse_constant=pytest.fail) for (plan,) in plans if plan)
