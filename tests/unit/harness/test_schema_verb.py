"""The shipped JSON Schema is the one that the code makes."""

from __future__ import annotations

from pathlib import Path

from harness.cli.schema_verb import run_schema

ROOT = Path(__file__).resolve().parents[3]


def test_the_shipped_schema_is_current():
    shipped = (ROOT / "schemas" / "json" / "run.schema.json").read_text()
    assert shipped == run_schema() + "\n", "make it anew: harness schema run > schemas/json/..."
