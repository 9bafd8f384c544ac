"""A diagnosis in sentences: what stands, on whom, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from harness_analysis.hang.model import Diagnosis, PendingCall, RankState
from harness_schemas.units import format_bytes

MOST_NAMED = 8
MOST_MEMBERS = 4
REMEDIES: Mapping[str, str] = {
    "missing": "look at what the missing rank does (its stack, its log), not at those that wait",
    "halted": "find out what stopped or ended that process: a debugger, job control, the kernel's "
    "memory killer, a failed node",
    "cycle": "these calls are made in different orders on different ranks: make the order one",
    "mismatch": "the ranks took different paths through the program: find where they part",
    "inside": "every rank came, the transfer does not end: look at network, NVLink and the GPUs "
    "(`harness doctor`, the kernel's Xid messages), or at a rank on a host not seen from here",
    "behind": "calls on a device return at once, so who waits cannot be seen from the host: look "
    "at the rank that made the fewest calls",
    "unknown": "look at the stacks of the ranks",
    "none": "",
}


def ranks_text(ranks: Iterable[int], most: int = MOST_NAMED) -> str:
    """`0-2, 5`; of many pieces the first, and how many ranks more."""
    pieces: list[tuple[int, int]] = []
    for rank in sorted(set(ranks)):
        if pieces and rank == pieces[-1][1] + 1:
            pieces[-1] = (pieces[-1][0], rank)
        else:
            pieces.append((rank, rank))
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in pieces[:most]]
    left = sum(high - low + 1 for low, high in pieces[most:])
    return ", ".join(shown) + (f" and {left} more" if left else "")


def named(ranks: Sequence[int]) -> str:
    """`rank 3`, `ranks 0-2, 5`."""
    return ("rank " if len(ranks) == 1 else "ranks ") + ranks_text(ranks)


def group_text(group: str | None) -> str:
    """A group's name; of one with many members their range, as `[0-1023]#0`."""
    if group is None:
        return "an unknown group"
    inside, mark, ordinal = group.removeprefix("[").rpartition("]#")
    members = inside.split(",")
    if not mark or len(members) <= MOST_MEMBERS or not all(part.isdigit() for part in members):
        return f"group {group}"
    return f"group [{ranks_text(map(int, members), MOST_MEMBERS).replace(', ', ',')}]#{ordinal}"


def call_text(call: PendingCall) -> str:
    """`all_reduce 17 of group [0,1]#0 (16.0 KiB)`, `recv 4 from rank 0 on rank 2`."""
    number = "" if call.ordinal is None else f" {call.ordinal}"
    size = f" ({format_bytes(call.num_bytes)})" if call.num_bytes is not None else ""
    if call.op in ("send", "recv"):
        other = "an unknown rank" if call.peer is None else f"rank {call.peer}"
        direction = "to" if call.op == "send" else "from"
        return f"{call.op}{number} {direction} {other}{size}"
    return f"{call.op}{number} of {group_text(call.group)}{size}"


def sentence(found: Diagnosis, states: Mapping[int, RankState]) -> str:
    """Who keeps the ranks, in one sentence without a full stop."""
    call, who = found.decisive, named(found.culprits) if found.culprits else ""
    if found.kind == "missing":
        text = _missing(found, states)
    elif found.kind == "halted":
        text = _halted(found, states)
    elif found.kind == "cycle":
        text = f"{who} wait for each other"
    elif found.kind == "mismatch" and call is not None:
        text = f"one call of {group_text(call.group)}, number {call.ordinal}, is not the same "
        text += f"everywhere: {call.mismatch}"
    elif found.kind == "inside" and call is not None:
        text = f"all that {call_text(call)} needs are in it, and it does not end"
    elif found.kind == "behind":
        text = f"nobody is seen to wait; {who} made fewer calls than the others"
    elif call is not None:
        text = f"{named(call.waiting)} waits in {call_text(call)}; for whom is not known"
    else:
        text = "no call is pending, and nobody is behind"
    return text + _others(found)


def reason(found: Diagnosis) -> str:
    """What the culprits are blamed for, in half a sentence; empty where nobody can be named."""
    if found.kind == "missing":
        return f"had not entered {_missed(found)}"
    return "wait for each other" if found.kind == "cycle" else ""


def _missing(found: Diagnosis, states: Mapping[int, RankState]) -> str:
    who, one = named(found.culprits), len(found.culprits) == 1
    kinds = [states.get(rank) for rank in found.culprits]
    if all(state is None or not state.begun for state in kinds):
        return f"{who} never began to record"
    ended = all(state is not None and state.ended for state in kinds)
    text = f"{who} {'has' if one else 'have'} " + ("ended and " if ended else "") + "not entered "
    text += _missed(found)
    places = {state.where for state in kinds if state and state.where}
    if len(places) == 1 and not ended:
        text += f"; {'it is' if one else 'they are'} in {places.pop()}"
    return text


def _missed(found: Diagnosis) -> str:
    call = found.decisive
    if call is None:
        return "what the others wait in"
    if call.op in ("send", "recv"):
        number = "" if call.ordinal is None else f" {call.ordinal}"
        own = f"send{number} to" if call.op == "recv" else f"recv{number} from"
        return f"{own} rank {call.waiting[0]}"
    return call_text(call)


def _halted(found: Diagnosis, states: Mapping[int, RankState]) -> str:
    how = sorted({states[rank].halted or "gone" for rank in found.culprits if rank in states})
    verb = "is" if len(found.culprits) == 1 else "are"
    text = f"the process of {named(found.culprits)} {verb} {' or '.join(how)}"
    if found.decisive is not None:
        missing = set(found.culprits) & set(found.decisive.missing)
        text += ", outside of " if missing else ", inside of "
        text += call_text(found.decisive)
    places = {states[rank].where for rank in found.culprits if rank in states} - {""}
    return text + (f", in {places.pop()}" if len(places) == 1 else "")


def _others(found: Diagnosis) -> str:
    if not found.blocked or found.kind == "cycle":
        return ""
    verb = "waits" if len(found.blocked) == 1 else "wait"
    return f"; {named(found.blocked)} {verb} for that"
