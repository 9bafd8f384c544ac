"""What is known before a log is read: files' names, and what a run of ours recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any


def relative_name(path: Path, root: Path) -> str:
    """The file's name as `collection` has it: relative to where evidence was looked for."""
    place = os.path.realpath(path) if path.is_symlink() else os.fspath(path)
    folder, name = os.path.split(place)
    return f"{_relative_folder(folder, root)}{name}"


@lru_cache(maxsize=16)
def _relative_folder(folder: str, root: Path) -> str:
    """What stands before the names of its files, thousands maybe; nothing where it is elsewhere."""
    try:
        relative = Path(folder).resolve().relative_to(Path(root).resolve())
    except ValueError:
        return ""
    return "" if relative == Path() else f"{relative}{os.sep}"


def planned_world(run: Mapping[str, Any]) -> int | None:
    """The number of ranks that run.json speaks of; None: it does not."""
    size = run.get("world_size")
    if isinstance(size, int):
        return size
    try:
        parallel = run["spec"]["parallel"]
        return int(parallel["tp"]) * int(parallel["pp"])
    except (KeyError, TypeError, ValueError):
        return None


def recorded_ranks(root: Path) -> dict[tuple[str, int], int]:
    """Global ranks by (host, pid) as the ranks of our own runs recorded them (docs/spool.md)."""
    ranks: dict[tuple[str, int], int] = {}
    for meta in sorted((root / "spans").glob("rank-*.meta.jsonl")):
        try:
            with meta.open("rb") as stream:
                start = json.loads(stream.readline(1 << 16))
            host = str(start["host"]).partition(".")[0]
            ranks[(host, int(start["pid"]))] = int(start["rank"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ranks
