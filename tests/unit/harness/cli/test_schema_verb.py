"""The shipped JSON Schema and docs/schema.md are the ones that the code makes."""

from __future__ import annotations

from click.testing import CliRunner
from support import ROOT

from harness.cli import schema_verb
from harness.cli.schema_verb import run_schema
from harness_analysis.documentation import describe


def test_the_shipped_schema_is_current():
    shipped = (ROOT / "schemas" / "json" / "run.schema.json").read_text()
    assert shipped == run_schema() + "\n", "make it anew: harness schema run > schemas/json/..."


def test_the_page_of_tables_and_views_is_current():
    shown = CliRunner().invoke(schema_verb.command, ["--markdown"])
    shipped = (ROOT / "docs" / "schema.md").read_text()
    assert shipped == shown.output, "make it anew: harness schema --markdown > docs/schema.md"


def test_every_table_view_and_column_has_a_comment():
    relations = describe()
    assert len(relations) > 30
    assert [relation.name for relation in relations if not relation.doc] == []
    lacking = [
        f"{relation.name}.{column.name}"
        for relation in relations
        for column in relation.columns
        if not column.doc
    ]
    assert lacking == []


def test_a_view_s_columns_are_shown_with_their_types():
    shown = CliRunner().invoke(schema_verb.command, ["stragglers", "--csv"])
    lines = shown.output.splitlines()
    assert lines[0] == "column,type,meaning"
    assert "share_last,DOUBLE,times_last / collectives" in lines
