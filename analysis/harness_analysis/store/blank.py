"""The empty database: every table and view with its documentation, made once and then copied.

To declare 800 documented columns takes DuckDB a quarter of a second, to copy the 300 kB that they
are 5 ms. The copy lies in the user's cache folder under a name derived from all that it holds;
where that folder cannot be used, every database is declared anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness_analysis.store.row_groups import GROUP_ROWS
from harness_analysis.views import create_views, load_views
from harness_schemas.cachedir import cache_dir
from harness_schemas.tables import TABLES, ddl, quoted

if TYPE_CHECKING:
    import duckdb

STORAGE_VERSION: Final = "v1.4.0"
"""Files are written so that DuckDB 1.4 and later can read them."""
_UNUSABLE: Final = (OSError, RuntimeError)
"""RuntimeError: there is no home folder."""


def attach_blank(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Attach a new file as `run`, with every table and view in it, all of them empty.

    Raises:
        duckdb.Error, OSError: `path` cannot be written.
    """
    import duckdb

    kept = _kept()
    with contextlib.suppress(duckdb.Error):  # what is kept may be damaged
        if kept is not None and _copied(kept, path):
            return _attach(con, path)
    path.unlink(missing_ok=True)
    _attach(con, path)
    _declare(con)
    if kept is not None:
        con.execute("DETACH run")
        _keep(path, kept)
        _attach(con, path)
    return None


def _kept() -> Path | None:
    """Where the empty database of this DuckDB and these declarations is kept."""
    import duckdb

    parts = [duckdb.__version__, STORAGE_VERSION, str(GROUP_ROWS), *map(ddl, TABLES)]
    parts += [f"{view.sql}{view.doc}{view.columns}" for view in load_views()]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    with contextlib.suppress(*_UNUSABLE):
        return cache_dir() / "blank" / f"{name}.duckdb"
    return None


def _copied(kept: Path, path: Path) -> bool:
    try:
        shutil.copyfile(kept, path)
    except OSError:
        return False
    return True


def _keep(path: Path, kept: Path) -> None:
    """Leave a copy for later ingests, and take away those of other versions."""
    part = kept.with_name(f"{kept.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, part)
        part.replace(kept)
        for other in kept.parent.glob("*.duckdb"):
            if other != kept:
                other.unlink(missing_ok=True)


def _attach(con: duckdb.DuckDBPyConnection, path: Path) -> None:
    """The file counts only once it is whole, so it needs no log."""
    import duckdb

    options = f"STORAGE_VERSION '{STORAGE_VERSION}', ROW_GROUP_SIZE {GROUP_ROWS}"
    try:
        con.execute(f"ATTACH {quoted(path)} AS run ({options}, RECOVERY_MODE no_wal_writes)")
    except (duckdb.BinderException, duckdb.ParserException):  # before DuckDB 1.5
        con.execute(f"ATTACH {quoted(path)} AS run ({options})")


def _declare(con: duckdb.DuckDBPyConnection) -> None:
    con.execute("USE run")
    con.execute("BEGIN")  # one transaction: half of the time of one a statement
    for table in TABLES:
        con.execute(ddl(table))
    con.execute("COMMIT")
    create_views(con)
    con.execute("USE memory")
