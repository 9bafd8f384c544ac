"""What a database says of itself: tables and views with every column's type and comment.

Read from DuckDB after the same statements that build a run's file, so that `harness schema`,
docs/schema.md and the SQL COMMENTs cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness_analysis.views import create_views, load_views
from harness_schemas.tables import TABLES, ddl

if TYPE_CHECKING:
    import duckdb

AREAS = {
    "units": "Where the time of a unit went",
    "communication": "Who waits for whom",
    "latency": "Latency",
    "run": "The run as a whole",
}


@dataclass(frozen=True)
class Described:
    """A column: name, type, comment."""

    name: str
    type: str
    doc: str


@dataclass(frozen=True)
class Relation:
    """A table or view. `area`: the folder of a view; empty for a table."""

    kind: str
    name: str
    area: str
    doc: str
    columns: tuple[Described, ...]


def describe() -> list[Relation]:
    """Every view, then every table, as an empty database has them."""
    import duckdb

    con = duckdb.connect()
    try:
        for table in TABLES:
            con.execute(ddl(table))
        create_views(con)
        columns = _columns(con)
        docs = _docs(con)
    finally:
        con.close()
    areas = {view.name: view.area for view in load_views()}
    named = [("view", name, area) for name, area in areas.items()]
    named += [("table", table.name, "") for table in TABLES]
    return [Relation(kind, name, area, docs[name], columns[name]) for kind, name, area in named]


def _columns(con: duckdb.DuckDBPyConnection) -> dict[str, tuple[Described, ...]]:
    rows = con.execute(
        """
        SELECT table_name, column_name, data_type, comment FROM duckdb_columns()
        WHERE NOT internal ORDER BY table_name, column_index
        """
    ).fetchall()
    found: dict[str, list[Described]] = {}
    for table, name, kind, comment in rows:
        found.setdefault(table, []).append(Described(name, kind, comment or ""))
    return {name: tuple(columns) for name, columns in found.items()}


def _docs(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = con.execute(
        """
        SELECT table_name, comment FROM duckdb_tables() WHERE NOT internal
        UNION ALL SELECT view_name, comment FROM duckdb_views() WHERE NOT internal
        """
    ).fetchall()
    return {name: comment or "" for name, comment in rows}


HEAD = """# Tables and views

Made by `harness schema --markdown`; the same words are in every database as SQL comments
(`SELECT * FROM duckdb_columns()`), and `harness schema NAME` prints those of one table or view.
Questions with their queries: [cookbook.md](cookbook.md).

Times are integer nanoseconds since the Unix epoch on the run's one axis unless the name says
`raw`. NULL is "unknown"; zero is a measurement. Every row has `run_id`, so that queries over
several runs (`harness query 'runs/sweep-7/*' "..."`) can tell them apart.
"""


def markdown(relations: list[Relation]) -> str:
    """docs/schema.md."""
    lines = [HEAD, "## Views", ""]
    lines += [_entry(relation) for relation in relations if relation.kind == "view"]
    lines += ["", "## Tables", ""]
    lines += [_entry(relation) for relation in relations if relation.kind == "table"]
    area = None
    for relation in relations:
        if relation.area != area:
            area = relation.area
            lines += ["", f"## {AREAS.get(area, 'Tables, column by column')}"]
        lines += ["", f"### {relation.name}", "", relation.doc, ""]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {_cell(c.doc)} |" for c in relation.columns]
    return "\n".join(lines) + "\n"


def _entry(relation: Relation) -> str:
    sentence = relation.doc.split(". ")[0].rstrip(".:")
    return f"- [`{relation.name}`](#{relation.name}): {sentence}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
