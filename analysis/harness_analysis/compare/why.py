"""Why: which part of a step moved, and where it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness_analysis.compare.effects import Effect, Side
from harness_analysis.compare.parts import WINDOW
from harness_schemas.units import format_ns, format_share
from harness_schemas.vocabulary import MEASURED_PHASES, PART_LABELS, PARTS

UNIT = {"decode": "decode step", "prefill": "prefill", "mixed": "step", "all": "run"}
MATERIAL = 0.005
"""Parts that move by less of the step are not spoken of."""
REAPPEARS = 0.4
"""Share of what a rank gained that must be found as waiting to be called the same time."""
MOST_RANKS = 4
MUCH_BLAMED = 0.6
"""Share of all waiting that makes a rank the one that is waited for."""
STILL = 0.5
"""A step that shortens by less than this of a rank's gain did not gain from it."""


@dataclass(frozen=True)
class Moved:
    """Mean effects of one phase by part, and rank by rank, in ns a unit; only what is shown."""

    phase: str
    window_a: float
    mean: Mapping[str, float]
    shown: frozenset[str]
    """Parts whose mean effect is not explained by chance."""
    by_rank: Mapping[int, Mapping[str, float]]
    judged: bool = True
    """There are intervals."""
    unjudged: frozenset[str] = frozenset()
    """Parts without one."""


def explain(a: Side, b: Side, effects: Sequence[Effect]) -> list[str]:
    """Sentences, a phase after the other."""
    found = []
    for phase in (*MEASURED_PHASES, "all"):
        moved = moved_parts(phase, [effect for effect in effects if effect.phase == phase])
        if moved is not None:
            found.append(balance(moved))
            found += reappearances(moved)
            if phase == "decode":
                found += _blame(a, b)
    return found


def moved_parts(phase: str, effects: Sequence[Effect]) -> Moved | None:
    """What moved in a phase; None: its length is unknown on a side."""
    means = {e.part: e for e in effects if e.rank is None and e.part is not None}
    window = means.get(WINDOW)
    if window is None or not window.a or window.b is None:
        return None
    by_rank: dict[int, dict[str, float]] = {}
    for effect in effects:
        if effect.rank is not None and effect.part and effect.word in ("better", "worse"):
            by_rank.setdefault(effect.rank, {})[effect.part] = _difference(effect) or 0.0
    return Moved(
        phase,
        window.a,
        {part: d for part, e in means.items() if (d := _difference(e)) is not None},
        frozenset(part for part, e in means.items() if e.word in ("better", "worse")),
        by_rank,
        judged=window.interval is not None,
        unjudged=frozenset(part for part, e in means.items() if e.interval is None),
    )


def _difference(effect: Effect) -> float | None:
    return None if effect.a is None or effect.b is None else effect.b - effect.a


def balance(moved: Moved) -> str:
    """Where the difference of the mean unit lies, the largest part first."""
    total = moved.mean[WINDOW]
    name = UNIT.get(moved.phase, moved.phase)
    head = f"A {name} of {format_ns(moved.window_a)} (mean over ranks) "
    parts = sorted(
        ((part, ns) for part, ns in moved.mean.items() if part in PARTS),
        key=lambda item: -abs(item[1]),
    )
    told = [
        f"{PART_LABELS[part]} {signed_ns(ns)}{_doubt(moved, part)}"
        for part, ns in parts
        if abs(ns) >= MATERIAL * moved.window_a
    ]
    if not moved.judged:
        head += f"differs by {signed_ns(total)}, and nothing says how surely"
    elif WINDOW in moved.shown:
        share = format_share(abs(total) / moved.window_a)
        head += f"became {format_ns(abs(total))} ({share}) {'longer' if total > 0 else 'shorter'}"
    else:
        head += f"differs by {signed_ns(total)}, no more than chance explains"
    return f"{head}: {', '.join(told)}" if told else f"{head}: no part moved by 0.5 % of it"


def _doubt(moved: Moved, part: str) -> str:
    if part in moved.shown or not moved.judged:
        return ""
    return " (how surely is unknown)" if part in moved.unjudged else " (may be chance)"


def signed_ns(ns: float) -> str:
    """A difference of time with its sign."""
    return f"{'+' if ns >= 0 else '-'}{format_ns(abs(ns))}"


def reappearances(moved: Moved) -> list[str]:
    """Computing that a rank gained or lost and that came back as somebody's waiting."""
    found = []
    ranks = sorted(moved.by_rank, key=lambda r: -abs(moved.by_rank[r].get("compute_ns", 0.0)))
    for rank in ranks:
        own = moved.by_rank[rank]
        gain = -own.get("compute_ns", 0.0)
        if abs(gain) < MATERIAL * moved.window_a:
            continue
        others = {r: d.get("comm_wait_ns", 0.0) for r, d in moved.by_rank.items() if r != rank}
        sentence = _gained(moved, rank, gain) if gain > 0 else _lost(rank, -gain, others)
        if sentence:
            found.append(sentence)
    hidden = len(found) - MOST_RANKS
    return found[:MOST_RANKS] + ([f"... and {hidden} ranks more"] if hidden > 0 else [])


def _gained(moved: Moved, rank: int, gain: float) -> str | None:
    wait = moved.by_rank[rank].get("comm_wait_ns", 0.0)
    shorter = -moved.mean[WINDOW] if WINDOW in moved.shown else 0.0
    if wait >= REAPPEARS * gain and shorter < STILL * gain:
        return (
            f"Rank {rank} computes {format_ns(gain)} less a {UNIT.get(moved.phase, moved.phase)}, "
            f"but {format_ns(wait)} of it reappears as waiting for its peers: it was not the one "
            "that the others waited for, so its gain does not shorten the step"
        )
    waits = {r: d.get("comm_wait_ns", 0.0) for r, d in moved.by_rank.items() if r != rank}
    less = -min(waits.values(), default=0.0)
    if less >= REAPPEARS * gain:
        return (
            f"Rank {rank} computes {format_ns(gain)} less, and its peers wait up to "
            f"{format_ns(less)} less for it: the others had waited for this rank"
        )
    return None


def _lost(rank: int, loss: float, others: Mapping[int, float]) -> str | None:
    more = max(others.values(), default=0.0)
    if more < REAPPEARS * loss:
        return None
    waiting = [r for r, wait in others.items() if wait >= REAPPEARS * loss]
    who = f"rank {waiting[0]} waits" if len(waiting) == 1 else f"{len(waiting)} ranks wait"
    return (
        f"Rank {rank} computes {format_ns(loss)} longer, and {who} up to {format_ns(more)} longer "
        "for it: what shows as communication there is this rank's computing"
    )


def _blame(a: Side, b: Side) -> list[str]:
    """The rank that most of the waiting is for, where that changed."""
    before, after = _most_blamed(a), _most_blamed(b)
    if before is None or after is None or max(before[1], after[1]) < MUCH_BLAMED:
        return []
    same = before[0] == after[0]
    if same and min(before[1], after[1]) >= MUCH_BLAMED:
        return []
    told = [
        f"in {label} {format_share(share)} of the waiting is for rank {rank}"
        if share >= MUCH_BLAMED
        else f"in {label} for nobody above all"
        for label, (rank, share) in (("A", before), ("B", after))
    ]
    return [f"Who is waited for: {', '.join(told)}"]


def _most_blamed(side: Side) -> tuple[int, float] | None:
    total: dict[int, float] = {}
    for run in side.runs:
        for rank, ns in run.blamed_ns.items():
            total[rank] = total.get(rank, 0.0) + ns
    if not sum(total.values()):
        return None
    rank = max(total, key=total.__getitem__)
    return rank, total[rank] / sum(total.values())
