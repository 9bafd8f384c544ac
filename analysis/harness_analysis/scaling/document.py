"""A sweep as a Markdown page, with its pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness_analysis.scaling.facts import RunFacts
from harness_analysis.scaling.model import Study
from harness_analysis.scaling.picture import draw_study
from harness_analysis.scaling.rows import limits_table, seed_table, sentences, title
from harness_schemas.whole_file import whole_file

HOW_TO_READ = (
    "Every value is a mean over the runs that succeeded, with its 95 % interval in brackets "
    "(Student's t over repeats). Wall clock: the measured batches, warm-up left out. Resource "
    "use: share of it that a rank computes. I/O time: the whole run's file reads and writes. "
    "Communication time: exposed communication of a rank, and how much of it was waiting for a "
    "later one. Preprocessing cost: tokenising, the slowest rank. A dash: unknown."
)


COMMON = (
    *("runner", "dtype", "model.path", "model.synthetic", "prompts.variant", "prompts.limit"),
    *("parallel.tp", "parallel.pp", "generation.batch_size", "generation.microbatches"),
    *("generation.new_tokens", "generation.mode", "launcher.threads"),
)
"""Keys that a reader wants to know where all cells share them."""
VERSIONS = ("harness", "torch", "deepspeed", "transformers")


@dataclass(frozen=True)
class SweepFacts:
    """What a page says about the sweep itself."""

    name: str
    sweep_id: str
    source: str
    runs: int
    failed: int
    machine: tuple[str, ...] = field(default_factory=tuple)
    common: tuple[str, ...] = field(default_factory=tuple)
    """Settings of all cells, as `dtype = float32`."""
    missing: tuple[str, ...] = field(default_factory=tuple)
    """Runs without a database, as `tp=3: refused`: no table can show them."""


def sweep_facts(
    name: str,
    sweep_id: str,
    source: str,
    runs: Sequence[RunFacts],
    missing: Sequence[str] = (),
) -> SweepFacts:
    """Name, runs and machine of a sweep; `missing`: its runs without a database."""
    counted = tuple(
        f"{text} ({missing.count(text)} x)" if missing.count(text) > 1 else text
        for text in dict.fromkeys(missing)
    )
    return SweepFacts(
        name,
        sweep_id,
        source,
        runs=len(runs) + len(missing),
        failed=sum(not run.good for run in runs) + len(missing),
        machine=tuple(sorted({_machine(run) for run in runs if run.good} - {""})),
        common=_common(runs),
        missing=counted,
    )


def _machine(run: RunFacts) -> str:
    """What is recorded of where a run ran; empty: nothing."""
    if not (run.hosts or run.cpus or run.device or run.versions):
        return ""
    hosts = f"{run.hosts or 'unknown'} {'host' if run.hosts == 1 else 'hosts'}"
    versions = ", ".join(f"{key} {run.versions[key]}" for key in VERSIONS if key in run.versions)
    where = f"{hosts} with {run.cpus or 'unknown'} cores, {run.device or 'device unknown'}"
    return f"{where}; {versions}" if versions else where


def _common(runs: Sequence[RunFacts]) -> tuple[str, ...]:
    found = []
    for key in COMMON:
        values = {str(run.settings.get(key)) for run in runs}
        if len(values) == 1 and values != {"None"}:
            found.append(f"{key} = {values.pop()}")
    return tuple(found)


def markdown(facts: SweepFacts, studies: Sequence[Study], pictures: Sequence[str | None]) -> str:
    """The page; `pictures`: the file name of each study's picture."""
    lines = [f"# {facts.name}", "", *_about(facts)]
    for study, picture in zip(studies, pictures, strict=True):
        lines += ["", f"## {title(study)}", ""]
        lines += [f"> **{mark[0].upper()}{mark[1:]}.**\n" for mark in study.marks]
        if picture is not None:
            lines += [f"![{title(study)}]({picture})", ""]
        lines += [_table(*seed_table(study)), "", "### What limits it", ""]
        lines += [_table(*limits_table(study)), ""]
        lines += [f"- {text}" for text in sentences(study)]
    return "\n".join([*lines, "", HOW_TO_READ, ""])


def _about(facts: SweepFacts) -> list[str]:
    made = f"Made by `harness sweep {facts.source}`: " if facts.source else ""
    failed = f", {facts.failed} of them failed" if facts.failed else ""
    lines = [f"{made}{facts.runs} runs{failed}."]
    lines += [f"Machine: {machine}." for machine in facts.machine]
    if facts.common:
        lines.append(f"In all cells: {', '.join(f'`{text}`' for text in facts.common)}.")
    if facts.missing:
        lines += ["", f"> **Not in the tables: {'; '.join(facts.missing)}.**"]
    return lines


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
        with whole_file(file, "choose another place with --output") as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        shown = (str(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells)
        return f"| {' | '.join(shown)} |"

    return "\n".join([line(names), line(["---:"] * len(names)), *map(line, rows)])
