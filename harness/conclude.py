"""The last step of every run: its database, and the verdict that rests on it.

Where the run's folder takes no more the database is built elsewhere: nothing of the answer is lost.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.ending.outcome import Outcome, settled
from harness.ending.room import why_full
from harness.ingest import ingest_run
from harness.progress import Narrator
from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir

_NO_ROOM = re.compile(r"No space left|quota exceeded|Could not write|Read-only file system", re.I)


@dataclass(frozen=True)
class RunResult:
    """Where a run is, how it ended, what the process should return; its database, or why none."""

    run: RunDir
    exit_code: int
    outcome: Outcome
    problems: tuple[str, ...] = ()
    database: Path | None = None


@dataclass(frozen=True)
class Built:
    """The database of a run, or why there is none; `note`: that it lies outside of its folder."""

    database: Path | None
    problems: tuple[str, ...] = ()
    note: str = ""


def build(run: RunDir, data: Mapping[str, Any] | None = None, more: Sequence[Path] = ()) -> Built:
    """Build the database; what was recorded stays if that fails, and so does the exit code.

    Where the folder takes no more it is built in TMPDIR, with `data` for run.json. `more`:
    evidence that the folder did not take either.
    """
    try:
        return Built(ingest_run(run, more=more))
    except Exception as error:  # noqa: BLE001 (a defect of ours, or a full disk, is not the run's)
        # Its unfinished file is gone again, and with it perhaps what filled the disk.
        why = why_full(run.path) or ("no room for it" if _NO_ROOM.search(str(error)) else None)
        if why is None:
            return Built(None, (_problem(run, error),))
    folder = Path(tempfile.mkdtemp(prefix="harness-"))
    try:
        database = ingest_run(run, output=folder / f"{run.run_id}.duckdb", data=data, more=more)
    except Exception as error:  # noqa: BLE001 (as above)
        return Built(None, (_problem(run, error),))
    return Built(database, note=f"{why}: {run.path}; the database is {database}")


def conclude(
    run: RunDir,
    outcome: Outcome,
    narrator: Narrator,
    data: Mapping[str, Any] | None = None,
    more: Sequence[Path] = (),
) -> RunResult:
    """Build the database, and take its verdict, which rests on more."""
    built = build(run, data, more)
    if built.note:
        narrator.say(f"  {built.note}")
    if built.database is not None:
        outcome = settled(run, outcome, built.database)
    return RunResult(run, outcome.exit_code, outcome, built.problems, built.database)


def _problem(run: RunDir, error: Exception) -> str:
    if isinstance(error, HarnessError):
        return error.message
    with contextlib.suppress(OSError):
        (run.logs / "ingest.log").write_text(traceback.format_exc())
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}; `harness ingest {run.path}` tries it again"
