"""What pages are made of: plain data, between the numbers and the template.

A figure cannot be made without the table that says the same in text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers stand right."""

    name: str
    number: bool = True
    part: str = ""
    """Part of the breakdown whose colour the heading shows."""


@dataclass(frozen=True)
class Table:
    """Rows of text."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Choice:
    """One thing a figure can show: for each of its traces, the fields that change."""

    label: str
    changes: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Figure:
    """A chart as plotly's plain data, and the same as a table.

    Strings `var(--name)` in `traces` and `layout` stand for colours of the page's theme.
    """

    kind: ClassVar[str] = "figure"
    id: str
    title: str
    label: str
    """What the chart shows, for those who cannot see it."""
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    height: int
    table: Table
    common: Mapping[str, Any] = field(default_factory=dict)
    """Fields that every trace has."""
    note: str = ""
    legend: Sequence[str] = ()
    """Parts that the chart holds: the page draws one legend for them."""
    choices: Sequence[Choice] = ()
    choice_title: str = ""
    shares: bool = False
    """The reader may switch from time to share."""
    zoom: bool = False
    """Sliders zoom along the horizontal axis: for fingers and for the keyboard."""

    def data(self) -> dict[str, Any]:
        """What the page's script is given; what the first choice sets is written there only."""
        first = self.choices[0].changes if self.choices else [{}] * len(self.traces)
        return {
            "traces": [
                {name: value for name, value in trace.items() if name not in changes}
                for trace, changes in zip(self.traces, first, strict=True)
            ],
            "common": dict(self.common),
            "layout": dict(self.layout),
            "choices": [list(choice.changes) for choice in self.choices],
        }


@dataclass(frozen=True)
class Tile:
    """A headline number."""

    value: str
    label: str
    detail: str = ""


@dataclass(frozen=True)
class Tiles:
    """Headline numbers side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Piece:
    """A part of a composition bar."""

    part: str
    share: float
    text: str


@dataclass(frozen=True)
class Composition:
    """One bar that shows of what a whole consists, drawn without script."""

    kind: ClassVar[str] = "composition"
    title: str
    label: str
    pieces: Sequence[Piece]
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """Pieces of one bar, (part, length from 0 to 1), and the number at its end."""

    pieces: Sequence[tuple[str, float]]
    text: str
    solid: bool = False
    """Drawn without the parts' hatching."""


@dataclass(frozen=True)
class BarColumn:
    """Heading of a column of bars, and what it is in small letters."""

    name: str
    detail: str


@dataclass(frozen=True)
class BarRow:
    """A name and a bar for each column; `marked`: the one to look at."""

    name: str
    bars: Sequence[Bar]
    marked: bool = False


@dataclass(frozen=True)
class Bars:
    """A table whose numbers are drawn as bars beside them, without script: it prints anywhere."""

    kind: ClassVar[str] = "bars"
    title: str
    columns: Sequence[BarColumn]
    rows: Sequence[BarRow]
    legend: Sequence[str] = ()


@dataclass(frozen=True)
class Finding:
    """A sentence of what the run shows."""

    severity: str
    text: str


@dataclass(frozen=True)
class Findings:
    """Findings, most important first."""

    kind: ClassVar[str] = "findings"
    findings: Sequence[Finding]
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, str]]
    parts: Sequence[str] = ()
    """For a glossary of parts: the part that each fact is about."""


@dataclass(frozen=True)
class Listing:
    """Text kept as it is, behind a heading that opens it."""

    kind: ClassVar[str] = "listing"
    title: str
    text: str


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    kind: ClassVar[str] = "note"
    text: str


Block = Table | Figure | Tiles | Composition | Bars | Findings | Facts | Listing | Note


@dataclass(frozen=True)
class Section:
    """A part of the page; `short` is its name in the navigation."""

    id: str
    title: str
    short: str
    lead: str
    blocks: Sequence[Block]
    grid: bool = False
    """Figures stand side by side where there is room."""
