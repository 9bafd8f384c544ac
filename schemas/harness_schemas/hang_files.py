"""The files by which a hang is watched for and its stacks are taken, in `artifacts/hang/`.

`vitals-HOST.json`
    What the ranks of a host use, rewritten every few seconds by the sampler there.
`asked.json`
    The session asks for stacks: {"id": text}.
`rank-00003.stack`
    Stacks of a rank: as py-spy prints them, else as faulthandler does.
`done-HOST.json`
    The host's sampler has taken them: {"id": text, "ranks": {rank: {"pid", "state", "how"}}}.
`report.json`, `report.txt`
    What was found when the hang was declared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

ASKED: Final = "asked.json"
REPORT: Final = "report.json"
REPORT_TEXT: Final = "report.txt"
SIGNAL_OFFSET: Final = 7
"""The signal for stacks is SIGRTMIN + this (harness_probe/stacks.py holds its own copy)."""
VARIABLE: Final = "HARNESS_HANG_DIR"
SHORTEST_INTERVAL_S: Final = 0.25
LONGEST_INTERVAL_S: Final = 5.0


def vitals_file(folder: Path, host: str) -> Path:
    """What a host's ranks use."""
    return folder / f"vitals-{host}.json"


def done_file(folder: Path, host: str) -> Path:
    """A host's answer to `ASKED`."""
    return folder / f"done-{host}.json"


def stack_file(folder: Path, rank: int) -> Path:
    """A rank's stacks."""
    return folder / f"rank-{rank:05d}.stack"


def look_interval_s(limit_s: float) -> float:
    """Seconds between two looks: often enough that a limit is not overrun by much."""
    return min(max(limit_s / 8, SHORTEST_INTERVAL_S), LONGEST_INTERVAL_S)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object out of a file; empty where there is none."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}
