"""Tables of a Markdown page: rows of configurations, or one small table of metrics for each.

Reports often give every configuration a heading, a list of its settings and a table of two columns
(metric, value). Those of one section become the rows of one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

Raw = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""Title, headings, rows of cells."""

_HEADING = re.compile(r"(#+)\s*(.+)")
_SETTING = re.compile(r"\s*[-*+]\s+([^:]{1,60}):\s*(.+)")
_EMPHASIS = re.compile(r"[*_`]{1,3}")
FEWEST_METRICS = 3


@dataclass
class _Part:
    """What stands under one heading: settings, prose and the tables in between."""

    level: int
    title: str
    settings: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)


def markdown_tables(text: str, name: str, is_metric: Callable[[str], bool]) -> list[Raw]:
    """The tables of a page; `is_metric` says whether a heading or a first cell is a metric's."""
    found: list[Raw] = []
    above: list[_Part] = []
    sections: dict[int, tuple[_Part, list[dict[str, str]]]] = {}
    parts = list(_parts(text, name))
    pipeline = _is_pipeline(parts)
    for part in parts:
        while above and above[-1].level >= part.level:
            above.pop()
        section = above[-1] if above and part.settings else part
        above.append(part)
        for head, _, *rows in part.tables:
            if not _is_one_configuration(head, rows, is_metric):
                found.append((part.title, head, rows))
                continue
            metrics = {row[0]: row[1] for row in rows if len(row) > 1}
            settings = {**part.settings, **(_stages(part) if pipeline else {})}
            _, group = sections.setdefault(id(section), (section, []))
            group.append({"configuration": _label(part), **settings, **metrics})
    return found + [_joined(section.title, group) for section, group in sections.values()]


def _parts(text: str, name: str) -> Iterator[_Part]:
    part, block = _Part(0, name), list[list[str]]()
    for line in [*text.splitlines(), ""]:
        if line.lstrip().startswith("|"):
            block.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if len(block) > 2 and all(set(cell) <= set(":- ") for cell in block[1]):
            part.tables.append(block)
        block = []
        plain = _EMPHASIS.sub("", line)
        if heading := _HEADING.match(line):
            yield part
            part = _Part(len(heading[1]), heading[2].strip())
        elif setting := _SETTING.match(plain):
            part.settings[setting[1].strip()] = setting[2].strip()
        else:
            part.words.append(plain)
    yield part


def _is_one_configuration(
    head: Sequence[str], rows: Sequence[Sequence[str]], is_metric: Callable[[str], bool]
) -> bool:
    if len(head) != 2 or any(is_metric(heading) for heading in head[1:]):
        return False
    return sum(is_metric(row[0]) for row in rows if row) >= FEWEST_METRICS


def _label(part: _Part) -> str:
    told = ", ".join(f"{name} {value}" for name, value in part.settings.items())
    return told or part.title


def _is_pipeline(parts: Sequence[_Part]) -> bool:
    """Whether nodes are the stages of a pipeline, by the page's text alone."""
    settings = " ".join(name for part in parts for name in part.settings).lower()
    words = " ".join(word for part in parts for word in (part.title, *part.words)).lower()
    told = re.search(r"\b(tp|pp)\b|tensor|stage|pipeline", settings)
    return not told and "pipeline" in words and "tensor" not in words


def _stages(part: _Part) -> dict[str, str]:
    nodes = [value for name, value in part.settings.items() if "nodes" in name.lower()]
    return {"pipeline stages (by the text)": nodes[0]} if nodes else {}


def _joined(title: str, group: Sequence[dict[str, str]]) -> Raw:
    head = list(dict.fromkeys(name for row in group for name in row))
    return title, head, [[row.get(name, "") for name in head] for row in group]
