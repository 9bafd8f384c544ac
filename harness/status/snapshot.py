"""A run at one moment: the states of its ranks, out of the files of its folder alone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.status.processes import LETTERS, Here, ProcessState
from harness.status.rank_files import RankFiles, read_rank
from harness_analysis.hang.diagnose import diagnose
from harness_analysis.hang.model import Call, Diagnosis, RankState
from harness_schemas import hang_files, spool
from harness_schemas.errors import HarnessError
from harness_schemas.live import LivePage, Slot
from harness_schemas.rundir import RunDir
from harness_schemas.units import parse_duration_ns
from harness_schemas.vocabulary import MEASURED_PHASES, group_name
from harness_slurm.job.marks import Ended, read_end

_group_name = lru_cache(maxsize=4096)(group_name)
"""The same text for all ranks: of a thousand it is long."""
READERS = 16
"""Files read at once: on a file system across a network opening one is what takes time."""
FRESH_NS = 20_000_000_000
"""What a sampler of another node said longer ago says nothing of now."""


@dataclass(frozen=True)
class RankNow:
    """A rank at the moment of the look. Times are Unix ns. `process` None: not of this host, or
    not shown."""

    files: RankFiles
    state: RankState
    host: str | None
    process: ProcessState | None = None
    here: bool = False
    first_step_ns: int | None = None


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment. `over`: it has ended, by run.json or because no process is left;
    `now_ns` is then when it ended. `limit_ns`: quiet for longer is called a hang."""

    run: RunDir
    data: Mapping[str, Any]
    ranks: tuple[RankNow, ...]
    diagnosis: Diagnosis
    now_ns: int
    limit_ns: int
    over: bool
    world_size: int | None = None
    hosts: tuple[str, ...] = field(default_factory=tuple)


def take_snapshot(run: RunDir, limit_ns: int) -> Snapshot:
    """Read every rank once and say what keeps them."""
    here = Here.now()
    data = _run_json(run)
    files = read_ranks(run.spans)
    now, offset = time.time_ns(), time.time_ns() - time.monotonic_ns()
    seen = seen_elsewhere(run.hang, now)
    found = [_rank_now(one, here, offset, seen.get(one.rank)) for one in files]
    world = world_size(data, files)
    over = data.get("status") in ("finished", "failed") or _none_left(found, read_end(run))
    states = [_settled(rank.state, over) for rank in found]
    known = {state.rank for state in states}
    absent = [rank for rank in range(world or 0) if rank not in known] if files else []
    states += [RankState(rank, begun=False) for rank in absent]
    ranks = [replace(one, state=state) for one, state in zip(found, states, strict=False)]
    ranks += [RankNow(RankFiles(rank), RankState(rank, begun=False), None) for rank in absent]
    at = _end_ns(data, states, now) if over else now
    return Snapshot(
        run,
        data,
        tuple(sorted(ranks, key=lambda rank: rank.state.rank)),
        diagnose(states, at, limit_ns),
        at,
        limit_ns,
        over,
        world,
        tuple(dict.fromkeys(rank.host for rank in found if rank.host)),
    )


def _end_ns(data: Mapping[str, Any], states: Sequence[RankState], now_ns: int) -> int:
    """When a run ended: by run.json, else by what was recorded last."""
    moved = [state.moved_ns for state in states if state.moved_ns is not None]
    ended = data.get("ended_ns")
    return ended if isinstance(ended, int) else max(moved, default=now_ns)


def planned_limit_ns(run: RunDir) -> int | None:
    """The run's own `launcher.hang_timeout`; None where it has none."""
    spec = _run_json(run).get("spec")
    launcher = spec.get("launcher") if isinstance(spec, dict) else None
    text = launcher.get("hang_timeout") if isinstance(launcher, dict) else None
    with contextlib.suppress(ValueError):
        return parse_duration_ns(text) if isinstance(text, str) else None
    return None


def _run_json(run: RunDir) -> Mapping[str, Any]:
    with contextlib.suppress(HarnessError):
        return run.read()
    return {}


def read_ranks(spans: Path) -> list[RankFiles]:
    """The files of every rank that has any, in the order of ranks."""
    named = {spool.rank_of(path) for path in spans.glob("rank-*.*")}
    ranks = sorted(rank for rank in named if rank is not None)
    if len(ranks) < READERS:
        return [read_rank(spans, rank) for rank in ranks]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda rank: read_rank(spans, rank), ranks))


def world_size(data: Mapping[str, Any], files: Sequence[RankFiles]) -> int | None:
    """Number of ranks: by the specification, else by what the ranks were told; None: not known."""
    spec = data.get("spec")
    parallel = spec.get("parallel") if isinstance(spec, dict) else None
    if isinstance(parallel, dict):
        tp, pp = parallel.get("tp"), parallel.get("pp")
        if isinstance(tp, int) and isinstance(pp, int):
            return tp * pp
    told = [one.start.get("world_size") for one in files]
    sizes = [size for size in told if isinstance(size, int) and 0 < size <= 1 << 20]
    return max(sizes, default=None)


def _none_left(ranks: Sequence[RankNow], end: Ended | None) -> bool:
    """Whether every rank has ended or is seen to be gone; of none, whether the job has ended."""
    if not ranks:
        return end is not None and not end.stopped
    return all(rank.state.ended or rank.process == "gone" for rank in ranks)


def _settled(state: RankState, over: bool) -> RankState:
    """Of a run that is over all processes are gone: that says nothing about any of them."""
    return replace(state, halted=None) if over else state


def seen_elsewhere(folder: Path, now_ns: int) -> dict[int, ProcessState]:
    """How processes stand by the word of the samplers on their nodes, as far as it is fresh."""
    found: dict[int, ProcessState] = {}
    for path in folder.glob("vitals-*.json"):  # none where hangs are not watched for
        data = hang_files.read_object(path)
        wall, ranks = data.get("wall_ns"), data.get("ranks")
        fresh = isinstance(wall, int) and now_ns - wall < FRESH_NS
        for rank, row in ranks.items() if fresh and isinstance(ranks, dict) else ():
            if rank.isdigit() and isinstance(row, dict):
                letter = str(row.get("state") or "")
                gone = bool(row.get("gone"))
                found[int(rank)] = "gone" if gone else LETTERS.get(letter, "alive")
    return found


def _rank_now(
    files: RankFiles, here: Here, offset_ns: int, elsewhere: ProcessState | None
) -> RankNow:
    start = files.start
    local = here.is_same(start.get("host"), start.get("boot_id"))
    process = here.state(start.get("pid"), files.began_ns) if local else elsewhere
    to_wall = offset_ns if local else files.to_wall_ns
    names = _group_names(files)
    call = _call(files, names, to_wall) if files.page else None
    ended = files.end is not None
    entered, sent, received = _ordinals(files.page, names)
    state = RankState(
        rank=files.rank,
        begun=bool(start) or files.page is not None,
        ended=ended,
        halted=process if process in ("stopped", "gone") and not ended else None,
        moved_ns=_shifted(files.moved_ns, to_wall),
        call=None if ended else call,
        entered=entered,
        sent=sent,
        received=received,
        readable=files.page is not None and start.get("live", True) is not False,
        full=files.page is not None and len(files.page.slots) >= spool.LIVE_GROUP_SLOTS,
        sets_up=_sets_up(files.unit),
        where=describe_unit(files.unit),
    )
    host = start.get("host")
    name = host if isinstance(host, str) else None
    return RankNow(files, state, name, process, local, _shifted(files.first_step_ns, to_wall))


def _sets_up(unit: Mapping[str, Any]) -> bool:
    phase = unit.get("phase")
    return phase is not None and (bool(unit.get("warmup")) or phase not in MEASURED_PHASES)


def _shifted(mono_ns: int | None, to_wall_ns: int | None) -> int | None:
    return None if mono_ns is None or to_wall_ns is None else mono_ns + to_wall_ns


def _group_names(files: RankFiles) -> dict[int, tuple[str, tuple[int, ...]]]:
    named = {}
    for number, row in files.groups.items():
        ranks = row.get("ranks")
        if ranks is not None:
            named[number] = (_group_name(tuple(ranks), row.get("ordinal")), tuple(ranks))
    return named


def _ordinals(
    page: LivePage | None, names: Mapping[int, tuple[str, tuple[int, ...]]]
) -> tuple[dict[str, int], dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    entered: dict[str, int] = {}
    sent: dict[tuple[str, int], int] = {}
    received: dict[tuple[str, int], int] = {}
    for slot in page.slots if page else ():
        name = _name_of(slot, names)
        if slot.op is None:
            entered[name] = slot.entered
        elif slot.peer is not None:
            (sent if slot.op == "send" else received)[name, slot.peer] = slot.entered
    return entered, sent, received


def _name_of(slot: Slot, names: Mapping[int, tuple[str, tuple[int, ...]]]) -> str:
    return names[slot.group][0] if slot.group in names else f"group {slot.group}"


def _call(
    files: RankFiles, names: Mapping[int, tuple[str, tuple[int, ...]]], to_wall_ns: int | None
) -> Call | None:
    pending = files.page.pending if files.page else None
    if pending is None:
        return None
    described = files.descriptors.get(pending.descriptor, {})
    name, members = names.get(pending.group, (None, ()))
    return Call(
        op=str(described.get("op") or described.get("name") or "a call"),
        group=name,
        members=members,
        ordinal=pending.ordinal,
        num_bytes=pending.num_bytes,
        peer=pending.peer,
        since_ns=_shifted(pending.start_ns, to_wall_ns),
    )


def describe_unit(unit: Mapping[str, Any]) -> str:
    """`decode step 7 of batch 0, repeat 1`; empty: not known."""
    phase = unit.get("phase")
    if not isinstance(phase, str):
        return ""
    text = f"warm-up {phase}" if unit.get("warmup") and phase != "warmup" else phase
    if unit.get("step") is not None and phase != "prefill":
        text += f" step {unit['step']}"
    if unit.get("batch") is not None:
        text += f" of batch {unit['batch']}"
    if unit.get("repeat") not in (None, -1, 0):
        text += f", repeat {unit['repeat']}"
    return text
