"""`harness ingest --rules`: rules of one's own are asked first, and mistakes in them are said."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from support import ROOT

from harness.cli.main import cli
from harness_analysis.answer import load_answer
from harness_analysis.store import open_database
from harness_collectors.names.classify import RULES_ENV

TRACE = ROOT / "tests" / "fixtures" / "kineto" / "rank0.json"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    monkeypatch.setenv(RULES_ENV, "")


def ingest(tmp_path: Path, text: str):
    rules = tmp_path / "mine.toml"
    rules.write_text(text)
    argv = ["ingest", str(TRACE), "-o", str(tmp_path / "d.duckdb"), "--rules", str(rules)]
    return CliRunner().invoke(cli, argv)


def test_own_rules_come_first_and_the_unclassified_share_is_in_the_answer(tmp_path):
    rule = '[[rule]]\nid = "mine"\ncategory = "comm_fused"\nkinds = ["kernel"]\nfunction = "."\n'
    assert ingest(tmp_path, rule).exit_code == 0
    with open_database(tmp_path / "d.duckdb") as con:
        found = con.execute(
            "SELECT DISTINCT rule, category FROM spans "
            "WHERE timeline = 'device' AND category NOT IN ('memcpy', 'memset')"
        ).fetchall()
        assert found == [("mine", "comm_fused")]
        assert load_answer(con).unclassified_share == 0


def test_a_wrong_rule_is_refused_before_anything_is_read(tmp_path):
    done = ingest(tmp_path, '[[rule]]\nid = "mine"\ncategory = "sport"\nkinds = ["kernel"]\n')
    assert "no such category: 'sport'" in str(done.exception)
    assert not (tmp_path / "d.duckdb").exists()
