"""Tables as pages and programs draw them hold the rows that `sacct -P` prints."""

from __future__ import annotations

import pytest
from unit.collectors.sacct.evidence import FIXTURES

from harness_collectors.reading.wrapped import printed
from harness_collectors.sacct.bare import bare
from harness_collectors.sacct.table import read_table

PLAIN = (FIXTURES / "requeue_D.txt").read_text()
COLUMNS = ("JobID", "JobName", "State", "ExitCode", "Elapsed", "MaxRSS", "NodeList", "Start")


def cells():
    rows = [line.split("|") for line in PLAIN.splitlines()]
    kept = [place for place, name in enumerate(rows[0]) if name in COLUMNS]
    return [[row[place] for place in kept] for row in rows]


def line(left, middle, right, sign="-"):
    return lambda widths: left + middle.join(sign * (width + 2) for width in widths) + right


def drawn(rows, bar, above, below, between=None, last=None, outer=True, extra=()):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def row(fields):
        inner = bar.join(f" {text:<{width}} " for text, width in zip(fields, widths, strict=True))
        return f"{bar}{inner}{bar}" if outer else inner

    lines = [row(rows[0]), *map(row, extra), below(widths)]
    for fields in rows[1:]:
        lines += [row(fields), *([between(widths)] if between else [])]
    edges = ([above(widths)] if above else []), ([last(widths)] if last else [])
    return "\n".join([*edges[0], *lines, *edges[1]]) + "\n"


def markdown(rows):
    return drawn(rows, "|", None, line("|", "|", "|"))


def psql(rows):
    return drawn(rows, "|", None, line("", "+", ""), outer=False) + f"({len(rows) - 1} rows)\n"


def mysql(rows):
    edge = line("+", "+", "+")
    return drawn(rows, "|", edge, edge, last=edge)


def rst(rows):
    edge = line("+", "+", "+")
    return drawn(rows, "|", edge, line("+", "+", "+", "="), between=edge)


def rich(rows):
    edges = [
        line("\u250f", "\u2533", "\u2513", "\u2501"),
        line("\u2521", "\u2547", "\u2529", "\u2501"),
        line("\u2514", "\u2534", "\u2518", "\u2500"),
    ]
    first, rest = drawn(rows, "\u2502", edges[0], edges[1], last=edges[2]).split("\n", 2)[1:]
    return f"{first.replace(chr(0x2502), chr(0x2503))}\n{rest}"


def duckdb(rows):
    edges = [
        line("\u250c", "\u252c", "\u2510", "\u2500"),
        line("\u251c", "\u253c", "\u2524", "\u2500"),
        line("\u2514", "\u2534", "\u2518", "\u2500"),
    ]
    types = ["varchar"[: len(name)] for name in rows[0]]
    return drawn(rows, "\u2502", edges[0], edges[1], last=edges[2], extra=[types])


def pandas(rows):
    numbered = [["", *rows[0]], *([str(n), *row] for n, row in enumerate(rows[1:]))]
    return markdown(numbered)


def reading(text):
    found = read_table(bare(printed(text.encode()).decode()), None)
    return found.steps, found.unreadable


@pytest.mark.parametrize("draw", [markdown, psql, mysql, rst, rich, duckdb, pandas])
@pytest.mark.parametrize("before", ["", "> ", "    ", "fence", "words"])
def test_a_drawn_table_is_read_as_the_plain_one(draw, before):
    rows = cells()
    plain = reading("".join("|".join(row) + "\n" for row in rows))
    text = draw(rows)
    if before == "fence":
        text = f"```\n{text}```\n"
    elif before == "words":
        text = f"What sacct says of it:\n\n{text}\nAny ideas?\n"
    else:
        text = "".join(f"{before}{each}\n" for each in text.splitlines())
    assert len(plain[0]) > 3
    assert reading(text) == plain


def test_a_field_with_a_bar_in_it_is_no_two_fields():
    text = "| JobID | JobName | State |\n|---|---|---|\n| 7 | a\\|b | COMPLETED |\n"
    (step,) = reading(text)[0]
    assert (step.job_id, step.name, step.state) == ("7", "a|b", "COMPLETED")
