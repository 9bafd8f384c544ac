"""The folder of a sweep: ordinary run folders, and `sweep.json` that says what they belong to.

The run folders are the truth; `sweep.json` is written anew from them and from the plan.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.runs.folders import SWEEP_JSON, list_runs
from harness.sweep.plan import Item, SweepPlan
from harness_schemas.errors import UsageError
from harness_schemas.rundir import write_json

UNFINISHED = frozenset({"running", "interrupted"})
"""How a run looks that has to be run again."""


@dataclass(frozen=True)
class CellRun:
    """How one run of a cell ended. `run_id` is None where none was started."""

    repeat: int
    run_id: str | None
    status: str
    verdict: str | None
    detail: str | None
    exit_code: int | None
    wall_s: float | None

    @property
    def good(self) -> bool:
        """Whether it may be measured by."""
        return self.status == "finished" and self.verdict == "ok"


Done = Mapping[tuple[str, int], CellRun]
"""Runs by the key of their cell and their repeat."""


def sweep_folder(root: Path, plan: SweepPlan, fresh: bool = False) -> Path:
    """The folder in which this sweep was begun, the newest; a new one where there is none."""
    begun = sorted(root.glob(f"*-sweep-{plan.sweep_id}"))
    if begun and not fresh:
        return begun[-1]
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", plan.name).strip("-.") or "run"
    return root / f"{time.strftime('%Y%m%d-%H%M%S')}-{slug[:48]}-sweep-{plan.sweep_id}"


def done_runs(folder: Path) -> dict[tuple[str, int], CellRun]:
    """Runs in the folder that need not be run again; of several of one cell, the best newest."""
    done: dict[tuple[str, int], CellRun] = {}
    for run, data in list_runs(folder, deep=False):
        key, repeat = data.get("cell_key"), data.get("repeat")
        if not isinstance(key, str) or not isinstance(repeat, int):
            continue
        found = cell_run(run.run_id, data)
        if found.status in UNFINISHED or found.verdict in UNFINISHED:
            continue
        if found.good and not run.database.is_file():
            continue  # nothing to measure by
        before = done.get((key, repeat))
        if before is None or found.good or not before.good:
            done[key, repeat] = found
    return done


def cell_run(run_id: str | None, data: Mapping[str, Any]) -> CellRun:
    """How a run ended, from its run.json."""
    started, ended = data.get("started_ns"), data.get("ended_ns")
    wall = (ended - started) / 1e9 if isinstance(started, int) and isinstance(ended, int) else None
    return CellRun(
        repeat=int(data.get("repeat") or 0),
        run_id=run_id,
        status=str(data.get("status") or "running"),
        verdict=data.get("verdict"),
        detail=data.get("verdict_detail"),
        exit_code=data.get("exit_code"),
        wall_s=wall,
    )


def pending(plan: SweepPlan, done: Done, retry_failed: bool = False) -> list[Item]:
    """What is left to run, in order."""

    def left(item: Item) -> bool:
        run = done.get((item.cell.key, item.repeat))
        return run is None or (retry_failed and not run.good)

    return [item for item in plan.items() if left(item)]


def write_sweep(folder: Path, plan: SweepPlan, done: Done, status: str) -> None:
    """Write `sweep.json`, whole or not at all."""
    cells = [
        {
            "label": cell.label,
            "key": cell.key,
            "settings": dict(cell.settings),
            "world_size": cell.spec.world_size,
            "runs": [
                asdict(done[cell.key, repeat])
                for repeat in range(plan.repeats)
                if (cell.key, repeat) in done
            ],
        }
        for cell in plan.cells
    ]
    write_json(
        folder / SWEEP_JSON,
        {
            "version": 1,
            "sweep_id": plan.sweep_id,
            "name": plan.name,
            "source": plan.source,
            "preset": plan.preset,
            "repeats": plan.repeats,
            "status": status,
            "cells": cells,
        },
    )


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Work on a sweep alone, on file systems that have locks.

    Raises:
        UsageError: somebody else is at it.
    """
    import fcntl

    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another process works on {folder}", "wait for it, or start anew with --fresh"
            ) from None
        except OSError:
            pass  # no locks here (some NFS and Lustre mounts): go on without
        yield


def read_sweep(folder: Path) -> dict[str, Any]:
    """The content of sweep.json; empty where there is none that can be read."""
    try:
        data = json.loads((folder / SWEEP_JSON).read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
