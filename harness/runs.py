"""Runs by name: a folder, a database, an id, a Slurm job id, or `latest`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness_schemas.errors import UsageError
from harness_schemas.rundir import RunDir

DEFAULT_ROOT = "runs"


def runs_root() -> Path:
    """Where runs are looked for: HARNESS_OUTPUT, else ./runs."""
    return Path(os.environ.get("HARNESS_OUTPUT", DEFAULT_ROOT))


def find_databases(names: Sequence[str]) -> list[Path]:
    """The database of every named run; names may hold wildcards.

    Raises:
        UsageError: a name that matches nothing, or a run that has no database yet.
    """
    found: list[Path] = []
    for name in names:
        matches = _expand(name) if _wild(name) else []
        if _wild(name) and not matches:
            raise UsageError(f"nothing matches {name!r}")
        for path in matches or [find_run(name)]:
            database = _database(path)
            if database is not None:
                found.append(database)
            elif not matches:
                raise UsageError(
                    f"{path} has no database yet", f"make it with `harness ingest {path}`"
                )
    return list(dict.fromkeys(found))


def _wild(name: str) -> bool:
    return any(character in name for character in "*?[")


def _expand(name: str) -> list[Path]:
    pattern = Path(name)
    return sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))


def _database(path: Path) -> Path | None:
    if path.is_file():
        return path
    database = RunDir(path).database
    return database if database.is_file() else None


def find_run(name: str) -> Path:
    """A run's folder, or a database file.

    Raises:
        UsageError: no such run, or the name is ambiguous.
    """
    path = Path(name)
    if path.exists():
        return path.resolve() if path.is_symlink() else path
    root = runs_root()
    direct = root / name
    if direct.exists():
        return direct.resolve()
    matches = [run for run, data in list_runs(root) if _matches(name, run, data)]
    if len(matches) == 1:
        return matches[0].path
    if matches:
        names = ", ".join(run.run_id for run in matches[:5])
        raise UsageError(f"{name!r} names {len(matches)} runs: {names}", "give more of the id")
    raise UsageError(
        f"no run {name!r}: neither a path nor a run in {root}", "`harness list` shows the runs"
    )


def _matches(name: str, run: RunDir, data: dict[str, Any]) -> bool:
    return run.run_id.endswith(name) or str(data.get("job_id") or "") == name


def list_runs(root: Path) -> Iterator[tuple[RunDir, dict[str, Any]]]:
    """Run folders under `root` (two levels: sweeps hold runs), oldest first."""
    for path in sorted([*root.glob("*/run.json"), *root.glob("*/*/run.json")]):
        if path.parent.is_symlink() or any(part.is_symlink() for part in path.parents):
            continue
        try:
            data = json.loads(path.read_text())
        except (OSError, ValueError):
            data = {}
        yield RunDir(path.parent), data if isinstance(data, dict) else {}
