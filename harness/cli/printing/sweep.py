"""What `harness report SWEEP` and the end of `harness sweep` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.output import emit, emit_rows

if TYPE_CHECKING:
    from harness_analysis.scaling.document import SweepFacts
    from harness_analysis.scaling.model import Study

SIDE_BY_SIDE = 5
"""Points that stand beside each other; more of them stand below each other."""


def report_sweep(folder: Path, style: str, html: bool = False, output: Path | None = None) -> None:
    """Print the scaling tables of a sweep, or write them as a page and print its path.

    `output` ending in .md: a Markdown page with SVG pictures beside it, else an HTML page.
    """
    _report(*load_sweep(folder), style, output or (folder / "report.html" if html else None))


def report_runs(
    name: str, databases: Sequence[Path], style: str, html: bool, output: Path | None
) -> None:
    """The same of any runs, as a wildcard names them; a page is made in the current folder."""
    from harness_analysis.scaling.document import sweep_facts
    from harness_analysis.scaling.load import load_runs
    from harness_analysis.scaling.study import make_studies

    runs = load_runs(databases)
    facts = sweep_facts(output.stem if output else name, "", "", runs)
    _report(facts, make_studies(runs), style, output or (Path("report.html") if html else None))


def _report(facts: SweepFacts, studies: list[Study], style: str, output: Path | None) -> None:
    if output is not None and output.suffix == ".md":
        from harness_analysis.scaling.document import write_document

        for path in write_document(facts, studies, output):
            emit(str(path))
    elif output is not None:
        from harness_analysis.report.sweep_page import write_sweep_page

        write_sweep_page(facts, studies, output)
        emit(str(output))
    elif style in ("json", "csv"):
        from harness_analysis.scaling.rows import flat_rows

        emit_rows(*flat_rows(studies), style)
    elif style == "markdown":
        from harness_analysis.scaling.document import markdown

        emit(markdown(facts, studies, [None] * len(studies)).rstrip("\n"))
    else:
        emit(sweep_text(facts, studies))


def load_sweep(folder: Path) -> tuple[SweepFacts, list[Study]]:
    """The facts of a sweep's folder and its studies; none where no run has a database."""
    from harness.sweep.folder import done_runs, read_sweep
    from harness_analysis.scaling.document import sweep_facts
    from harness_analysis.scaling.load import load_runs
    from harness_analysis.scaling.study import make_studies
    from harness_schemas.rundir import RunDir

    data = read_sweep(folder)
    # Of a run that was repeated because it had failed, the last one counts.
    kept = sorted(run.run_id for run in done_runs(folder).values() if run.run_id is not None)
    databases = {name: path for name in kept if (path := RunDir(folder / name).database).is_file()}
    runs = load_runs(databases.values())
    missing = [
        ": ".join(str(part) for part in (cell["label"], run["verdict"], run["detail"]) if part)
        for cell in data.get("cells", [])
        for run in cell["runs"]
        if run["run_id"] not in databases
    ]
    names = (str(data.get("name")), str(data.get("sweep_id")), str(data.get("source") or ""))
    facts = sweep_facts(*names, runs, missing)
    return facts, make_studies(runs, data.get("preset"))


def sweep_text(facts: SweepFacts, studies: Sequence[Study]) -> str:
    """The studies as tables for a terminal."""
    from harness.cli.printing.rows import render_rows, wrapped
    from harness_analysis.scaling.rows import limits_table, seed_table, sentences, title

    failed = f", {facts.failed} failed" if facts.failed else ""
    sweep = f"  sweep {facts.sweep_id}" if facts.sweep_id else ""
    lines = [f"{facts.name}{sweep}: {facts.runs} runs{failed}", *facts.machine]
    if facts.missing:
        missing = [f"! not in the tables: {text}" for text in facts.missing]
        lines.append(wrapped(missing).rstrip("\n"))
    for study in studies:
        lines += ["", title(study)]
        names, rows = _beside(seed_table(study), limits_table(study))
        lines.append(render_rows(names, rows).rstrip("\n"))
        said = [f"! {mark}" for mark in study.marks]
        said += [f"- {text}" for text in sentences(study)]
        lines += [wrapped(said).rstrip("\n")] if said else []
    intervals = "values are means over the good runs with their 95 % intervals"
    return "\n".join([*lines, "", intervals])


def _beside(
    seeds: tuple[list[str], list[list[str]]], limits: tuple[list[str], list[list[str]]]
) -> tuple[list[str], list[list[Any]]]:
    """Few points: a column each, which a terminal can hold. Many: a row each."""
    names = [*seeds[0], *limits[0][1:]]
    rows = [[*one, *two[1:]] for one, two in zip(seeds[1], limits[1], strict=True)]
    if len(rows) > SIDE_BY_SIDE:
        return names, rows
    turned = [[name, *(row[k] for row in rows)] for k, name in enumerate(names)]
    head, *body = [[" ".join(cell.split("\n")) for cell in line] for line in turned]
    return head, body
