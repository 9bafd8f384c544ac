"""Puts the page together: gathers the numbers, lets each section draw, fills the template.

The page fetches nothing. Its Content-Security-Policy forbids every connection and every script
but the two it brings, which are named by their hashes: text from evidence cannot run even if
escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness_analysis.answer import Answer, load_answer
from harness_analysis.report.blocks import Figure, Section
from harness_analysis.report.numbers.blame import Blame, load_blame
from harness_analysis.report.numbers.pipeline import Bubble, load_bubbles
from harness_analysis.report.numbers.samples import Samples, load_samples
from harness_analysis.report.numbers.sizes import Sizes, load_sizes
from harness_analysis.report.numbers.steps import StepSeries, load_steps
from harness_analysis.report.numbers.timeline import Timelines, load_timelines
from harness_analysis.report.numbers.waiting import Waiting, load_waiting
from harness_analysis.report.palette import STYLES, css_name, part_names, variables
from harness_analysis.report.sections.blame import blame_section
from harness_analysis.report.sections.evidence import (
    evidence_section,
    glossary_section,
    specification_section,
)
from harness_analysis.report.sections.parts import breakdown_section, steps_section
from harness_analysis.report.sections.pipeline import pipeline_section
from harness_analysis.report.sections.samples import samples_section
from harness_analysis.report.sections.sizes import sizes_section
from harness_analysis.report.sections.summary import (
    correctness_section,
    latency_section,
    summary_section,
)
from harness_analysis.report.sections.timeline import timeline_section
from harness_analysis.report.sections.waits import waits_section
from harness_schemas.whole_file import whole_file

if TYPE_CHECKING:
    import duckdb

TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class PageNumbers:
    """Everything that the page shows."""

    answer: Answer
    blame: Blame | None
    steps: StepSeries | None
    timelines: Timelines | None
    waiting: Waiting | None
    sizes: Sizes | None
    bubbles: Sequence[Bubble]
    samples: Samples | None
    spec: str | None
    provenance: str | None


def write_report(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    baseline: duckdb.DuckDBPyConnection | None = None,
    more: Sequence[Section] = (),
) -> None:
    """Write the report of the run in `con` as one HTML page.

    The same database gives the same bytes. `path` appears whole or not at all. `baseline`: a run
    of the same work, whose measured step stands beside the predicted one. `more`: sections that
    the caller made, to stand before the evidence.

    Raises:
        EvidenceError: the database is not a run's.
        HarnessError: the page cannot be written.
    """
    write_page(render_page(gather(con, baseline), more), path)


def write_page(page: str, path: Path) -> None:
    """Write a page; `path` appears whole or not at all.

    Raises:
        HarnessError: it cannot be written.
    """
    with whole_file(path, "choose another place with --output") as temporary:
        temporary.write_text(page, encoding="utf-8")


def gather(
    con: duckdb.DuckDBPyConnection, baseline: duckdb.DuckDBPyConnection | None = None
) -> PageNumbers:
    """Ask the database everything that the page shows."""
    row = con.execute("SELECT spec, provenance FROM runs ORDER BY run_id").fetchone()
    spec, provenance = row or (None, None)
    return PageNumbers(
        answer=load_answer(con),
        blame=load_blame(con, baseline),
        steps=load_steps(con),
        timelines=load_timelines(con),
        waiting=load_waiting(con),
        sizes=load_sizes(con),
        bubbles=load_bubbles(con),
        samples=load_samples(con),
        spec=spec,
        provenance=provenance,
    )


def page_sections(numbers: PageNumbers, more: Sequence[Section] = ()) -> list[Section]:
    """The sections in their order; those without evidence are left out."""
    answer = numbers.answer
    sections = [
        summary_section(answer),
        blame_section(numbers.blame),
        breakdown_section(answer),
        steps_section(numbers.steps),
        timeline_section(numbers.timelines),
        waits_section(numbers.waiting),
        sizes_section(numbers.sizes),
        pipeline_section(numbers.bubbles),
        latency_section(answer.latency),
        correctness_section(answer.correctness),
        samples_section(numbers.samples),
        *more,
        evidence_section(answer),
        specification_section(numbers.spec, numbers.provenance),
        glossary_section(),
    ]
    return [section for section in sections if section is not None]


def render_page(numbers: PageNumbers, more: Sequence[Section] = ()) -> str:
    """The page as text."""
    sections = page_sections(numbers, more)
    return render_template("report.html.j2", run=numbers.answer.run, sections=sections)


def render_template(name: str, **context: object) -> str:
    """A page with everything that pages share: the style, the scripts, the colours of the parts."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["figure_json"] = lambda figure: Markup(figure_json(figure))
    environment.globals["css_name"] = css_name
    scripts = [get_plotlyjs().replace("\r\n", "\n"), _asset("report.js")]
    text = environment.get_template(name).render(
        parts=part_names(),
        patterns={part: style.pattern for part, style in STYLES.items()},
        light=variables(dark=False),
        dark=variables(dark=True),
        css=Markup(_asset("report.css")),
        # Ours and plotly's own scripts: no text of the evidence is in them.
        scripts=[Markup(script) for script in scripts],
        policy=_policy(scripts),
        **context,
    )
    return str(text)


def figure_json(figure: Figure) -> str:
    """A figure's data for a script element: `<` cannot end it, whatever the evidence says."""
    text = json.dumps(figure.data(), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
