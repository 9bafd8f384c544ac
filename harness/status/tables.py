"""A snapshot as tables: what is pending, ranks, groups, stacks and collectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from harness.sections import Section
from harness.status.collectors import CollectorNow
from harness.status.hang_report import HangReport
from harness.status.headline import age_text, unbegun_job
from harness.status.progress import Progress
from harness.status.snapshot import RankNow, Snapshot
from harness_analysis.hang.model import PendingCall
from harness_analysis.hang.say import (
    REMEDIES,
    call_text,
    group_text,
    ranks_text,
)

MOST_RANKS = 16
"""Ranks of which every one has a line; more are joined by what they do."""
MOST_LINES = 16
EARLIEST_NS = 1_000_000_000

CALL_COLUMNS = (
    *("op", "comm_group", "seq", "bytes", "pending_ns", "waiting", "missing"),
    *("reached", "halted", "unknown", "mismatch"),
)
READ_CALLS = ("pending call", "for", "waiting", "missing: calls it made there")
RANK_COLUMNS = (
    *("rank", "host", "pid", "process", "begun", "ended", "phase", "batch", "microbatch"),
    *("repeat", "step", "age_ns", "op", "comm_group", "seq", "bytes", "pending_ns", "reached"),
)
READ_RANKS = ("rank", "host", "process", "in", "doing", "for", "last record")
READ_JOINED = ("ranks", "count", "hosts", "process", "in", "doing", "last record")
GROUP_COLUMNS = ("comm_group", "ranks", "entered_min", "entered_max", "behind")


def call_section(now: Snapshot, machine: bool) -> Section:
    """The calls in which ranks wait, the decisive one first."""
    calls = now.diagnosis.calls
    if machine:
        rows: list[tuple[Any, ...]] = [_call_row(call, now) for call in calls]
        return Section("calls", "Pending calls", CALL_COLUMNS, rows)
    rows = [
        (call_text(call), age_text(call.since_ns, now), _waiting(call), _missing(call))
        for call in calls[:MOST_LINES]
    ]
    more = [f"and {len(calls) - MOST_LINES:,} more"] if len(calls) > MOST_LINES else []
    return Section("calls", "Pending calls", READ_CALLS, rows, more)


def _call_row(call: PendingCall, now: Snapshot) -> tuple[Any, ...]:
    since = None if call.since_ns is None else max(0, now.now_ns - call.since_ns)
    reached = {str(rank): ordinal for rank, ordinal in call.missing.items()}
    return (
        *(call.op, call.group, call.ordinal, call.num_bytes, since),
        *(list(call.waiting), sorted(call.missing), reached),
        *(list(call.halted), list(call.unknown), call.mismatch or None),
    )


def _waiting(call: PendingCall) -> str:
    return ranks_text([r for r in call.waiting if r not in call.halted] or call.waiting)


def _missing(call: PendingCall) -> str:
    reached: dict[int, list[int]] = {}
    for rank, ordinal in call.missing.items():
        reached.setdefault(ordinal, []).append(rank)
    parts = [f"{ranks_text(ranks)}: {at + 1}" for at, ranks in sorted(reached.items())[:4]]
    parts += [f"{ranks_text(call.halted)}: in it, but its process is halted"] if call.halted else []
    parts += [f"{ranks_text(call.unknown)}: unknown"] if call.unknown else []
    return "; ".join(parts) or "nobody: all are in it"


def rank_section(now: Snapshot, machine: bool) -> Section:
    """A line a rank; of many ranks a line for each thing that they do."""
    if machine:
        return Section("ranks", "Ranks", RANK_COLUMNS, [_rank_row(r, now) for r in now.ranks])
    if len(now.ranks) <= MOST_RANKS:
        rows: list[tuple[Any, ...]] = [_read_rank(rank, now) for rank in now.ranks]
        return Section("ranks", "Ranks", READ_RANKS, rows)
    return _joined_ranks(now)


def _rank_row(rank: RankNow, now: Snapshot) -> tuple[Any, ...]:
    state, unit, call = rank.state, rank.files.unit, rank.state.call
    age = None if state.moved_ns is None else max(0, now.now_ns - state.moved_ns)
    since = None
    if call is not None and call.since_ns is not None:
        since = max(0, now.now_ns - call.since_ns)
    pid = rank.files.start.get("pid")
    return (
        *(state.rank, rank.host, pid, rank.process, state.begun, state.ended),
        *(unit.get(key) for key in ("phase", "batch", "microbatch", "repeat", "step")),
        age,
        *((call.op, call.group, call.ordinal, call.num_bytes) if call else (None,) * 4),
        *(since, dict(state.entered)),
    )


def _read_rank(rank: RankNow, now: Snapshot) -> tuple[Any, ...]:
    call = rank.state.call
    since = age_text(call.since_ns, now) if call else None
    where = rank.state.where or None
    doing = _doing(rank, now)
    return (
        *(rank.state.rank, rank.host, _process(rank), where, doing, since),
        age_text(rank.state.moved_ns, now),
    )


def _process(rank: RankNow) -> str | None:
    pid = rank.files.start.get("pid")
    return rank.process if pid is None else f"{rank.process or 'unknown'} ({pid})"


def _doing(rank: RankNow, now: Snapshot, group: bool = True) -> str:
    state, call = rank.state, rank.state.call
    if not state.begun:
        return "never began to record"
    if state.ended or now.over:
        error = rank.files.error or {}
        said = f": {error.get('kind')}: {error.get('message')}" if error else ""
        return ("has ended" if state.ended else "was cut") + said
    if call is None:
        return "in no call" if state.readable else "unknown: it has no live page"
    number = "" if call.ordinal is None else f" {call.ordinal}"
    if call.op in ("send", "recv"):
        peer = "" if call.peer is None else f" {'to' if call.op == 'send' else 'from'} {call.peer}"
        return f"{call.op}{number}{peer if group else ''}"
    return f"{call.op}{number}" + (f" of {group_text(call.group)}" if group else "")


def _joined_ranks(now: Snapshot) -> Section:
    """Ranks that do the same in one line; those to blame first, then the fewest."""
    culprits = set(now.diagnosis.culprits)
    together: dict[tuple[Any, ...], list[RankNow]] = {}
    for rank in now.ranks:
        of = (rank.state.rank in culprits, rank.process, rank.state.where)
        together.setdefault((*of, _doing(rank, now, group=False)), []).append(rank)
    order = sorted(together.items(), key=lambda item: (not item[0][0], len(item[1])))
    rows = [
        (
            ranks_text(rank.state.rank for rank in ranks),
            len(ranks),
            len({rank.host for rank in ranks if rank.host}),
            *(process, where or None, doing),
            _ages(ranks, now),
        )
        for (_, process, where, doing), ranks in order[:MOST_LINES]
    ]
    left = sum(len(ranks) for _, ranks in order[MOST_LINES:])
    more = [f"and {left:,} more ranks; --json has every one"] if left else []
    return Section("ranks", "Ranks, joined by what they do", READ_JOINED, rows, more)


def group_section(now: Snapshot, machine: bool) -> Section:
    """The last collective entered in every group: the slowest and the fastest member."""
    reached: dict[str, dict[int, int]] = {}
    for rank in now.ranks:
        for group, ordinal in rank.state.entered.items():
            reached.setdefault(group, {})[rank.state.rank] = ordinal
    rows = []
    for group, ordinals in reached.items():
        low, high = min(ordinals.values()), max(ordinals.values())
        behind = [rank for rank, ordinal in ordinals.items() if ordinal < high]
        shown = behind if machine else ranks_text(behind, 4) or None
        name = group if machine else group_text(group).removeprefix("group ")
        rows.append((name, len(ordinals), low, high, shown))
    rows.sort(key=lambda row: (not row[4], row[2] - row[3]))
    kept = rows if machine or len(rows) <= MOST_LINES else [row for row in rows if row[4]]
    kept = kept if machine else kept[:MOST_LINES]
    more = [f"{len(rows) - len(kept):,} more groups, none further apart"]
    columns = ("group", "ranks", "last entered by the slowest", "by the fastest", "behind")
    title = "Last collective of every group"
    notes = more if len(kept) < len(rows) else []
    return Section("groups", title, GROUP_COLUMNS if machine else columns, kept, notes)


def stack_section(report: HangReport | None, machine: bool) -> Section:
    """Where the ranks stood when a hang was declared; ranks at the same place are one line."""
    rows: list[tuple[Any, ...]] = []
    for row in report.stacks if report is not None else ():
        ranks = row["ranks"] if machine else ranks_text(row["ranks"])
        rows.append((ranks, len(row["ranks"]), row["state"] or None, row["line"]))
    columns = ("ranks", "count", "process", "stack")
    title = "Where the ranks stood when the hang was declared (innermost call first)"
    kept = rows if machine else rows[:MOST_LINES]
    more = [f"and {len(rows) - len(kept):,} more places"] if len(kept) < len(rows) else []
    return Section("stacks", title, columns, kept, more)


def collector_section(found: Sequence[CollectorNow], now: Snapshot, machine: bool) -> Section:
    """How the collectors fare."""
    age: Callable[[int | None], Any] = lambda at: age_text(at, now)  # noqa: E731
    if machine:
        age = lambda at: None if at is None else max(0, now.now_ns - at)  # noqa: E731
    columns = ("collector", "state", "hosts", "age_ns" if machine else "last written", "reason")
    rows = [(c.collector, c.state, c.hosts, age(c.written_ns), c.reason or None) for c in found]
    return Section("collectors", "Collectors", columns, rows)


def state_section(now: Snapshot, progress: Progress | None, lines: Sequence[str]) -> Section:
    """One row for machines: what the first line says."""
    found = now.diagnosis
    none = "waits" if unbegun_job(now) else "unknown"
    state = "ended" if now.over else "hangs" if found.hangs else "runs" if now.ranks else none
    columns = (
        *("run_id", "state", "headline", "quiet_ns", "limit_ns", "kind", "culprits", "blocked"),
        *("remedy", "ranks", "world_size", "steps_done", "steps_planned", "left_ns"),
    )
    row = (
        *(now.run.run_id, state, lines[0], found.quiet_ns, now.limit_ns, found.kind),
        *(list(found.culprits), list(found.blocked), REMEDIES[found.kind] or None),
        *(sum(rank.state.begun for rank in now.ranks), now.world_size),
        *((progress.done, progress.planned, progress.left_ns) if progress else (None,) * 3),
    )
    return Section("state", "State", columns, [row])


def _ages(ranks: Sequence[RankNow], now: Snapshot) -> str | None:
    known = [rank.state.moved_ns for rank in ranks if rank.state.moved_ns is not None]
    if not known:
        return None
    newest, oldest = age_text(max(known), now), age_text(min(known), now)
    return newest if max(known) - min(known) < EARLIEST_NS else f"{newest} to {oldest}"
