"""Words of a failure that tell of none: denied, conditional, or quoted by a help text."""

from __future__ import annotations

import re
from typing import Final

_NEAR: Final = 60
_DENIED = re.compile(
    r"\b(?:[Nn]o|[Ww]ithout|[Nn]ever|[Zz]ero|(?<![.\w])0|[Aa]void(?:s|ing)?|[Pp]revent(?:s|ing)?"
    r"|(?:may|might|possibly|perhaps)\b[^.;:!]*|in case of|in the event of|[Ii]f [^.;:!]*"
    r"|[Tt]o (?:fix|debug|handle|catch))"
    r"(?: (?:an?|any|the|further|more))? $"
)
_NOT_ONE = re.compile(
    r"[^.;:]{0,40}\b(?:as|is|was) expected\b|\s*[:=]\s*(?:0|none|no|never)\b(?:\s*$| times|[.,;])"
)
_WARNED = re.compile(r"\s*(?:WARN(?:ING)?[: ]|\[WARN(?:ING)?\]|Warning: |\[W\d)")
"""What a program itself takes for no failure."""
_CODE = re.compile(r"\s*(?:[+-]\s*)?(?:except|raise)\b|\++ |[+-] {2,}")
"""Of a program, a difference between two, or a shell that echoes its commands."""
_QUOTE = re.compile(r"(?:^\s*-|[A-Za-z)](?<!failure)(?<!error),?) (['\"`])[^'\"`]*$")
"""What stands before a quotation in a list or within a sentence; an error's own text follows `:`,
`=`, a bracket or its number."""
_RETOLD = re.compile(r"(?:^|\s)(?!std)[A-Z]?[a-z]+ (?:srun|slurmstepd): error: ")
"""A sentence about what Slurm prints: Slurm's own words begin a line, or are glued to another."""


def said(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The first match of a failure's words that claims the failure; None: there is none."""
    return next((match for match in pattern.finditer(text) if not _mentioned(match)), None)


def _mentioned(match: re.Match[str]) -> bool:
    text = match.string
    if _WARNED.match(text) or _CODE.match(text) or _NOT_ONE.match(text, match.end()):
        return True
    if "rror: " in text and _RETOLD.search(text, max(0, match.start() - _NEAR), match.end()):
        return True
    before = text[max(0, match.start() - _NEAR) : match.start()]
    if not before.strip():
        return False
    if _DENIED.search(before):
        return True
    quote = _QUOTE.search(before)
    return quote is not None and quote[1] in text[match.end() :]
