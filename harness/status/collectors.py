"""How the collectors of a run fare while it goes on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_schemas.rundir import RunDir

if TYPE_CHECKING:
    from harness.status.snapshot import RankNow

SAMPLES = "samples.jsonl"
STATE = "state.json"
WORST = ("failed", "degraded", "skipped", "samples", "ok")


@dataclass(frozen=True)
class CollectorNow:
    """A collector's state: `samples` while it writes, else as in the table `collection`.

    `written_ns`: when it last wrote, by the file system's clock (Unix time).
    """

    collector: str
    state: str
    hosts: int | None = None
    written_ns: int | None = None
    reason: str = ""


def read_collectors(
    run: RunDir, data: Any, ranks: Sequence[RankNow], over: bool
) -> tuple[CollectorNow, ...]:
    """One line a collector, the worst of its hosts."""
    found = [*_planned(data), *_in_ranks(ranks), *_on_hosts(run, over)]
    together: dict[str, list[CollectorNow]] = {}
    for one in found:
        together.setdefault(one.collector, []).append(one)
    return tuple(_joined(name, items) for name, items in sorted(together.items()))


def _planned(data: Any) -> Iterator[CollectorNow]:
    rows = data.get("collection") if isinstance(data, dict) else None
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("collector"):
            state, reason = str(row.get("state")), row.get("reason")
            yield CollectorNow(str(row["collector"]), state, reason=str(reason or ""))


def _in_ranks(ranks: Iterable[RankNow]) -> Iterator[CollectorNow]:
    for rank in ranks:
        for row in rank.files.collection:
            reason = f"rank {rank.files.rank}: {row.get('reason')}" if row.get("reason") else ""
            yield CollectorNow(str(row.get("collector")), str(row.get("state")), reason=reason)


def _on_hosts(run: RunDir, over: bool) -> Iterator[CollectorNow]:
    for folder in sorted(run.artifacts.glob("*/*")):
        name = folder.parent.name
        with contextlib.suppress(OSError, ValueError, AttributeError):
            row = json.loads((folder / STATE).read_text())
            yield CollectorNow(name, str(row.get("state")), 1, reason=str(row.get("reason") or ""))
            continue
        with contextlib.suppress(OSError):
            written = (folder / SAMPLES).stat().st_mtime_ns
            cut = "it left no closing line" if over else ""
            yield CollectorNow(name, "degraded" if over else "samples", 1, written, cut)


def _joined(name: str, items: Sequence[CollectorNow]) -> CollectorNow:
    worst = min(items, key=lambda item: WORST.index(item.state) if item.state in WORST else 0)
    written = [item.written_ns for item in items if item.written_ns is not None]
    hosts = sum(item.hosts or 0 for item in items)
    return CollectorNow(
        name, worst.state, hosts or None, min(written) if written else None, worst.reason
    )


def latest_folder(root: Path) -> Path | None:
    """The newest run below a sweep, a split specification or a job array: one that runs, else the
    last to begin."""
    runs = []
    for path in root.glob("*/run.json"):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            data = json.loads(path.read_text())
            began = data.get("started_ns") or 0
            runs.append(((data.get("status") == "running", began), path.parent))
    return max(runs, key=lambda item: item[0])[1] if runs else None
