"""The page of a comparison: what changed, how much, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness_analysis.compare import Comparison
from harness_analysis.report.blocks import Section
from harness_analysis.report.page import render_template, write_page
from harness_analysis.report.sections.compare import (
    changes_section,
    metrics_section,
    reasons_section,
)


def write_comparison(found: Sequence[Comparison], path: Path) -> None:
    """Write one page of all pairs; the same databases give the same bytes.

    Raises:
        HarnessError: it cannot be written.
    """
    write_page(render_comparison(found), path)


def render_comparison(found: Sequence[Comparison]) -> str:
    """The page as text."""
    sections = [section for k, pair in enumerate(found) for section in pair_sections(pair, k)]
    return render_template(
        "compare.html.j2", title=_title(found), pairs=list(found), sections=sections
    )


def pair_sections(pair: Comparison, position: int) -> list[Section]:
    """The three sections of a pair."""
    return [
        changes_section(pair, position),
        metrics_section(pair, position),
        reasons_section(pair, position),
    ]


def _title(found: Sequence[Comparison]) -> str:
    against = found[0].a.label
    if len(found) == 1:
        return f"{found[0].b.label} against {against}"
    return f"{len(found)} comparisons, the first against {against}"
