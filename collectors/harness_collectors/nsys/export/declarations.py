"""What a CREATE TABLE says of its columns."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_FIRST_WORD = re.compile(r'\s*(?:"([^"]*)"|`([^`]*)`|\[([^\]]*)\]|([^\s(,]+))\s*(\w*)')
_CONSTRAINTS: Final = frozenset({"primary", "unique", "check", "foreign", "constraint"})


def parse_columns(sql: str) -> tuple[tuple[str, ...], int]:
    """Column names of a CREATE TABLE, and the place of its INTEGER PRIMARY KEY (-1: none)."""
    body = _COMMENT.sub(" ", sql).partition("(")[2].rpartition(")")[0]
    names: list[str] = []
    row_id = -1
    for part in _split(body):
        match = _FIRST_WORD.match(part)
        if match is None or (match[4] or "").lower() in _CONSTRAINTS:
            continue
        is_key = re.search(r"\bprimary\s+key\b", part, re.IGNORECASE) is not None
        if is_key and match[5].lower() == "integer":
            row_id = len(names)
        names.append(next(group for group in match.groups()[:4] if group is not None))
    return tuple(names), row_id


def _split(body: str) -> Iterator[str]:
    """Parts between commas that are in no parentheses."""
    depth = begin = 0
    for place, char in enumerate(body):
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            yield body[begin:place]
            begin = place + 1
    if body[begin:].strip():
        yield body[begin:]
