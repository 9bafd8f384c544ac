"""Failures that a program outlived: its log goes on as it went before, or progresses to its end.

A keyword says that something failed, not that it was the end: out of memory is caught and tried
again with half the batch, a worker group is restarted, a server answers one request with an error
and the next with success. What decides is what comes after.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

RESUMED: Final = 3
"""Lines of one form, seen before too, after which work counts as resumed."""
PROGRESSED: Final = 5
"""Lines of a form with a growing number, up to the end, where the form is new."""
_FORMS: Final = 200
_LONGEST: Final = 400
_COLUMNS: Final = 8
_CHECKED: Final = 20_000
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_STAMP = re.compile(
    r"\d+[-/]\d+[-/]\d+|\d+:\d\d(?::\d\d)?(?:[.,]\d+)?|(?:pid|PID)[= ]\d+|0x[0-9a-f]+"
)
_NO_WORK = re.compile(
    r"\s|frame #|#\d|\*|-|0x|/\S+\(|/health|.*(?:/health|/metrics|/ping|/ready|0x[0-9a-f]{6}"
    r"|[Ww]ait|[Ss]ignal|SIGTERM|NCCL INFO|heartbeat|alive|Terminat|[Ss]hutdown|[Ss]hutting|\[W)"
)
"""Stacks, clean-up and probes go on, in growing numbers too, when all is over."""
_FINAL = re.compile(r"(?:\S+ )?(?:slurmstepd|srun): |=>> PBS|TERM_[A-Z]+:")
"""What ended is a step or a job, whatever its script or its ranks print until they are killed."""
_KERNEL = re.compile(r"NVRM: |oom-kill:|[Oo]ut of memory: Kill|invoked oom-killer|SXid")
"""The kernel outlives all."""
_RESTARTED = re.compile(
    r"attempts left; will restart worker group|[Rr]esum(?:ing|ed) (?:\w+ )?from"
    r"|[Rr]estart(?:ing|ed) (?:training|from)|SLURM_RESTART_COUNT=[1-9]"
)
_IGNORED = re.compile(r"Exception ignored in")


@dataclass
class _Form:
    """Lines of one form: where they stand, and the first numbers of each that are no times."""

    places: list[int] = field(default_factory=list)
    numbers: list[tuple[float, ...]] = field(default_factory=list)


def survived(
    lines: Sequence[tuple[int | None, str]], told: Sequence[int], failing: Callable[[str], bool]
) -> frozenset[int]:
    """Places of the failing lines that were not the end.

    `lines`: (rank, text) of a whole log without launchers' prefixes; `told`: the places of those
    that may tell of a failure, in order, or of most; `failing`: whether a text may. Lines of one
    rank say nothing of another's survival.
    """
    if not told or len(lines) - told[0] <= RESUMED:
        return frozenset()
    restarted = _last_restart(lines, set(told))
    forms = _forms(lines, set(told), failing)
    found = set(_ignored(lines))
    last_told = {rank: place for place in told for rank in [lines[place][0]]}
    for place in told[-_CHECKED:]:
        rank, text = lines[place]
        if _KERNEL.search(text):
            continue
        outlived = not _FINAL.match(text) and (
            _resumed(forms.get(rank, ()), place)
            or _progressed(forms.get(rank, ()), place, last_told[rank], len(lines))
        )
        if place < restarted or outlived:
            found.add(place)
    return frozenset(found)


def _forms(
    lines: Sequence[tuple[int | None, str]], told: set[int], failing: Callable[[str], bool]
) -> dict[int | None, Sequence[_Form]]:
    """Forms of the lines of work by rank, those that recur most."""
    found: dict[int | None, dict[str, _Form]] = {}
    for place, (rank, text) in enumerate(lines):
        if place in told or not text or _NO_WORK.match(text):
            continue
        bare = _STAMP.sub("@", text[:_LONGEST])
        form = found.setdefault(rank, {}).setdefault(_NUMBER.sub("#", bare), _Form())
        form.places.append(place)
        form.numbers.append(tuple(map(float, _NUMBER.findall(bare)[:_COLUMNS])))
    return {
        rank: _recurring(form for text, form in forms.items() if not failing(text))
        for rank, forms in found.items()
    }


def _recurring(forms: Iterable[_Form]) -> list[_Form]:
    often = [form for form in forms if len(form.places) > RESUMED]
    return sorted(often, key=lambda form: -len(form.places))[:_FORMS]


def _resumed(forms: Sequence[_Form], place: int) -> bool:
    """Whether the work before a place, by the form of the last line of work there, goes on.

    Lines of another form prove nothing: a monitor reports an idle GPU when all is over.
    """
    reached = ((bisect_right(form.places, place), form) for form in forms)
    before = [(form.places[at - 1], at, form.places) for at, form in reached if at]
    if not before:
        return False
    _, at, places = max(before)
    return len(places) - at >= RESUMED


def _progressed(forms: Sequence[_Form], place: int, last_told: int, end: int) -> bool:
    """Whether after the last failure a new number grew, line by line, up to near the end."""
    for form in forms:
        start = bisect_right(form.places, last_told)
        near_end = form.places[-1] >= end - 3 * PROGRESSED
        columns = zip(*form.numbers[start:], strict=True)  # of one form, so as many in each
        if form.places[0] > place and near_end and any(map(_grows, columns)):
            return True
    return False


def _grows(numbers: tuple[float, ...]) -> bool:
    return len(set(numbers)) >= PROGRESSED and numbers == tuple(sorted(numbers))


def _last_restart(lines: Sequence[tuple[int | None, str]], told: set[int]) -> int:
    """Where the last attempt begins that got anywhere; 0: there is one attempt only."""
    for place in range(len(lines) - 1, -1, -1):
        if _RESTARTED.search(lines[place][1]):
            after = range(place + 1, len(lines))
            if sum(n not in told and not _NO_WORK.match(lines[n][1]) for n in after) >= RESUMED:
                return place + 1
    return 0


def _ignored(lines: Sequence[tuple[int | None, str]]) -> Iterable[int]:
    """Exceptions that Python says it ignored, as those of finalizers."""
    waiting: set[int | None] = set()
    for place, (rank, text) in enumerate(lines):
        if _IGNORED.search(text):
            waiting.add(rank)
            yield place
        elif rank in waiting and not text[:1].isspace():
            yield place
            if not text.startswith("Traceback"):
                waiting.discard(rank)
