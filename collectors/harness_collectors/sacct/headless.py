"""Rows of sacct without a header line (`-n`): what their values alone show, and no more.

A job id, a state and an exit code can be told from anything else; which of several times or sizes
a column holds cannot, so those stay unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from harness_collectors.sacct.fields import STATES, parse_job_id, parse_state

_EXIT = re.compile(r"(?:0|[1-9]\d{0,2}):(?:0|[1-9]\d{0,2})")
_BY = re.compile(r"\b(CANCELLED) by (\d+)")
_SIZE = re.compile(r"\d+(?:\.\d+)?[KMGTP]")
_CLOCK = re.compile(r"(?:\d+-)?\d\d:\d\d:\d\d(?:\.\d+)?")
_SAID_OF_STEPS = re.compile(r"[\w.,=/:+-]*", re.ASCII)
_LOOKED_AT: Final = 20
PLAIN_FIELDS: Final = ("jobid", "state", "exitcode")


def infer_fields(rows: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """Names of the columns that can be told, "" for the others; None: not even the state's can."""
    if not rows:
        return None
    wanted = Counter(len(row) for row in rows).most_common(1)[0][0]
    columns = list(zip(*(row for row in rows if len(row) == wanted), strict=True))
    states = [place for place, values in enumerate(columns) if all(map(_is_state, values))]
    exits = [
        place
        for place, values in enumerate(columns)
        if all(_EXIT.fullmatch(value.strip()) for value in values)
    ]
    if len(states) != 1 or not all(map(_is_job, columns[0])):
        return None
    names = [""] * wanted
    names[0], names[states[0]] = "jobid", "state"
    if len(exits) == 1:  # two: ExitCode and DerivedExitCode, in an order that is not known
        names[exits[0]] = "exitcode"
    return tuple(names)


def is_usage(fields: Sequence[str]) -> bool:
    """Whether these are of a row of sstat: a step, and what it used, but no state.

    `3.0` may be any number, so that beside it both a size and a time are asked for.
    """
    try:
        step = parse_job_id(fields[0]).step
    except ValueError:
        return False
    rest = fields[1:]
    if step is None or not all(map(_SAID_OF_STEPS.fullmatch, rest)):
        return False
    sizes, clocks = (any(map(shape.fullmatch, rest)) for shape in (_SIZE, _CLOCK))
    return sizes and clocks if step.isdecimal() else sizes or clocks


def is_plain(lines: Sequence[str]) -> bool:
    """Whether lines are rows of the columns for people, without their header, exit code and all."""
    said = [line for line in lines if line.strip()][: _LOOKED_AT + 1]
    looked_at = said[:-1] or said  # the last may be cut
    return bool(looked_at) and all((plain_row(line) or [""])[-1] for line in looked_at)


def plain_row(line: str) -> list[str] | None:
    """Job id, state and exit code of a row; None where it is none, or two states are in it."""
    words = _BY.sub(r"\1_by_\2", line).split()
    states = [word for word in words[1:] if _is_state(word.replace("_by_", " by "))]
    exits = [word for word in words[1:] if _EXIT.fullmatch(word)]
    if not words or not _is_job(words[0]) or len(states) != 1 or len(words) < 3:
        return None
    return [words[0], states[0].replace("_by_", " by "), exits[0] if len(exits) == 1 else ""]


def _is_job(text: str) -> bool:
    try:
        parse_job_id(text)
    except ValueError:
        return False
    return True


def _is_state(text: str) -> bool:
    if text.strip()[:4].upper() not in _BEGINNINGS:
        return False
    try:
        return parse_state(text) is not None
    except ValueError:
        return False


_BEGINNINGS: Final = frozenset(state[:4] for state in STATES)
