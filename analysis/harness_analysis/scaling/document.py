"""A sweep as a Markdown page, with its pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness_analysis.scaling.facts import RunFacts
from harness_analysis.scaling.picture import draw_study
from harness_analysis.scaling.rows import limits_table, seed_table, sentences, title
from harness_analysis.scaling.study import Study
from harness_schemas.errors import HarnessError

HOW_TO_READ = (
    "Every value is a mean over the runs that succeeded, with its 95 % interval below "
    "(Student's t over repeats). Wall clock: the measured batches, warm-up left out. Resource "
    "use: share of it that a rank computes. I/O time: the whole run's file reads and writes. "
    "Communication time: exposed communication of a rank, and how much of it was waiting for a "
    "later one. Preprocessing cost: tokenising, the slowest rank. A dash: unknown."
)


@dataclass(frozen=True)
class SweepFacts:
    """What a page says about the sweep itself."""

    name: str
    sweep_id: str
    runs: int
    failed: int
    machine: tuple[str, ...] = field(default_factory=tuple)
    missing: tuple[str, ...] = field(default_factory=tuple)
    """Runs without a database, as `tp=3: refused`: no table can show them."""


def sweep_facts(
    name: str, sweep_id: str, runs: Sequence[RunFacts], missing: Sequence[str] = ()
) -> SweepFacts:
    """Name, runs and machine of a sweep; `missing`: its runs without a database."""
    machines = {
        f"{run.hosts or 'an unknown number of'} {'host' if run.hosts == 1 else 'hosts'} with "
        f"{run.cpus or 'an unknown number of'} cores, {run.device or 'device unknown'}"
        for run in runs
        if run.good
    }
    failed = sum(not run.good for run in runs) + len(missing)
    counted = tuple(
        f"{text} ({missing.count(text)} x)" if missing.count(text) > 1 else text
        for text in dict.fromkeys(missing)
    )
    total = len(runs) + len(missing)
    return SweepFacts(name, sweep_id, total, failed, tuple(sorted(machines)), counted)


def markdown(facts: SweepFacts, studies: Sequence[Study], pictures: Sequence[str | None]) -> str:
    """The page; `pictures`: the file name of each study's picture."""
    counts = f"{facts.runs} runs, {facts.failed} failed" if facts.failed else f"{facts.runs} runs"
    lines = [f"# {facts.name}", "", f"Sweep `{facts.sweep_id}`: {counts}."]
    lines += [f"Machine: {machine}." for machine in facts.machine]
    if facts.missing:
        lines += ["", f"> **Not in the tables: {'; '.join(facts.missing)}.**"]
    for study, picture in zip(studies, pictures, strict=True):
        lines += ["", f"## {title(study)}", ""]
        lines += [f"> **{mark[0].upper()}{mark[1:]}.**\n" for mark in study.marks]
        if picture is not None:
            lines += [f"![{title(study)}]({picture})", ""]
        lines += [_table(*seed_table(study)), "", "### What limits it", ""]
        lines += [_table(*limits_table(study)), ""]
        lines += [f"- {text}" for text in sentences(study)]
    return "\n".join([*lines, "", HOW_TO_READ, ""])


def write_document(facts: SweepFacts, studies: Sequence[Study], path: Path) -> list[Path]:
    """Write the page and, beside it, an SVG for each study that can be drawn.

    Raises:
        HarnessError: a file cannot be written.
    """
    texts: dict[Path, str] = {}
    names: list[str | None] = []
    for position, study in enumerate(studies):
        drawn = draw_study(study)
        suffix = f"-{position + 1}" if len(studies) > 1 else ""
        name = f"{path.stem}{suffix}.svg"
        names.append(name if drawn is not None else None)
        if drawn is not None:
            texts[path.with_name(name)] = drawn
    texts[path] = markdown(facts, studies, names)
    for file, text in texts.items():
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise HarnessError(f"cannot write {file}: {error.strerror or error}") from None
    return list(texts)


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        shown = (str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells)
        return f"| {' | '.join(shown)} |"

    return "\n".join([line(names), line(["---:"] * len(names)), *map(line, rows)])
