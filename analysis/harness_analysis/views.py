"""The views: one SQL file each, its columns documented at its head.

-- One sentence about what a row is.
-- @columns of collectives          (its columns are in the view, with the same meaning)
-- @column name: what it means
CREATE VIEW name AS ...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness_schemas.tables import BY_NAME, quoted

if TYPE_CHECKING:
    import duckdb

SQL = Path(__file__).with_name("sql")
AREAS = ("units", "communication", "latency", "run")
"""Folders in the order of creation: a view may use those of earlier areas."""

_COLUMNS_OF = re.compile(r"^-- @columns of (\w+)$")
_COLUMN = re.compile(r"^-- @column (\w+): (.+)$")


@dataclass(frozen=True)
class View:
    """A view as its file declares it."""

    name: str
    area: str
    doc: str
    columns: dict[str, str]
    sql: str


def load_views() -> list[View]:
    """Every view, in the order of creation.

    Raises:
        ValueError: a file whose head is malformed (a defect of ours, caught by tests).
    """
    views = []
    for area in AREAS:
        for path in sorted((SQL / area).glob("*.sql")):
            views.append(parse_view(path.stem.lstrip("0123456789_"), area, path.read_text()))
    return views


def parse_view(name: str, area: str, text: str) -> View:
    """Read a view's file."""
    doc: list[str] = []
    columns: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        match = _COLUMN.match(line)
        table = _COLUMNS_OF.match(line)
        if table:
            columns.update({column.name: column.doc for column in BY_NAME[table[1]].columns})
        elif match:
            last = match[1]
            columns[last] = match[2].strip()
        elif last:
            columns[last] += " " + line[2:].strip()
        else:
            doc.append(line[2:].strip())
    if not doc or not columns:
        raise ValueError(f"{area}/{name}.sql lacks its documentation")
    return View(name, area, " ".join(doc), columns, text)


def create_views(con: duckdb.DuckDBPyConnection) -> None:
    """Create every view in the current database, with comments."""
    con.execute("BEGIN")  # one transaction: a third less than one a statement
    for view in load_views():
        con.execute(view.sql)
        con.execute(f"COMMENT ON VIEW {view.name} IS {quoted(view.doc)}")
        for column, doc in view.columns.items():
            con.execute(f"COMMENT ON COLUMN {view.name}.{column} IS {quoted(doc)}")
    con.execute("COMMIT")
