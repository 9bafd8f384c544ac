"""How a run ended: exit codes, error lines and logs gathered for the verdict, and an exit code."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_analysis.verdict import TextLine, Verdict, VerdictEvidence, judge, lines_of
from harness_analysis.verdict_suspects import CollectiveProgress
from harness_schemas import spool
from harness_schemas.errors import ExitCode
from harness_schemas.redact import redact
from harness_schemas.rundir import RunDir
from harness_schemas.spi import LaunchResult

LOG_TAIL_BYTES = 16 << 10
TAIL_LINES = 12


@dataclass(frozen=True)
class Outcome:
    """What run.json and the database say about the end of a run."""

    status: str
    verdict: str
    detail: str | None
    exit_code: int
    rank: int | None = None
    tail: tuple[str, ...] = ()


def judge_run(run: RunDir, result: LaunchResult, world_size: int) -> Outcome:
    """Judge how the workload ended; `tail` holds the last log lines of the rank to look at."""
    evidence = gather(run, result, world_size)
    verdict = judge(evidence)
    if verdict.name == "ok":
        return Outcome("finished", "ok", None, ExitCode.OK)
    failed = result.failures[0].rank if result.failures else None
    rank = verdict.suspect if verdict.suspect is not None else failed
    return Outcome(
        "failed",
        verdict.name,
        _detail(verdict, failed),
        _exit_code(result),
        rank,
        log_tail(run, rank),
    )


def _exit_code(result: LaunchResult) -> int:
    if result.timed_out:
        return ExitCode.TIMED_OUT
    if result.interrupted:
        return ExitCode.INTERRUPTED
    return result.exit_code


def _detail(verdict: Verdict, failed: int | None) -> str | None:
    first = f"rank {failed} failed first" if failed is not None else None
    return "; ".join(text for text in (first, verdict.detail()) if text) or None


def gather(run: RunDir, result: LaunchResult, world_size: int | None) -> VerdictEvidence:
    """Everything that the run folder says about its end."""
    lines: list[TextLine] = []
    for path in sorted(run.logs.glob("*.err")):
        rank = _rank_of(path)
        lines += lines_of("stderr", _tail_text(path), rank)
    for owner, row in _meta_rows(run, b'{"t":"error"'):
        lines += lines_of("spool", f"{row.get('kind')}: {row.get('message')}", owner)
    return VerdictEvidence(
        exit_code=result.exit_code,
        timed_out=result.timed_out,
        interrupted=result.interrupted,
        world_size=world_size,
        rank_exits=result.failures,
        lines=tuple(lines),
        progress=tuple(progress(run)),
    )


def progress(run: RunDir) -> Iterator[CollectiveProgress]:
    """How far every rank was in each of its groups, from the live pages."""
    groups: dict[int, dict[int, tuple[str, tuple[int, ...]]]] = {}
    for rank, row in _meta_rows(run, b'{"t":"group"'):
        ranks = tuple(row.get("ranks", ()))
        name = f"[{','.join(map(str, ranks))}]#{row.get('ordinal')}"
        groups.setdefault(rank, {})[int(row["id"])] = (name, ranks)
    for path in sorted(run.spans.glob("rank-*.live")):
        owner = _rank_of(path)
        if owner is None:
            continue
        for group_peer, entered, left in _slots(path):
            known = groups.get(owner, {}).get(group_peer >> 32)
            if known is not None and not group_peer & 0xFFFFFFFF:
                yield CollectiveProgress(owner, known[0], entered, left, known[1])


_HEAD = struct.Struct(f"<8s{len(spool.LIVE_HEAD_FIELDS)}q")
_SLOT = struct.Struct("<3q")


def _slots(path: Path) -> Iterator[tuple[int, int, int]]:
    try:
        data = path.read_bytes()
        magic, *head = _HEAD.unpack_from(data)
        if magic != spool.LIVE_MAGIC:
            return
        for index in range(min(max(head[-1], 0), spool.LIVE_GROUP_SLOTS)):
            group_peer, entered, left = _SLOT.unpack_from(data, _HEAD.size + index * _SLOT.size)
            yield group_peer, entered, left
    except (OSError, struct.error):
        return


def _meta_rows(run: RunDir, beginning: bytes) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for path in sorted(run.spans.glob("rank-*.meta.jsonl")):
        rank = _rank_of(path)
        if rank is None:
            continue
        with path.open("rb") as stream:
            for line in stream:
                if line.startswith(beginning):
                    try:
                        yield rank, json.loads(line)
                    except ValueError:
                        continue


def _rank_of(path: Path) -> int | None:
    digits = path.name.removeprefix("rank-").split(".")[0]
    return int(digits) if digits.isdigit() else None


def _tail_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def log_tail(run: RunDir, rank: int | None) -> tuple[str, ...]:
    """The last lines of a rank's stderr (of the launcher's where no rank is known), redacted."""
    path = run.logs / "launcher.err" if rank is None else run.rank_log(rank, "err")
    kept = [line for line in _tail_text(path).splitlines() if line.strip()]
    return tuple(redact(line) for line in kept[-TAIL_LINES:])
