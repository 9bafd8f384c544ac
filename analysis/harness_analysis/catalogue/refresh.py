"""Brings a catalogue up to date with the folder of runs."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_analysis.catalogue.facts import Row, run_facts

if TYPE_CHECKING:
    import duckdb

FORMAT = 1
SCHEMA = Path(__file__).with_name("schema.sql")

Tell = Callable[[int, int], None]
"""Told how many of the new runs are read, and how many there are."""


@dataclass(frozen=True)
class Entry:
    """A run as it lies in the folder."""

    run_id: str
    folder: Path
    data: Mapping[str, Any]
    """run.json."""
    database: Path | None
    stamp: str
    """Changes whenever run.json or the database does."""


def refresh_catalogue(
    path: Path, entries: Sequence[Entry], tell: Tell = lambda read, total: None
) -> Path:
    """Make the catalogue at `path` hold exactly what the runs say; returns where it is.

    Runs that are no longer there keep their rows, with `present` false. Where `path` cannot be
    written (somebody else's runs) the catalogue is made in TMPDIR.
    """
    known = _known(path)
    here = {entry.run_id for entry in entries}
    new = [entry for entry in entries if (known or {}).get(entry.run_id) != (entry.stamp, True)]
    gone = [name for name, (_, present) in (known or {}).items() if present and name not in here]
    if known is not None and not new and not gone:
        return path
    temporary, final = _places(path)
    try:
        _write(path if known is not None else None, temporary, new, gone, tell)
        temporary.replace(final)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return final


def _known(path: Path) -> dict[str, tuple[str, bool]] | None:
    """Stamp and presence of the runs in the catalogue; None where it has to be built anew."""
    import duckdb

    if not path.is_file():
        return None
    try:
        with contextlib.closing(duckdb.connect(str(path), read_only=True)) as con:
            if con.execute("SELECT version FROM format").fetchall() != [(FORMAT,)]:
                return None
            rows = con.execute("SELECT run_id, stamp, present FROM runs").fetchall()
    except duckdb.Error:
        return None
    return {run_id: (stamp, present) for run_id, stamp, present in rows}


def _places(path: Path) -> tuple[Path, Path]:
    """Where to write, and where to rename it to."""
    own = secrets.token_hex(4)
    name = f".{path.stem}-{own}.tmp"
    if os.access(path.parent, os.W_OK):
        return path.with_name(name), path
    folder = Path(tempfile.gettempdir())
    return folder / name, folder / f"{path.stem}-{own}.duckdb"


def _write(
    old: Path | None, new: Path, entries: Sequence[Entry], gone: Sequence[str], tell: Tell
) -> None:
    import duckdb

    if old is not None:
        shutil.copyfile(old, new)
    with contextlib.closing(duckdb.connect(str(new))) as con:
        if old is None:
            con.execute(SCHEMA.read_text())
            con.execute("INSERT INTO format VALUES (?)", [FORMAT])
        con.execute("BEGIN")
        for position, entry in enumerate(entries):
            tell(position, len(entries))
            _replace(con, entry)
        for run_id in gone:
            con.execute("UPDATE runs SET present = false WHERE run_id = ?", [run_id])
        con.execute("COMMIT")


def _replace(con: duckdb.DuckDBPyConnection, entry: Entry) -> None:
    row, late = run_facts(entry.data, entry.database)
    for table in ("runs", "lateness"):
        con.execute(f"DELETE FROM {table} WHERE run_id = ?", [entry.run_id])
    own = {
        "run_id": entry.run_id,
        "folder": str(entry.folder),
        "stamp": entry.stamp,
        "present": True,
        "has_database": entry.database is not None,
    }
    _insert(con, "runs", {**own, **row})
    for rank in late:
        _insert(con, "lateness", {"run_id": entry.run_id, **rank})


def _insert(con: duckdb.DuckDBPyConnection, table: str, row: Row) -> None:
    marks = ", ".join("?" * len(row))
    con.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
