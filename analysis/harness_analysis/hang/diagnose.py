"""From the states of all ranks to who keeps them waiting. Pure.

Ranks wait for those that have not entered a call in which they are (the ordinals of the group tell
who), and for processes inside it that are stopped or gone. The culprits stand at the end of that
chain: they are waited for and wait for nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness_analysis.hang.model import Call, Diagnosis, Kind, PendingCall, RankState

SET_UP_LIMITS = 5
"""Ranks that set up (imports, weights, compilations) may be silent for so many limits."""
EQUAL_SIZES = frozenset({"all_reduce", "broadcast", "reduce"})
"""Collectives to which every rank brings the same number of bytes."""


def diagnose(ranks: Sequence[RankState], now_ns: int, limit_ns: int) -> Diagnosis:
    """What keeps the ranks. `now_ns`: Unix time of the look; `limit_ns`: quiet for longer is a
    hang."""
    states = {state.rank: state for state in ranks}
    calls = pending_calls(states)
    quiet = _quiet(ranks, now_ns)
    alive = [state for state in ranks if state.begun and not state.ended]
    longer = quiet is not None and quiet >= limit_ns and bool(alive)
    kind, culprits, decisive = _blame(states, calls)
    if not calls and longer:
        kind, culprits = _halted_or_behind(states)
    keepers = [states[rank] for rank in culprits if rank in states] or ([] if calls else alive)
    patient = longer and kind != "halted" and _sets_up(keepers)
    patient = patient and quiet is not None and quiet < SET_UP_LIMITS * limit_ns
    order = sorted(calls, key=lambda call: _weight(call, decisive))
    blocked = sorted({rank for call in calls if call.blockers for rank in call.waiting})
    halted = {rank for rank in blocked if states[rank].halted}
    kept = tuple(rank for rank in blocked if rank not in {*culprits, *halted} or kind == "cycle")
    hangs = longer and not patient
    return Diagnosis(kind, quiet, hangs, culprits, tuple(order), decisive, kept, patient)


def _sets_up(keepers: Sequence[RankState]) -> bool:
    return bool(keepers) and all(state.begun and state.sets_up for state in keepers)


def _quiet(ranks: Iterable[RankState], now_ns: int) -> int | None:
    moved = [state.moved_ns for state in ranks if state.moved_ns is not None]
    return max(0, now_ns - max(moved)) if moved else None


# -- the calls in which ranks wait ---------------------------------------------------------------


def pending_calls(states: Mapping[int, RankState]) -> list[PendingCall]:
    """The calls that ranks are in: a collective once, a message once a side."""
    together: dict[tuple[object, ...], list[tuple[int, Call]]] = {}
    for rank, state in sorted(states.items()):
        call = state.call
        if call is None or state.ended:
            continue
        alone = call.op in ("send", "recv") or call.group is None or call.ordinal is None
        key = (rank,) if alone else (call.group, call.ordinal)
        together.setdefault(key, []).append((rank, call))
    return [_joined(inside, states) for inside in together.values()]


def _joined(inside: Sequence[tuple[int, Call]], states: Mapping[int, RankState]) -> PendingCall:
    first = inside[0][1]
    waiting = tuple(rank for rank, _ in inside)
    if first.op in ("send", "recv"):
        missing, unknown = _absent_peer(waiting[0], first, states)
    else:
        missing, unknown = _absent_members(waiting, first, states)
    since = [call.since_ns for _, call in inside if call.since_ns is not None]
    beside = [first.peer] if first.peer is not None and _is_in(first, waiting[0], states) else []
    halted = tuple(
        rank for rank in (*waiting, *beside) if rank in states and states[rank].halted is not None
    )
    return PendingCall(
        op=first.op,
        group=first.group,
        ordinal=first.ordinal,
        num_bytes=first.num_bytes,
        waiting=waiting,
        missing=missing,
        unknown=unknown,
        halted=halted,
        since_ns=min(since) if since else None,
        mismatch=_mismatch(inside),
        peer=first.peer,
    )


def _is_in(call: Call, rank: int, states: Mapping[int, RankState]) -> bool:
    """Whether the other side of a message of `rank` is in the same message now."""
    peer = states.get(call.peer) if call.peer is not None else None
    other = peer.call if peer is not None and not peer.ended else None
    sides = {call.op, other.op} if other else set()
    same = other is not None and (other.group, other.ordinal) == (call.group, call.ordinal)
    return same and other is not None and other.peer == rank and sides == {"send", "recv"}


def _absent_members(
    waiting: Sequence[int], call: Call, states: Mapping[int, RankState]
) -> tuple[dict[int, int], tuple[int, ...]]:
    """Members that have not entered, with the ordinal they have reached; members unknown."""
    missing: dict[int, int] = {}
    unknown = []
    inside = set(waiting)
    for rank in call.members if call.ordinal is not None and call.group is not None else ():
        state = states.get(rank)
        if rank in inside:
            continue
        if state is None or not state.begun:
            missing[rank] = -1
        elif (reached := _reached(state, state.entered, call.group)) is None:
            unknown.append(rank)
        elif reached < (call.ordinal or 0):
            missing[rank] = reached
    # Of a rooted call the root is what the others wait for, as long as it has not come.
    if call.peer in missing:
        missing = {rank: reached for rank, reached in missing.items() if rank == call.peer}
    return missing, tuple(unknown)


def _reached(state: RankState, ordinals: Mapping[Any, int], key: object) -> int | None:
    """The last ordinal that a rank entered, -1 where none; None: its page does not tell."""
    if not state.readable or (state.full and key not in ordinals):
        return None
    return ordinals.get(key, -1)


def _absent_peer(
    rank: int, call: Call, states: Mapping[int, RankState]
) -> tuple[dict[int, int], tuple[int, ...]]:
    """The same for the other side of a message."""
    if call.peer is None or call.ordinal is None or call.group is None:
        return {}, ()
    peer = states.get(call.peer)
    if peer is None or not peer.begun:
        return {call.peer: -1}, ()
    other = peer.sent if call.op == "recv" else peer.received
    reached = _reached(peer, other, (call.group, rank))
    if reached is None:
        return {}, (call.peer,)
    return ({call.peer: reached} if reached < call.ordinal else {}), ()


def _mismatch(inside: Sequence[tuple[int, Call]]) -> str:
    """How calls that should be one differ, as `all_reduce on 0, all_gather on 1`; else empty."""
    kinds: dict[str, list[int]] = {}
    for rank, call in inside:
        size = f" of {call.num_bytes} bytes" if call.op in EQUAL_SIZES and call.num_bytes else ""
        kinds.setdefault(f"{call.op}{size}", []).append(rank)
    if len(kinds) < 2:
        return ""
    shown = sorted(kinds.items(), key=lambda item: len(item[1]))[:4]
    return ", ".join(f"{what} on {_few(ranks)}" for what, ranks in shown)


def _few(ranks: Sequence[int]) -> str:
    more = f" and {len(ranks) - 3} more" if len(ranks) > 3 else ""
    return ", ".join(map(str, ranks[:3])) + more


# -- who is at the end of the chain --------------------------------------------------------------

Blame = tuple[Kind, tuple[int, ...], PendingCall | None]


def _blame(states: Mapping[int, RankState], calls: Sequence[PendingCall]) -> Blame:
    if not calls:
        return "none", (), None
    for call in calls:
        if call.mismatch:
            return "mismatch", (), call
    of_rank = {rank: call for call in calls for rank in call.waiting}
    blocking = {rank for call in calls for rank in call.blockers}
    ends = {rank for rank in blocking if _is_end(states.get(rank), of_rank.get(rank))}
    if ends:
        return _ended_in(ends, states, calls)
    if blocking:
        cycle = _cycle(of_rank)
        if cycle:
            return "cycle", tuple(sorted(cycle)), of_rank[cycle[0]]
    whole = [call for call in calls if not call.missing and not call.unknown]
    if whole:  # everybody is inside: the others wait for this call to end
        return "inside", (), max(whole, key=lambda call: len(call.waiting))
    return "unknown", (), max(calls, key=lambda call: len(call.waiting))


def _is_end(state: RankState | None, call: PendingCall | None) -> bool:
    """Waited for, and waiting for nobody."""
    return state is None or state.halted is not None or call is None


def _ended_in(
    ends: set[int], states: Mapping[int, RankState], calls: Sequence[PendingCall]
) -> Blame:
    """Processes that are stopped or gone explain those that are merely late."""
    halted = {rank for rank in ends if rank in states and states[rank].halted}
    named = halted or ends
    waited = [call for call in calls if named & set(call.blockers)]
    # What it has to enter next is the call that lacks nobody else, if there is one.
    decisive = max(waited, key=lambda call: (named >= set(call.blockers), len(call.waiting)))
    return ("halted" if halted else "missing"), tuple(sorted(named)), decisive


def _cycle(of_rank: Mapping[int, PendingCall]) -> list[int]:
    """Ranks that wait for each other in a ring; empty where there is none."""
    done: set[int] = set()
    for start in sorted(of_rank):
        path: list[int] = []
        rank: int | None = start
        while rank is not None and rank not in done:
            done.add(rank)
            path.append(rank)
            rank = next((other for other in of_rank[rank].blockers if other in of_rank), None)
            if rank in path:
                return path[path.index(rank) :]
    return []


def _halted_or_behind(states: Mapping[int, RankState]) -> tuple[Kind, tuple[int, ...]]:
    """Nobody is known to wait: a process that is stopped, or those that made fewer calls."""
    halted = tuple(sorted(rank for rank, state in states.items() if state.halted))
    if halted and len(halted) < len(states):
        return "halted", halted
    absent = tuple(sorted(rank for rank, state in states.items() if not state.begun))
    if absent:
        return "missing", absent
    behind, ahead = _order(states)
    last = behind - ahead or behind
    return ("behind", tuple(sorted(last))) if last else ("unknown", ())


def _order(states: Mapping[int, RankState]) -> tuple[set[int], set[int]]:
    """Ranks behind another in some group's collectives, and ranks ahead of one."""
    reached: dict[str, dict[int, int]] = {}
    for rank, state in states.items():
        if state.ended or not state.readable:
            continue
        for group, ordinal in state.entered.items():
            reached.setdefault(group, {})[rank] = ordinal
        for (group, peer), ordinal in state.received.items():
            sender = states.get(peer)
            if sender and sender.readable and (group, rank) in sender.sent:
                pair = reached.setdefault(f"{group} {peer}>{rank}", {})
                pair.update({rank: ordinal, peer: sender.sent[group, rank]})
    behind: set[int] = set()
    ahead: set[int] = set()
    for ordinals in reached.values():
        low, high = min(ordinals.values()), max(ordinals.values())
        behind |= {rank for rank, ordinal in ordinals.items() if ordinal < high}
        ahead |= {rank for rank, ordinal in ordinals.items() if ordinal > low}
    return behind, ahead


def _weight(call: PendingCall, decisive: PendingCall | None) -> tuple[bool, bool, int, int]:
    """Order of calls: the decisive one, those that lack somebody, then by how many wait."""
    return (call is not decisive, not call.blockers, -len(call.waiting), call.waiting[0])
