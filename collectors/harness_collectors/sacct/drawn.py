"""Tables of sacct as pages and programs draw them: Markdown, psql, mysql, rst, rich, DuckDB."""

from __future__ import annotations

import re
from typing import Final

APART: Final = "\x1f"
"""Between the fields of a table that was drawn: in nobody's name."""
_BARS: Final = str.maketrans(dict.fromkeys("\u2502\u2503\u2506\u250a\u254e\u2551", "|"))
_RULE: Final = re.compile(r"(?=.*[-=\u2500\u2501\u2550])[-=+:|\s\u2500-\u257f]{3,}$")
_BAR: Final = re.compile(r"(?<!\\)\|")
_MARKS: Final = "*`_ "
"""What Markdown puts around a word; no field of sacct begins or ends so."""


def table_drawn(text: str, head: str) -> str | None:
    """The rows of the table that a text draws, their fields `APART`; None: it draws none.

    `head`: the text's beginning, in which the line of the names stands. It is one for its bars and
    the rule beside it; rows of `sacct -P` have no rule.
    """
    lines = [line.strip().translate(_BARS) for line in head.splitlines()]
    for place, line in enumerate(lines):
        if "JobID" not in line or "|" not in line or "JobID" not in _cells(line):
            continue
        below = next((n for n in (1, 2) if _is_rule(lines, place + n)), 0)
        if below or (place and _is_rule(lines, place - 1)):
            # DuckDB has the types of its columns between names and rule.
            return _rows(text.splitlines()[place:], below if below == 2 else 0)
    return None


def _is_rule(lines: list[str], place: int) -> bool:
    return place < len(lines) and _RULE.match(lines[place]) is not None


def _cells(line: str) -> list[str]:
    """The fields of a line, bars stripped at both ends."""
    bare = line.removeprefix("|").removesuffix("|") if line.startswith("|") else line
    return [cell.strip().replace("\\|", "|") for cell in _BAR.split(bare)]


def _rows(lines: list[str], types: int) -> str:
    names = [name.strip(_MARKS) for name in _cells(lines[0].strip().translate(_BARS))]
    first = 1 if names[0] == "" else 0  # numbers of rows, as pandas writes them
    found = [APART.join(names[first:])]
    for place, line in enumerate(lines[1:], 1):
        drawn = line.strip().translate(_BARS)
        if "|" in drawn and _RULE.match(drawn) is None and not (types and place < types):
            row = APART.join(cell.strip("`") for cell in _cells(drawn)[first:])
            if row != found[0]:  # another table of the same names
                found.append(row)
    return "\n".join(found) + "\n"
