"""Tables of sacct as others keep them: CSV, drawn, quoted in a mail, in a container's log."""

from __future__ import annotations

import csv
import re
from typing import Final

from harness_collectors.sacct.drawn import APART, table_drawn
from harness_collectors.sacct.table import MAX_PREFACE, find_header
from harness_schemas.log_prefix import without_prefixes

_HEAD_CHARS: Final = 65_536
_NAME: Final = r'"?[A-Za-z]{2,30}"?'
_QUOTED: Final = re.compile(r"(?:> ?(?=>))*> ?")
_CSV_HEADER: Final = re.compile(rf"^{_NAME}(?:,{_NAME}){{1,120}}\s*$", re.MULTILINE)


def bare(text: str) -> str:
    """A text whose table may be read by its columns: itself, where nothing stands in the way."""
    head = text[:_HEAD_CHARS]
    if "JobID" not in head:
        return text
    if head.lstrip().startswith((">", "```")):
        text = _unquoted_lines(text)
        head = text[:_HEAD_CHARS]
    if table := table_drawn(text, head):
        return table
    header = _CSV_HEADER.search(head)
    if header and "JobID" in header[0] and '"' in head:
        return _unquoted(text[header.start() :])
    if not _has_header(head) and _has_header(without_prefixes(head)):
        return without_prefixes(text)
    return text


def _has_header(head: str) -> bool:
    return any(find_header(line) for line in head.splitlines()[:MAX_PREFACE])


def _unquoted_lines(text: str) -> str:
    """Lines without the marks of a quotation, where all have them, and without code fences."""
    lines = text.splitlines()
    if all(line.startswith(">") for line in lines if line.strip()):
        lines = [_QUOTED.sub("", line, count=1) for line in lines]
    kept = [line for line in lines if not line.startswith("```")]
    return "\n".join(kept) + ("\n" if text.endswith("\n") else "")


def _unquoted(text: str) -> str:
    """The rows of a CSV file, their fields apart by a sign that needs no quotes."""
    try:
        rows = list(csv.reader(text.splitlines(keepends=True)))
    except csv.Error:
        return text
    lines = [APART.join(" ".join(field.split()) for field in row) for row in rows]
    return "\n".join(lines) + ("\n" if text.endswith("\n") else "")
