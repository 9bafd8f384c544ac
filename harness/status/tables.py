"""A snapshot as an answer: the first line, what is pending, and tables that stay readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.sections import Section
from harness.status.collectors import CollectorNow
from harness.status.hang_report import HangReport
from harness.status.progress import Progress
from harness.status.snapshot import RankNow, Snapshot
from harness_analysis.hang.diagnose import SET_UP_LIMITS
from harness_analysis.hang.model import PendingCall
from harness_analysis.hang.say import (
    REMEDIES,
    call_text,
    group_text,
    named,
    ranks_text,
    sentence,
)
from harness_schemas.units import format_ns, format_share
from harness_slurm.job.marks import JobRecord, attempts, read_begin, read_end

MOST_RANKS = 16
"""Ranks of which every one has a line; more are joined by what they do."""
MOST_LINES = 16
MOVES_NS = 2_000_000_000
"""A rank that recorded something this lately moves."""
EARLIEST_NS = 1_000_000_000


def headline(now: Snapshot, progress: Progress | None, report: HangReport | None) -> list[str]:
    """Whether it stands, where and on whom; then how far it is."""
    found = now.diagnosis
    states = {rank.state.rank: rank.state for rank in now.ranks}
    quiet = format_ns(found.quiet_ns) if found.quiet_ns is not None else "an unknown time"
    if not now.ranks:
        return _not_begun(now)
    if now.over:
        return list(_ended(now, report))
    told = sentence(found, states)
    if found.hangs:
        lines = [f"HANGS: no rank recorded anything for {quiet}: {told}"]
        return lines + ([f"  to do: {REMEDIES[found.kind]}"] if REMEDIES[found.kind] else [])
    lines = [f"runs: a rank recorded something {quiet} ago"]
    if found.quiet_ns is None:
        lines = ["unknown: no rank says when it last recorded anything"]
    elif found.quiet_ns > MOVES_NS:
        limit = format_ns(now.limit_ns)
        called = f"called a hang after {limit}"
        if found.patient:
            longer = format_ns(SET_UP_LIMITS * now.limit_ns)
            called = f"loading and the like may be silent for long: called a hang after {longer}"
        lines = [f"quiet: no rank recorded anything for {quiet} ({called})"]
        lines += [f"  so far: {told}"] if found.calls else []
    return [*lines, _progress_text(progress)] if progress else lines


def _progress_text(progress: Progress) -> str:
    text = f"  {format_share(progress.share)} of the plan: batch {progress.batch} of "
    text += f"{progress.batches}, {progress.done:,} of at most {progress.planned:,} steps"
    left = progress.left_ns
    return text + (f"; about {format_ns(left)} left at this rate" if left is not None else "")


def _not_begun(now: Snapshot) -> list[str]:
    begin = read_begin(now.run)
    if now.data.get("status") in ("finished", "failed"):
        return [f"ended: {_verdict(now).rstrip('.')}; no rank had begun to record"]
    if told := _left_by_job(now):
        return [told]
    if (record := _unbegun_job(now)) is not None:
        since = _age(record.submitted_ns or None, now) or "an unknown time"
        asked = f"squeue -j {record.job_id}" + (f" -M {record.cluster}" if record.cluster else "")
        first = f"waits: job {record.job_id} was submitted {since} ago and has not begun"
        return [first, f"  `{asked}` says why; this is read from its folder alone"]
    if begin is not None:
        where = f"job {begin.job_id} began on {begin.host} {_age(begin.began_ns, now)} ago"
        return [f"unknown: {where}, and no rank has begun to record"]
    return ["unknown: no rank has begun to record"]


def _unbegun_job(now: Snapshot) -> JobRecord | None:
    """The job of a run that it has not begun, as far as its folder says."""
    return None if now.ranks or now.over or read_begin(now.run) else JobRecord.read(now.run)


def _left_by_job(now: Snapshot) -> str | None:
    """What a job's end mark says of a run that nobody has judged yet; None: there is none."""
    record, end = JobRecord.read(now.run), read_end(now.run)
    if record is None or end is None:
        return None
    job, code = record.job_id, end.exit_code
    if end.stopped:
        again = f"requeued, it begins again (`squeue -j {job}`)"
        return f"ended: job {job} was told to end, code {code}; {again}"
    return f"ended: job {job} ended with code {code}; `harness run --attach {job}` says more"


def _ended(now: Snapshot, report: HangReport | None) -> Iterator[str]:
    found = now.diagnosis
    status = now.data.get("status")
    if report is not None and now.data.get("verdict") == "hang":
        yield f"ended: hang, declared after {format_ns(report.quiet_ns)}: {report.sentence}"
        yield f"  to do: {report.remedy}"
        return
    if status in ("finished", "failed"):
        yield f"ended: {_verdict(now)}"
    else:
        none = "ended: no rank is left, and run.json does not say how it ended"
        yield _left_by_job(now) or none
    cut = [rank.state.rank for rank in now.ranks if rank.state.begun and not rank.state.ended]
    if found.calls:
        states = {rank.state.rank: rank.state for rank in now.ranks}
        yield f"  when it ended: {sentence(found, states)}"
    elif cut and len(cut) < len(now.ranks):
        yield f"  {named(cut)} did not close the spool"


def _verdict(now: Snapshot) -> str:
    verdict, detail = now.data.get("verdict"), now.data.get("verdict_detail")
    return ": ".join(str(part) for part in (verdict or "no verdict", detail) if part)


def facts(now: Snapshot) -> str:
    """Which run this is: ranks, hosts, job, attempt."""
    begun = sum(rank.state.begun for rank in now.ranks)
    world = "?" if now.world_size is None else f"{now.world_size:,}"
    parts = [f"{begun:,} of {world} ranks recorded"]
    if now.hosts:
        few = ", ".join(now.hosts[:3]) + (" ..." if len(now.hosts) > 3 else "")
        parts.append(f"{len(now.hosts)} host{'s' if len(now.hosts) > 1 else ''}: {few}")
    record, begin, end = JobRecord.read(now.run), read_begin(now.run), read_end(now.run)
    job = record.job_id if record else now.data.get("job_id")
    if job is not None:
        parts.append(f"job {job}" + (f", attempt {begin.attempt}" if begin else ""))
    if before := len(attempts(now.run)):
        parts.append(f"{before} earlier attempt{'s' if before > 1 else ''}")
    if end is not None:
        parts.append(f"the job left its end mark (code {end.exit_code})")
    return "  " + "; ".join(parts)


# -- tables ------------------------------------------------------------------------------------

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
        (call_text(call), _age(call.since_ns, now), _waiting(call), _missing(call))
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
    since = _age(call.since_ns, now) if call else None
    where = rank.state.where or None
    doing = _doing(rank, now)
    return (
        *(rank.state.rank, rank.host, _process(rank), where, doing, since),
        _age(rank.state.moved_ns, now),
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
    age: Callable[[int | None], Any] = lambda at: _age(at, now)  # noqa: E731
    if machine:
        age = lambda at: None if at is None else max(0, now.now_ns - at)  # noqa: E731
    columns = ("collector", "state", "hosts", "age_ns" if machine else "last written", "reason")
    rows = [(c.collector, c.state, c.hosts, age(c.written_ns), c.reason or None) for c in found]
    return Section("collectors", "Collectors", columns, rows)


def state_section(now: Snapshot, progress: Progress | None, lines: Sequence[str]) -> Section:
    """One row for machines: what the first line says."""
    found = now.diagnosis
    none = "waits" if _unbegun_job(now) else "unknown"
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


def _age(at_ns: int | None, now: Snapshot) -> str | None:
    return None if at_ns is None else format_ns(max(0, now.now_ns - at_ns))


def _ages(ranks: Sequence[RankNow], now: Snapshot) -> str | None:
    known = [rank.state.moved_ns for rank in ranks if rank.state.moved_ns is not None]
    if not known:
        return None
    newest, oldest = _age(max(known), now), _age(min(known), now)
    return newest if max(known) - min(known) < EARLIEST_NS else f"{newest} to {oldest}"
