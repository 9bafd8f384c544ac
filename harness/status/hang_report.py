"""What was found when a hang was declared: kept in the run folder, and read again by answers."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass
from typing import Any

from harness.status.snapshot import Snapshot, take_snapshot
from harness_analysis.hang.say import REMEDIES, named, sentence
from harness_analysis.hang.stacks import StackGroup, folded, group_stacks
from harness_schemas import hang_files
from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir, write_json

MOST_STACKS = 12
STACK_BYTES = 256 << 10


@dataclass(frozen=True)
class HangReport:
    """A declared hang. `stacks`: ranks that stand at the same place, and where."""

    sentence: str
    kind: str
    culprits: tuple[int, ...]
    blocked: tuple[int, ...]
    remedy: str
    quiet_ns: int
    limit_ns: int
    declared_ns: int
    stacks: tuple[dict[str, Any], ...] = ()

    def stack_lines(self) -> list[str]:
        """`rank 1: take (wire.py:56) < ...`; of many groups the rarest."""
        lines = []
        for row in self.stacks[:MOST_STACKS]:
            ranks = row["ranks"]
            many = f" ({len(ranks)})" if len(ranks) > 1 else ""
            state = f" [{row['state']}]" if row["state"] else ""
            lines.append(f"{named(ranks)}{many}{state}: {row['line']}")
        left = len(self.stacks) - MOST_STACKS
        return lines + ([f"and {left} more places"] if left > 0 else [])


def write_report(run: RunDir, quiet_ns: int, limit_ns: int) -> HangReport:
    """Diagnose the run now, join its stacks, and leave both in the run folder."""
    now = take_snapshot(run, 1)
    groups = read_stacks(run)
    report = HangReport(
        sentence=sentence(now.diagnosis, {rank.state.rank: rank.state for rank in now.ranks}),
        kind=now.diagnosis.kind,
        culprits=now.diagnosis.culprits,
        blocked=now.diagnosis.blocked,
        remedy=REMEDIES[now.diagnosis.kind],
        quiet_ns=quiet_ns,
        limit_ns=limit_ns,
        declared_ns=time.time_ns(),
        stacks=tuple(_row(group) for group in groups),
    )
    with contextlib.suppress(HarnessError, OSError):
        run.hang.mkdir(parents=True, exist_ok=True)
        write_json(run.hang / hang_files.REPORT, asdict(report))
        (run.hang / hang_files.REPORT_TEXT).write_text(_text(report, groups, now))
    return report


def read_report(run: RunDir) -> HangReport | None:
    """The report of a run; None where no hang was declared, or it cannot be read."""
    data = hang_files.read_object(run.hang / hang_files.REPORT)
    with contextlib.suppress(TypeError, KeyError, ValueError):
        stacks = tuple(
            {"ranks": [int(r) for r in row["ranks"]], "state": str(row["state"]), **_texts(row)}
            for row in data.pop("stacks")
        )
        for name in ("culprits", "blocked"):
            data[name] = tuple(int(rank) for rank in data[name])
        return HangReport(**data, stacks=stacks)
    return None


def _texts(row: dict[str, Any]) -> dict[str, Any]:
    return {"line": str(row["line"]), "frames": list(row["frames"])}


def read_stacks(run: RunDir) -> list[StackGroup]:
    """The stacks that the nodes took, joined."""
    texts: dict[int, str] = {}
    states: dict[int, str] = {}
    why: dict[int, str] = {}
    for path in run.hang.glob("done-*.json"):
        rows = hang_files.read_object(path).get("ranks")
        for rank, row in rows.items() if isinstance(rows, dict) else ():
            if not rank.isdigit() or not isinstance(row, dict):
                continue
            how = str(row.get("how") or "")
            states[int(rank)] = str(row.get("kernel") or "")
            if how.startswith("none"):
                why[int(rank)] = how.removeprefix("none: ")
            else:
                texts[int(rank)] = _read(run, int(rank))
    return group_stacks(texts, states, why)


def _read(run: RunDir, rank: int) -> str:
    try:
        with hang_files.stack_file(run.hang, rank).open("rb") as stream:
            return stream.read(STACK_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _row(group: StackGroup) -> dict[str, Any]:
    return {
        "ranks": list(group.ranks),
        "state": group.state,
        "line": group.line(),
        "frames": [frame.short() for frame in group.frames],
    }


def _text(report: HangReport, groups: list[StackGroup], now: Snapshot) -> str:
    """For people: the sentence, each place with its whole stack, and the same folded."""
    lines = [f"hang: {report.sentence}", f"to do: {report.remedy}", f"run: {now.run.run_id}", ""]
    for group in groups:
        state = f" [{group.state}]" if group.state else ""
        lines.append(f"{named(group.ranks)} ({len(group.ranks)}){state}")
        lines += [f"    {frame.name} ({frame.file}:{frame.line})" for frame in group.frames]
        lines += [f"    {group.why or 'no stack'}"] if not group.frames else []
        lines.append("")
    return "\n".join([*lines, "folded:", *folded(groups), ""])
