"""Rows as text: table, JSON, CSV or Markdown, the same bytes on a terminal and in a pipe."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

WIDTH = 110
"""Columns that tables are fitted into where their text can be wrapped."""
MIN_WRAPPED = 24
"""A column is not made narrower than this for the sake of the others."""
MOST_LINES = 6
"""Lines of one cell of a table; what was left out stands in the other styles."""

Rows = Sequence[Sequence[Any]]


def render_rows(columns: Sequence[str], rows: Rows, style: str = "table") -> str:
    """Rows in one of four styles; the text ends in a newline.

    table: aligned, NULL is `-`, long text wrapped where that makes it fit `WIDTH`, to `MOST_LINES`.
    json: a list of objects; NULL is null, as are NaN and infinities, which JSON does not have;
    times are ISO 8601, blobs are hexadecimal. csv: RFC 4180 with LF; NULL is empty and empty
    text is `""`. markdown: a GitHub table.

    Raises:
        ValueError: an unknown style (a defect of the caller).
    """
    styles: dict[str, Callable[[Sequence[str], Rows], str]] = {
        "table": _table,
        "json": _json,
        "csv": _csv,
        "markdown": _markdown,
    }
    if style not in styles:
        raise ValueError(f"style {style!r} is none of {', '.join(styles)}")
    return styles[style](columns, rows)


def printable(text: str) -> str:
    """Text without what a terminal would obey: escape sequences, bidirectional overrides."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\n" if c == "\n" else "\ufffd" for c in text)


def wrap_lines(text: str, indent: str = "  ") -> list[str]:
    """A sentence as lines of at most `WIDTH`, each after the indent."""
    return [indent + line for line in _wrap(text, WIDTH - len(indent))]


# -- JSON ------------------------------------------------------------------------------------


def _json(columns: Sequence[str], rows: Rows) -> str:
    names = _unique(columns)
    found = [{name: _plain(value) for name, value in zip(names, row, strict=True)} for row in rows]
    lines = ",\n".join(" " + json.dumps(row, ensure_ascii=False) for row in found)
    return f"[\n{lines}\n]\n" if found else "[]\n"


def _unique(columns: Sequence[str]) -> list[str]:
    """Names that can be keys: SQL allows the same column twice."""
    seen: dict[str, int] = {}
    names = []
    for column in columns:
        seen[column] = seen.get(column, 0) + 1
        names.append(column if seen[column] == 1 else f"{column}_{seen[column]}")
    return names


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return str(value)


# -- CSV and Markdown ------------------------------------------------------------------------


def _csv(columns: Sequence[str], rows: Rows) -> str:
    lines = [",".join(_csv_field(column) for column in columns)]
    lines += [",".join(_csv_field(value) for value in row) for row in rows]
    return "\n".join(lines) + "\n"


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    text = repr(value) if isinstance(value, float) else _text(value)
    if text == "" or any(c in text for c in ',"\n\r'):
        return '"' + text.replace('"', '""') + '"'
    return text


def _markdown(columns: Sequence[str], rows: Rows) -> str:
    numeric = [_is_numeric(rows, index) for index in range(len(columns))]
    lines = ["| " + " | ".join(_markdown_cell(column) for column in columns) + " |"]
    lines.append("| " + " | ".join("---:" if number else "---" for number in numeric) + " |")
    lines += ["| " + " | ".join(_markdown_cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _markdown_cell(value: Any) -> str:
    text = printable(_cell(value)).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").replace("\n", "<br>")


# -- table -----------------------------------------------------------------------------------


def _table(columns: Sequence[str], rows: Rows) -> str:
    if not columns:
        return "\n"
    cells = [[printable(_cell(value)) for value in row] for row in rows]
    numeric = [_is_numeric(rows, index) for index in range(len(columns))]
    heads = [printable(str(column)) for column in columns]
    widths = _widths(heads, cells, numeric)
    lines = _line(heads, widths, numeric)
    lines += ["  ".join("-" * width for width in widths)]
    for row in cells:
        lines += _line(row, widths, numeric)
    if not rows:
        lines.append("(no rows)")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _widths(heads: list[str], cells: list[list[str]], numeric: list[bool]) -> list[int]:
    """Natural widths; text columns narrowed to fit, the widest first, where that is enough."""
    from rich.cells import cell_len

    widths = [
        max([cell_len(head), *(_widest(row[index]) for row in cells)])
        for index, head in enumerate(heads)
    ]
    narrowed = list(widths)
    while sum(narrowed) + 2 * (len(narrowed) - 1) > WIDTH:
        able = [k for k, width in enumerate(narrowed) if not numeric[k] and width > MIN_WRAPPED]
        if not able:
            return widths  # wrapping cannot make it fit: leave the lines whole
        narrowed[max(able, key=lambda k: narrowed[k])] -= 1
    return narrowed


def _widest(text: str) -> int:
    from rich.cells import cell_len

    return max((cell_len(line) for line in text.split("\n")), default=0)


def _line(row: list[str], widths: list[int], numeric: list[bool]) -> list[str]:
    wrapped = [_shown(_wrap(text, width), width) for text, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, wrapped))):
        parts = [
            _pad(texts[number] if number < len(texts) else "", width, right)
            for texts, width, right in zip(wrapped, widths, numeric, strict=True)
        ]
        lines.append("  ".join(parts))
    return lines


def _shown(lines: list[str], width: int) -> list[str]:
    """At most `MOST_LINES` of a cell: a kernel's name can fill a screen."""
    if len(lines) <= MOST_LINES:
        return lines
    return [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][: width - 4] + " ..."]


def _wrap(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for line in text.split("\n"):
        fits = len(line) <= width
        lines += [line] if fits else textwrap.wrap(line, width, break_on_hyphens=False)
    return lines or [""]


def _pad(text: str, width: int, right: bool) -> str:
    from rich.cells import cell_len

    space = " " * max(0, width - cell_len(text))
    return space + text if right else text + space


def _is_numeric(rows: Rows, index: int) -> bool:
    values = [row[index] for row in rows if row[index] is not None]
    numbers = int | float | decimal.Decimal
    return bool(values) and all(
        isinstance(value, numbers) and not isinstance(value, bool) for value in values
    )


def _cell(value: Any) -> str:
    """A value as people read it: floats in six significant digits, NULL as `-`."""
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping | list | tuple | set):
        return json.dumps(_plain(value), ensure_ascii=False)
    plain = _plain(value)
    return str(plain if plain is not None else value)


def wrapped(lines: Iterable[str]) -> str:
    """Lines broken at `WIDTH`, what follows indented under its beginning."""
    text = []
    for line in lines:
        line = printable(line)
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        text += textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return "".join(f"{line}\n" for line in text)
