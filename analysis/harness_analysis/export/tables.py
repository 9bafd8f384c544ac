"""A file a table: Parquet or CSV."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness_analysis.export.files import bounded
from harness_schemas.errors import HarnessError, UsageError, meant, said_by
from harness_schemas.tables import TABLES, quoted

if TYPE_CHECKING:
    import duckdb

OPTIONS = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER true"}


def relations(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of all tables and views of a database."""
    rows = con.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' "
        "AND table_catalog = current_database() ORDER BY table_name"
    ).fetchall()
    return [row[0] for row in rows]


def write_tables(
    con: duckdb.DuckDBPyConnection, folder: Path, style: str, names: Sequence[str] = ()
) -> list[Path]:
    """Write tables, or the named tables and views, as `<folder>/<name>.<style>`; a single one,
    where `folder` ends in `.<style>`, as that file.

    Empty tables are written too: their columns are the documentation. Lists of files made.

    Raises:
        UsageError: no such table or view.
        HarnessError: a file cannot be written.
    """
    import duckdb

    present = relations(con)
    unknown = [name for name in names if name not in present]
    if unknown:
        near = meant(unknown[0], present)
        raise UsageError(f"no table or view {unknown[0]!r}{near}", "`harness schema` lists them")
    wanted = list(names) or [table.name for table in TABLES if table.name in present]
    made = []
    with bounded(con):
        for name in wanted:
            alone = len(names) == 1 and folder.suffix == f".{style}" and not folder.is_dir()
            path = folder if alone else folder / f"{name}.{style}"
            temporary = path.with_name(path.name + ".tmp")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                con.execute(f"COPY (FROM {name}) TO {quoted(temporary)} ({OPTIONS[style]})")
                temporary.replace(path)
            except (OSError, duckdb.IOException) as error:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise HarnessError(
                    f"cannot write {path}: {said_by(error)}",
                    "choose another place with --output",
                ) from None
            made.append(path)
    return made
