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
_SHELL = re.compile(r".{0,200}: line \d+: \S{1,80}: command not found\s*$")
"""A script goes on after that: the program that it was to start would have said nothing more."""


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
    telling = set(told)
    restarted = _last_restart(lines, telling)
    last_told = {lines[place][0]: place for place in told}
    work = {
        rank: _work(forms, last_told.get(rank, len(lines)), len(lines))
        for rank, forms in _forms(lines, telling, failing).items()
    }
    found = set(_ignored(lines))
    for place in told:
        rank, text = lines[place]
        if _KERNEL.search(text):
            continue
        goes_on = rank in work and not _FINAL.match(text) and work[rank].goes_on(place)
        if (
            place < restarted
            or goes_on
            or (_SHELL.match(text) and _says_more(lines, place, telling))
        ):
            found.add(place)
    return frozenset(found)


def _says_more(lines: Sequence[tuple[int | None, str]], place: int, telling: set[int]) -> bool:
    """Whether some lines follow that tell of no failure."""
    rest = (at for at in range(place + 1, len(lines)) if at not in telling)
    return sum(1 for at in rest if not _NO_WORK.match(lines[at][1])) >= RESUMED


@dataclass
class _Work:
    """A rank's lines of work: where they stand, each with its form, and the newest progress."""

    places: list[int]
    forms: list[_Form]
    progressed_from: int

    def goes_on(self, place: int) -> bool:
        """Whether the work before a place goes on after it, or new work gets anywhere.

        Lines of another form than the last one before the place prove nothing: a monitor reports
        an idle GPU when all is over.
        """
        if self.progressed_from > place:
            return True
        nearest = bisect_right(self.places, place) - 1
        if nearest < 0:
            return False
        form = self.forms[nearest]
        return len(form.places) - bisect_right(form.places, place) >= RESUMED


def _work(forms: Sequence[_Form], last_told: int, end: int) -> _Work:
    listed = sorted(((at, form) for form in forms for at in form.places), key=lambda pair: pair[0])
    begins = [form.places[0] for form in forms if _progressed(form, last_told, end)]
    return _Work([at for at, _ in listed], [form for _, form in listed], max(begins, default=-1))


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


def _progressed(form: _Form, last_told: int, end: int) -> bool:
    """Whether after the last failure a number grew, line by line, up to near the end."""
    if form.places[-1] < end - 3 * PROGRESSED:
        return False
    after = form.numbers[bisect_right(form.places, last_told) :]
    return any(map(_grows, zip(*after, strict=True)))  # of one form, so as many numbers in each


def _grows(numbers: tuple[float, ...]) -> bool:
    return len(set(numbers)) >= PROGRESSED and numbers == tuple(sorted(numbers))


def _last_restart(lines: Sequence[tuple[int | None, str]], told: set[int]) -> int:
    """Where the last attempt begins that got anywhere; 0: there is one attempt only."""
    after = 0
    for place in range(len(lines) - 1, -1, -1):
        text = lines[place][1]
        if after >= RESUMED and _RESTARTED.search(text):
            return place + 1
        after += place not in told and not _NO_WORK.match(text)
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
