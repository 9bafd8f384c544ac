"""The only writer to stdout: text, rows and tables in the format that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from harness.sections import Section


def emit(text: str) -> None:
    """Write data to stdout."""
    click.echo(text)


def emit_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], style: str) -> None:
    """Write rows to stdout in the chosen format."""
    emit_tables([(columns, rows)], style)


def emit_tables(
    tables: Sequence[tuple[Sequence[str], Sequence[Sequence[Any]]]], style: str
) -> None:
    """Write (columns, rows) one after the other; several as JSON are one list."""
    from harness.cli.printing.rows import render_rows

    texts = [render_rows(columns, rows, style).rstrip("\n") for columns, rows in tables]
    if style == "json" and len(texts) > 1:
        emit("[" + ",\n".join(texts) + "]")
    else:
        emit("\n\n".join(texts))


def emit_sections(sections: Sequence[Section], style: str) -> None:
    """Write several tables to stdout: JSON is one object, the others follow each other."""
    from harness.cli.printing.rows import render_rows

    if style == "json":
        import json

        found = {
            section.key: {
                "title": section.title,
                "rows": json.loads(render_rows(section.columns, section.rows, "json")),
                "notes": list(section.notes),
            }
            for section in sections
        }
        emit(json.dumps(found, indent=1, ensure_ascii=False))
        return
    emit("\n\n".join(_section_text(section, style) for section in sections))


def _section_text(section: Section, style: str) -> str:
    from harness.cli.printing.rows import printable, render_rows, wrap_lines

    body = render_rows(section.columns, section.rows, style).rstrip("\n")
    title, notes = printable(section.title), [printable(note) for note in section.notes]
    if style == "csv":
        return body
    if style == "markdown":
        marks = "".join(f"\n- {note}" for note in notes)
        return f"### {title}\n\n{body}" + (f"\n{marks}" if notes else "")
    table = [body] if section.rows or not notes else []
    return "\n".join([title, *table, *(line for note in notes for line in wrap_lines(note))])
