"""The page of a sweep: its studies, drawn like the page of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness_analysis.report.page import render_template, write_page
from harness_analysis.report.sections.scaling import scaling_section
from harness_analysis.scaling.document import SweepFacts
from harness_analysis.scaling.model import Study


def write_sweep_page(facts: SweepFacts, studies: Sequence[Study], path: Path) -> None:
    """Write the page of a sweep.

    Raises:
        HarnessError: it cannot be written.
    """
    sections = [scaling_section(study, position) for position, study in enumerate(studies)]
    write_page(render_template("sweep.html.j2", sweep=facts, sections=sections), path)
