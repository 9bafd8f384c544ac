"""What is known before a log is read: files' names, and what a run of ours recorded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any


def relative_name(path: Path, root: Path) -> str:
    """The file's name as `collection` has it: relative to where evidence was looked for."""
    try:
        whole = path.resolve() if path.is_symlink() else _resolved(path.parent) / path.name
        return str(whole.relative_to(_resolved(root)))
    except ValueError:
        return path.name


def _resolved(folder: Path) -> Path:
    """A folder's own path, which thousands of files ask for."""
    return _resolved_once(folder.absolute())


@lru_cache(maxsize=16)
def _resolved_once(folder: Path) -> Path:
    return folder.resolve()


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
