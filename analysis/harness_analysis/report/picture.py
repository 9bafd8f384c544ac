"""The picture of a straggler as a standalone SVG: communication time beside its cause.

Plain shapes and text, no script, no font of its own; light and dark by the reader's scheme.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from harness_analysis.answer import RunFacts
from harness_analysis.report.numbers.blame import Blame, RankBlame
from harness_analysis.report.palette import STYLES
from harness_analysis.report.sections.blame import chosen_ranks, comm_word, lead, step_lines
from harness_schemas.errors import EvidenceError
from harness_schemas.units import format_ns
from harness_schemas.whole_file import whole_file

WIDTH = 920
MARGIN = 28
LABELS = 74
"""Pixels for the names of ranks."""
AMOUNT = 78
"""Pixels for the number at the end of a bar."""
LINE = 118
"""Letters of a line of text."""
ROW = 28
BAR = 17
COLORS = {
    "page": ("#ffffff", "#12171d"),
    "line": ("#dfe4ea", "#2b343e"),
    "text": ("#17202a", "#e6ebf0"),
    "muted": ("#586472", "#9aa7b4"),
    "mark": ("#fdeae5", "#35220f"),
    "hatch": ("#ffffff", "#12171d"),
    "wait": (STYLES["comm_wait_ns"].light, STYLES["comm_wait_ns"].dark),
    "transfer": (STYLES["comm_transfer_ns"].light, STYLES["comm_transfer_ns"].dark),
    "compute": (STYLES["compute_ns"].light, STYLES["compute_ns"].dark),
    "unsplit": (STYLES["comm_unsplit_ns"].light, STYLES["comm_unsplit_ns"].dark),
}
FILLS = {
    "comm_wait_ns": "wait",
    "compute_ns": "compute",
    "comm_transfer_ns": "transfer",
}


@dataclass(frozen=True)
class Panel:
    """A column of bars: left edge, and pixels for the longest value."""

    left: float
    width: float
    most: float

    def length(self, ns: float) -> float:
        """Pixels of a value."""
        return self.width * ns / self.most if self.most else 0.0


def write_picture(blame: Blame | None, run: RunFacts, path: Path) -> None:
    """Write the picture as SVG.

    Raises:
        EvidenceError: no collective of a decode step tells waiting from transfer.
        HarnessError: the file cannot be written.
    """
    if blame is None:
        raise EvidenceError(
            "there is no picture: no collective of a decode step tells waiting from transfer",
            'see why: harness query RUN "FROM coverage"',
        )
    with whole_file(path) as temporary:
        temporary.write_text(draw_picture(blame, run), encoding="utf-8")


def draw_picture(blame: Blame, run: RunFacts) -> str:
    """The picture as text."""
    rows = chosen_ranks(blame)
    said = textwrap.wrap(lead(blame), LINE)
    top = 130 + 19 * len(said)
    bottom = top + ROW * len(rows)
    parts = [*_head(blame, run, said, top), *_panels(blame, rows, top), *_legend(bottom + 22)]
    end = bottom + 40
    if blame.step is not None:
        parts += _steps(blame, end + 26)
        end += 40 + ROW * len(step_lines(blame.step))
    foot = f"{blame.steps} decode steps, {blame.collectives} collectives, from {blame.source}"
    if len(rows) < len(blame.ranks):
        foot += f"; {len(rows)} of {len(blame.ranks)} ranks"
    parts.append(_text(MARGIN, end + 22, foot, "small"))
    height = end + 40
    title = f"{run.name or run.run_id}: {lead(blame)}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" role="img" aria-label="{_attribute(title)}">',
            f"<title>{escape(title)}</title>",
            _style(),
            f'<rect class="page line" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" '
            'rx="12"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _head(blame: Blame, run: RunFacts, said: list[str], top: float) -> list[str]:
    title = "No rank is shown to be late in most steps"
    if blame.culprit is not None and any(row.rank == blame.culprit for row in blame.ranks):
        title = f"Rank {blame.culprit} is the slow one."
        if any(row.comm_ns > blame.of_rank(blame.culprit).comm_ns for row in blame.ranks):
            title += " Its communication time does not show it."
    word = comm_word(blame)
    word = word if word == "NCCL" else word.lower()
    shape = None if run.tp is None or run.pp is None else f"TP {run.tp} x PP {run.pp}"
    told = (run.name or run.run_id, shape, run.device, run.dtype)
    facts = ", ".join(fact for fact in told if fact)
    left, right = _panel_lefts()
    return [
        _text(MARGIN, 42, title, "title"),
        *(_text(MARGIN, 66 + 19 * k, line, "small") for k, line in enumerate([*said, facts])),
        _text(left, top - 30, f"What profilers show: {word} time", "head"),
        _text(left, top - 12, "of each rank, a decode step", "small"),
        _text(right, top - 30, "What happened: waiting it caused", "head"),
        _text(right, top - 12, "summed over the others, a decode step", "small"),
    ]


def _panel_lefts() -> tuple[float, float]:
    left = MARGIN + LABELS
    return left, left + (WIDTH - MARGIN - left) / 2 + 8


def _panels(blame: Blame, rows: list[RankBlame], top: float) -> list[str]:
    left, right = _panel_lefts()
    width = right - left - AMOUNT - 12
    shown = Panel(left, width, max(row.comm_ns for row in rows))
    caused = Panel(right, width, max(row.caused_ns for row in rows))
    parts = []
    for index, row in enumerate(rows):
        y = top + ROW * index
        weight = "name"
        if row.rank == blame.culprit:
            weight = "name strong"
            parts.append(
                f'<rect class="mark" x="{MARGIN - 8}" y="{y}" width="{WIDTH - 2 * MARGIN + 16}" '
                f'height="{ROW}" rx="5"/>'
            )
        base = y + ROW / 2 + 5
        parts.append(_text(MARGIN, base, f"rank {row.rank}", weight))
        parts += _comm_bar(shown, row, y + (ROW - BAR) / 2)
        parts.append(_amount(shown, row.comm_ns, base, weight))
        parts.append(_rect(caused.left, y + (ROW - BAR) / 2, caused.length(row.caused_ns), "wait"))
        parts.append(_amount(caused, row.caused_ns, base, weight))
    return parts


def _comm_bar(panel: Panel, row: RankBlame, y: float) -> list[str]:
    whole = panel.length(row.comm_ns)
    if row.transfer_ns is None or row.wait_ns is None:
        return [_rect(panel.left, y, whole, "unsplit")]
    transfer = panel.length(min(row.transfer_ns, row.comm_ns))
    waits = min(panel.length(row.wait_ns), whole - transfer)
    return [
        _rect(panel.left, y, whole, "unsplit") if whole - transfer - waits > 0.5 else "",
        _rect(panel.left, y, transfer, "transfer"),
        _rect(panel.left + transfer, y, waits, "wait"),
        _rect(panel.left + transfer, y, waits, "hatched"),
    ]


def _legend(y: float) -> list[str]:
    parts, x = [], float(_panel_lefts()[0])
    for fill, hatched, text in (
        ("transfer", False, "moving data"),
        ("wait", True, "waiting for a later rank"),
        ("wait", False, "making the others wait"),
    ):
        parts.append(_rect(x, y - 10, 18, fill, 11))
        parts.append(_rect(x, y - 10, 18, "hatched", 11) if hatched else "")
        parts.append(_text(x + 24, y, text, "small"))
        x += 50 + 6.6 * len(text)
    return parts


def _steps(blame: Blame, top: float) -> list[str]:
    if blame.step is None:
        return []
    lines = step_lines(blame.step)
    left = MARGIN + 300
    panel = Panel(left, WIDTH - MARGIN - left - AMOUNT, max(ns for _, _, ns in lines))
    parts = [
        f'<line class="line" x1="{MARGIN}" y1="{top - 14}" x2="{WIDTH - MARGIN}" y2="{top - 14}"/>',
        _text(MARGIN, top + 6, "The decode step, median", "head"),
    ]
    for index, (what, part, ns) in enumerate(lines):
        y = top + 14 + ROW * index
        parts.append(_text(MARGIN, y + ROW / 2 + 5, what, "name"))
        parts.append(_rect(left, y + (ROW - BAR) / 2, panel.length(ns), FILLS[part]))
        parts.append(_amount(panel, ns, y + ROW / 2 + 5, "name strong"))
    return parts


def _rect(x: float, y: float, width: float, fill: str, height: float = BAR) -> str:
    if width <= 0:
        return ""
    return (
        f'<rect class="{fill}" x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" '
        f'height="{height}" rx="2"/>'
    )


def _amount(panel: Panel, ns: float, y: float, style: str) -> str:
    return _text(panel.left + panel.length(ns) + 8, y, format_ns(ns), style)


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _attribute(text: str) -> str:
    return escape(text, {'"': "&quot;"})


def _style() -> str:
    def scheme(which: int) -> str:
        rules = [f".{name}{{fill:{colors[which]}}}" for name, colors in COLORS.items()]
        rules.append(f".line{{stroke:{COLORS['line'][which]};fill:none}}")
        rules.append(f".page{{fill:{COLORS['page'][which]}}}")
        rules.append(f".title,.head,.name{{fill:{COLORS['text'][which]}}}")
        rules.append(f".small{{fill:{COLORS['muted'][which]}}}")
        rules.append(f".stripe{{stroke:{COLORS['hatch'][which]}}}")
        return "".join(rules)

    return (
        '<defs><pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><line class="stripe" x1="0" y1="0" x2="0" y2="7" '
        'stroke-width="3" stroke-opacity="0.6"/></pattern></defs>\n'
        "<style>text{font:14px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
        ".title{font-size:21px;font-weight:700}.head,.strong{font-weight:700}"
        ".small{font-size:13px}.hatched{fill:url(#hatch)}"
        f"{scheme(0)}@media(prefers-color-scheme:dark){{{scheme(1)}}}</style>"
    )
