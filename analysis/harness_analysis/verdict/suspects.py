"""Which rank a hang is about: the one missing from the last collective, not the first to shout.

Two kinds of evidence. The recorder's live pages say for every rank and group which collective was
entered and which was left. PyTorch's watchdog prints, on the ranks that wait, the sequence number
they wait at; the rank that they wait for prints nothing, or an earlier number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

_WHO: Final = (
    r"(?:\[rank(?P<prefix>\d{1,6})\]:.{0,120}?)?"
    r"\[(?:PG (?:ID )?(?P<pg>\d+(?: PG GUID [^\]\s(]{0,80})?)(?:[^\]]{0,200}?)? )?"
    r"Rank (?P<rank>\d{1,6})\].{0,400}?"
)
_TIMED_OUT = re.compile(
    _WHO + r"Watchdog caught collective operation timeout: WorkNCCL\(SeqNum=(?P<seq>\d+),"
)
_PROGRESS = re.compile(
    _WHO + r"last enqueued (?:NCCL )?work: (?P<enqueued>-?\d+)(?:,|\.?\s*$|\.\s)"
)
_AT_WORK = re.compile(r"at work(?: sequence id)?: (\d+)(?:,|\.?\s*$|\.\s| PG\b)")
# Numbers end with a mark: of a line that is cut in one, a smaller rank or number would be read.
_MOST_CALLED = re.compile(r"not seen to end; most ranks called ([a-z_]+)")
_NEVER_CALLED = re.compile(r"not seen to end, and rank (\d+) never called (send|recv)$")
_RAS_GROUP = re.compile(r"\s*(\d+)\s+(\d+)\s+\d+\s+\d+\s+(\d+)\s+\d+\s+[A-Z]+\s+[A-Z,]+\s*$")
_RAS_COMM = re.compile(r"#(\d+)-\d+ \([0-9a-f]+\) ")
_RAS_COUNT = re.compile(r"\s*\d+ ranks? ha(?:ve|s) launched up to operation (\d+)\s*$")
_RAS_MISSING = re.compile(r"\s*Missing communicator data from \d+ ranks?\s*$")
_RAS_RANK = re.compile(r"\s*Rank (\d+) -- ")
_DEFAULT_GROUPS: Final = (None, "0", "0 PG GUID 0")
"""By number and, where it is printed, global name: one number is that of several groups."""
_FARTHEST: Final = 1000
"""Numbers of unnamed groups that lie further apart are not of one group: collectives of one group
wait for each other."""


_LAGGING = re.compile(
    r"\[([\d, ]{1,400})\] "
    r"(?:finished collective #\d+, but didn't join collective|are the lagging ranks)"
)
_NOT_IN = re.compile(r"missing ranks: \{([\d, ]{1,400})\}")
_STALLED = re.compile(r"(\S+) \[missing ranks: ?([\d, ]{1,400})\]")
"""Of Horovod's stall inspector: a tensor, and who had not submitted it."""
_UNFINISHED = re.compile(r"- \[([\d, ]{1,400})\] joined but didn't finish collective #(\d+)")
"""Reports of c10d/TraceUtils.h (torch 1.12 on) and of torch.distributed.flight_recorder."""


@dataclass(frozen=True)
class CollectiveProgress:
    """How far a rank was in a group: ordinals of the last collective entered and left.

    -1: none yet. `members`: the group's global ranks, where known.
    """

    rank: int
    group: str
    entered: int
    left: int
    members: tuple[int, ...] = ()


@dataclass(frozen=True)
class Suspects:
    """Ranks that others waited for, and how that is known. Empty: nobody can be named."""

    ranks: tuple[int, ...] = ()
    why: str = ""


def suspects_from_progress(progress: Sequence[CollectiveProgress]) -> Suspects:
    """Ranks that had not entered a collective that others of its group were waiting in.

    A rank that is itself waiting elsewhere is only a link in the chain: the ranks at its end are
    named, where there are any.
    """
    waiting = {item.rank for item in progress if item.entered > item.left}
    missing: dict[int, str] = {}
    for group in dict.fromkeys(item.group for item in progress):
        entered = {item.rank: item.entered for item in progress if item.group == group}
        members = {rank for item in progress if item.group == group for rank in item.members}
        entered = {rank: entered.get(rank, -1) for rank in members | set(entered)}
        last = max(entered.values())
        if not any(item.group == group and item.left < item.entered == last for item in progress):
            continue
        for rank, ordinal in entered.items():
            if ordinal < last:
                missing.setdefault(rank, f"had not entered collective {last} of group {group}")
    ends = {rank: why for rank, why in missing.items() if rank not in waiting} or missing
    return _named(ends)


def suspects_from_dumps(texts: Iterable[tuple[int | None, str]]) -> Suspects:
    """Ranks that called another collective than most, or never came to a send or receive.

    `texts`: (rank, what the Flight Recorder's dumps say together).
    """
    found: dict[int, str] = {}
    for rank, text in texts:
        if (match := _MOST_CALLED.search(text)) and rank is not None:
            found.setdefault(rank, f"called another collective than most, {match[1]}")
        elif match := _NEVER_CALLED.search(text):
            found.setdefault(int(match[1]), f"never called {match[2]}")
    return _named(found)


def suspects_from_ras(lines: Sequence[str]) -> Suspects:
    """The ranks behind, or without an answer, in what NCCL's RAS printed of the whole job.

    `ncclras` lists under each count the ranks that stand there, where they are few. Numbers of a
    communicator are ranks of the job only where there is one such communicator, and none larger.
    """
    groups = {found[1]: found for line in lines if (found := _RAS_GROUP.match(line))}
    largest = max((int(found[3]) for found in groups.values()), default=0)
    listed: dict[int, int] = {}
    launched, whole, now = [-1], False, -1
    for line in lines:
        if found := _RAS_COMM.match(line):
            group = groups.get(found[1])
            whole = group is not None and group[2] == "1" and int(group[3]) == largest
            now = -1
        elif found := _RAS_COUNT.match(line):
            now = int(found[1])
            launched += [now] if whole else []
        elif _RAS_MISSING.match(line):
            now = -1
        elif whole and (found := _RAS_RANK.match(line)):
            listed[int(found[1])] = now
    why = (
        f"behind operation {max(launched)} of the others"
        if max(launched) >= 0
        else "did not answer"
    )
    return _named({rank: why for rank, at in listed.items() if at < max(*launched, 0)})


def suspects_from_reports(lines: Iterable[str]) -> Suspects:
    """The lagging ranks of torch's own reports: NCCL_DESYNC_DEBUG's, and its fr_trace's.

    Both compare what all ranks recorded. A rank that joined and did not finish lags only where
    none had not joined.
    """
    joined: dict[int, str] = {}
    missing: dict[int, str] = {}
    for line in lines:
        if (found := _LAGGING.search(line)) or (found := _NOT_IN.search(line)):
            missing.update(
                dict.fromkeys(_numbers(found[1]), "did not join a collective of the others")
            )
        elif found := _UNFINISHED.search(line):
            joined.update(dict.fromkeys(_numbers(found[1]), f"was still in collective {found[2]}"))
    return _named(missing or joined)


def suspects_from_stalls(lines: Iterable[str]) -> Suspects:
    """The ranks that Horovod last reported missing, of each tensor that others wait for."""
    last = {found[1]: found[2] for line in lines if (found := _STALLED.search(line))}
    ranks = (rank for listed in last.values() for rank in _numbers(listed))
    return _named(dict.fromkeys(ranks, "did not submit what the others wait for"))


def _numbers(listed: str) -> list[int]:
    return [int(number) for number in listed.replace(",", " ").split()]


def suspects_from_watchdog(lines: Iterable[str], world_size: int | None) -> Suspects:
    """The same from what PyTorch's watchdog printed."""
    groups = _reports(lines)
    for pg, reports in sorted(groups.items(), key=lambda item: -len(item[1])):
        found = _suspects_of_group(pg, reports, world_size)
        if found.ranks:
            return found
    return Suspects()


@dataclass
class _Report:
    """What one rank printed about one group. `translated`: its number in the group is another."""

    numbers: set[int] = field(default_factory=set)
    enqueued: int | None = None
    translated: bool = False


def _reports(lines: Iterable[str]) -> dict[str | None, dict[int, _Report]]:
    groups: dict[str | None, dict[int, _Report]] = {}
    for line in lines:
        if "Watchdog" not in line and "last enqueued" not in line:  # cheap, and nearly all
            continue
        found = _TIMED_OUT.search(line) or _PROGRESS.search(line)
        if found is None:
            continue
        rank = int(found["rank"] if found["prefix"] is None else found["prefix"])
        report = groups.setdefault(found["pg"], {}).setdefault(rank, _Report())
        report.translated |= rank != int(found["rank"])
        if found.re is _TIMED_OUT:
            report.numbers.add(int(found["seq"]))
        else:
            report.enqueued = int(found["enqueued"])
            at_work = _AT_WORK.search(line)
            report.numbers |= {int(at_work[1])} if at_work else set()
    return _one_group(groups)


def _one_group(
    groups: dict[str | None, dict[int, _Report]],
) -> dict[str | None, dict[int, _Report]]:
    """Old torch names the group in some of its lines only: with one name, all are of that group."""
    named = [pg for pg in groups if pg is not None]
    if None not in groups or len(named) != 1:
        return groups
    merged = groups[named[0]]
    for rank, report in groups[None].items():
        known = merged.setdefault(rank, _Report())
        known.numbers |= report.numbers
        known.translated |= report.translated
    return {named[0]: merged}


def _suspects_of_group(
    pg: str | None, reports: dict[int, _Report], world_size: int | None
) -> Suspects:
    translated = any(report.translated for report in reports.values())
    timed_out = {rank: max(r.numbers) for rank, r in reports.items() if r.numbers}
    mixed = translated or any(len(report.numbers) > 1 for report in reports.values())
    spread = max(timed_out.values()) - min(timed_out.values()) if timed_out else 0
    if not timed_out or (pg is None and (mixed or spread > _FARTHEST)):
        return Suspects()  # numbers of several groups cannot be told apart
    last = max(timed_out.values())
    behind = {
        rank
        for rank, report in reports.items()
        if timed_out.get(rank, last) < last
        or (report.enqueued is not None and report.enqueued < last)
    }
    if behind:
        return _named(dict.fromkeys(behind, f"was behind collective {last} of the others"))
    if translated or (pg not in _DEFAULT_GROUPS and world_size is not None):
        return Suspects()  # ranks of a subgroup: who is missing has no global number
    silent = set(range(world_size or max(reports) + 1)) - set(reports)
    if len(silent) >= len(reports):  # rather their lines are lost than that most are stuck
        return Suspects()
    return _named(dict.fromkeys(silent, f"did not report waiting at collective {last}"))


def _named(reasons: dict[int, str]) -> Suspects:
    ranks = tuple(sorted(reasons))
    return Suspects(ranks, reasons[ranks[0]] if ranks else "")
