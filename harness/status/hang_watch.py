"""Declare a hang: nobody makes progress for longer than the limit. Then take the stacks.

Progress is a page that changes or a spool that grows. A rank that is in no call also makes
progress while it reads or its memory grows (weights are loaded without a record), and, outside of
prefill and decode, for some limits while it computes (imports, captures, compilations). A watch
that was suspended counts nothing: what it did not see is no standstill.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.progress import Narrator
from harness.status.hang_report import HangReport, write_report
from harness.status.rank_files import read_rank
from harness_analysis.hang.diagnose import SET_UP_LIMITS
from harness_schemas import hang_files, spool
from harness_schemas.live import read_page
from harness_schemas.rundir import RunDir, write_json
from harness_schemas.units import format_ns
from harness_schemas.vocabulary import MEASURED_PHASES

READ_BYTES_PER_S = 256 << 10
"""A rank that reads or writes files faster than this works; its recorder alone is slower."""
GROWTH_BYTES = 4 << 20
CPU_SHARE = 0.2
HINT_SECONDS, HINT_LOOK_SECONDS = 60.0, 10.0
STACK_SECONDS = 30.0
"""The samplers on the nodes have so long to take stacks before the run is ended without."""


@dataclass(frozen=True)
class Vitals:
    """What a rank's process used until `mono_ns` (of its host)."""

    mono_ns: int
    cpu_ns: int
    io_bytes: int
    rss_bytes: int


@dataclass(frozen=True)
class Look:
    """What was seen of all ranks at once: a page and a length each, and what processes used."""

    marks: Mapping[int, tuple[Any, ...]] = field(default_factory=dict)
    busy_in_call: frozenset[int] = frozenset()
    vitals: Mapping[int, Vitals] = field(default_factory=dict)


def look_at(run: RunDir) -> Look:
    """One look: a page and a file length a rank, a small file a node."""
    marks: dict[int, tuple[Any, ...]] = {}
    in_call = set()
    for path in run.spans.glob("rank-*.live"):
        rank = spool.rank_of(path)
        page = None if rank is None else read_page(path)
        if rank is None or page is None:
            continue
        size = spool.records_size(path)
        marks[rank] = (page.updated_ns, page.entered, page.unit, page.slots, size)
        if page.pending is not None:
            in_call.add(rank)
    rows = dict(read_rows(run.hang))
    told = {rank: str(row.get("mark")) for rank, (_, row) in rows.items()}
    both = {rank: (marks.get(rank), told.get(rank)) for rank in {*marks, *told}}
    return Look(both, frozenset(in_call), vitals_of(rows))


def read_rows(folder: Path) -> Iterator[tuple[int, tuple[int, dict[str, Any]]]]:
    """What the samplers of all nodes wrote last of each rank, and when by their clock."""
    for path in folder.glob("vitals-*.json"):
        data = hang_files.read_object(path)
        ranks, mono = data.get("ranks"), data.get("mono_ns")
        for rank, row in ranks.items() if isinstance(ranks, dict) else ():
            if rank.isdigit() and isinstance(row, dict) and isinstance(mono, int):
                yield int(rank), (mono, row)


def vitals_of(rows: Mapping[int, tuple[int, dict[str, Any]]]) -> dict[int, Vitals]:
    """What the ranks' processes used, of those where it could be read."""
    found = {}
    for rank, (mono_ns, row) in rows.items():
        values = [row.get(name) for name in ("cpu_ns", "io_bytes", "rss_bytes")]
        if all(isinstance(value, int) for value in values):
            found[rank] = Vitals(mono_ns, *values)  # type: ignore[arg-type]
    return found


class Stillness:
    """For how long nobody has made progress, over looks.

    `sets_up(rank)`: whether a rank is outside of measured prefill and decode.
    """

    def __init__(self, limit_s: float, sets_up: Callable[[int], bool]) -> None:
        self._longest_gap_s = 3 * hang_files.look_interval_s(limit_s) + 5
        self._set_up_s = SET_UP_LIMITS * limit_s  # not for ever: waiting on a device burns a core
        self._sets_up = sets_up
        self._recorded_s = 0.0
        self._look = Look()
        self._base: dict[int, Vitals] = {}
        self._since_s: float | None = None
        self._looked_s: float | None = None

    def quiet_s(self, look: Look, now_s: float) -> float | None:
        """Seconds since anybody was last seen to make progress; None while nobody has begun.

        `now_s`: a monotonic clock.
        """
        gap = 0.0 if self._looked_s is None else now_s - self._looked_s
        self._looked_s = now_s
        works, computes = self._processes(look)
        if look.marks != self._look.marks or works or gap > self._longest_gap_s:
            self._recorded_s = now_s
        computes = computes and now_s - self._recorded_s < self._set_up_s
        if self._recorded_s == now_s or self._since_s is None or computes:
            self._since_s = now_s
        self._look = look
        return now_s - self._since_s if look.marks else None

    def _processes(self, look: Look) -> tuple[bool, bool]:
        """Whether a rank that is in no call reads or grows; whether one that sets up computes."""
        works = computing = False
        for rank, now in look.vitals.items():
            base = self._base.get(rank)
            if base is None or base.mono_ns > now.mono_ns:
                self._base[rank] = now
                continue
            seconds = (now.mono_ns - base.mono_ns) / 1e9
            if seconds <= 0:
                continue
            self._base[rank] = now
            if rank in look.busy_in_call:
                continue
            reads = now.io_bytes - base.io_bytes > READ_BYTES_PER_S * seconds
            grows = now.rss_bytes - base.rss_bytes > GROWTH_BYTES
            computes = now.cpu_ns - base.cpu_ns > CPU_SHARE * seconds * 1e9
            works |= reads or grows
            computing |= computes and self._sets_up(rank)
        return works, computing


def is_setting_up(run: RunDir, rank: int) -> bool:
    """Whether a rank is outside of measured prefill and decode."""
    unit = read_rank(run.spans, rank).unit
    return bool(unit.get("warmup")) or unit.get("phase") not in MEASURED_PHASES


def watch(run: RunDir, limit_ns: int, narrator: Narrator) -> Iterator[bool]:
    """Advance often: looks now and then, and yields True once the run is to be ended as hung."""
    interval = hang_files.look_interval_s(limit_ns / 1e9)
    still = Stillness(limit_ns / 1e9, lambda rank: is_setting_up(run, rank))
    due = time.monotonic()
    while True:
        if time.monotonic() >= due:
            look = look_at(run)
            quiet = still.quiet_s(look, time.monotonic())
            if quiet is not None and quiet * 1e9 >= limit_ns:
                narrator.say(
                    f"no rank made progress for {format_ns(quiet * 1e9)}: taking the stacks"
                )
                yield from ask_for_stacks(run)
                if look_at(run).marks == look.marks:
                    tell(write_report(run, round(quiet * 1e9), limit_ns), narrator)
                    while True:
                        yield True
                narrator.say("the ranks moved meanwhile: the run goes on")
            due = time.monotonic() + interval
        yield False


def hint(run: RunDir, narrator: Narrator) -> Iterator[bool]:
    """Say once a standstill where one can look; never ends a run."""
    still, due, said = Stillness(HINT_SECONDS, lambda rank: False), time.monotonic(), False
    while True:
        if time.monotonic() >= due:
            quiet = still.quiet_s(look_at(run), time.monotonic()) or 0.0
            if quiet >= HINT_SECONDS and not said:
                narrator.say(f"no rank recorded anything for {format_ns(quiet * 1e9)}; on whom:")
                narrator.say(f"  harness status {run.path}")
            said = quiet >= HINT_SECONDS
            due = time.monotonic() + HINT_LOOK_SECONDS
        yield False


def ask_for_stacks(run: RunDir) -> Iterator[bool]:
    """Have the samplers of all nodes take stacks; ends when they have, or after a while."""
    hosts = [path.name[7:-5] for path in run.hang.glob("vitals-*.json")]
    if not hosts:
        return
    asked = f"{os.getpid()}-{time.time_ns()}"
    write_json(run.hang / hang_files.ASKED, {"id": asked})
    deadline = time.monotonic() + STACK_SECONDS
    while time.monotonic() < deadline:
        done = [hang_files.read_object(hang_files.done_file(run.hang, host)) for host in hosts]
        if all(data.get("id") == asked for data in done):
            return
        yield False


def tell(report: HangReport, narrator: Narrator) -> None:
    """Say what was found, and end."""
    narrator.say(f"hang: {report.sentence}")
    for line in report.stack_lines():
        narrator.say(f"  {line}")
    narrator.say("the ranks are ended")
