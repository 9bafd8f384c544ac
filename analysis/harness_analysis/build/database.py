"""Evidence in, database out: the order in which a run's file is made.

    rows, their times aligned  ->  match and split communication  ->  divide windows  ->
    name causes  ->  judge the end  ->  join what is one call  ->  findings

Repeatable: the same rows give the same file content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from harness_analysis.build.apart import unmatch_apart
from harness_analysis.build.breakdown import breakdown_tables
from harness_analysis.build.chunks import (
    call_chunks,
    group_chunks,
    judged_chunks,
    rank_chunks,
    release,
)
from harness_analysis.build.lateness import add_device_gaps
from harness_analysis.build.parquet import ParquetSet
from harness_analysis.build.recordings import align_ordinals
from harness_analysis.build.same_calls import same_calls
from harness_analysis.build.slowed import mark_slowed
from harness_analysis.can_answer import can_answer_rows
from harness_analysis.clocks.ends import check_clocks
from harness_analysis.clocks.messages import tie_clocks
from harness_analysis.findings.find import find
from harness_analysis.overhead.measure import measure_overhead
from harness_analysis.store.memory import shortages_told
from harness_analysis.store.writer import Writer
from harness_analysis.verdict.model import VerdictEvidence
from harness_analysis.verdict.rules import NOTHING_MORE
from harness_analysis.verdict.tables import job_verdicts, settle
from harness_schemas.spi import Batch
from harness_schemas.vocabulary import SYNCHRONISING_OPS

EXACT_SOURCES = ("torch_profiler", "nsys", "graph_events", "nccl_inspector")
"""Evidence whose device intervals are those of the kernels themselves."""
MATCHING = (
    *("timed_parts", "untimed_parts", "collective_parts"),
    *("joined", "methods", "uneven_ends", "split_or_why"),
    *("split_here", "replayed", "sides", "matched_here", "listed_here"),
)
"""Temporary relations of sql/build/match.sql and sql/build/listed.sql."""


def build_database(
    path: Path,
    run_id: str,
    run_row: dict[str, Any],
    batches: Iterable[Batch],
    ended: VerdictEvidence | None = None,
    tell: Callable[[str], None] = lambda _: None,
    stored: ParquetSet | None = None,
) -> None:
    """Write the database of one run; `path` appears whole or not at all.

    `run_row`: columns of the table `runs`. `ended`: what is known of the run's end besides the
    batches. `tell` hears what is being done. `stored`: more rows, in Parquet files.

    Raises HarnessError where `path` cannot be written, or memory or space does not suffice.
    """
    with shortages_told(path), Writer(path, run_id) as writer:
        writer.add_rows("runs", [{"run_id": run_id, **run_row}])
        with writer.transaction():
            for batch in batches:
                writer.add(batch.table, batch.data)
        tell("match communication over ranks")
        in_files = stored is not None and stored.has("spans")
        _align(writer, stored, in_files)
        _match(writer)
        tell("divide every step, and find out who was late")
        _divide(writer, in_files)
        _blame(writer)
        tell("findings")
        writer.add_rows("overhead", measure_overhead(writer.con))
        _judge(writer, ended or VerdictEvidence(exit_code=run_row.get("exit_code")), run_row)
        _join_evidence(writer)
        writer.add_rows("findings", find(writer.con))
        writer.add_rows("can_answer", can_answer_rows(writer.con))
        writer.finish()


def _align(writer: Writer, stored: ParquetSet | None, in_files: bool) -> None:
    """All rows on one axis, and calls that know their group, ordinal and floor."""
    writer.refresh_clocks()
    writer.add_rows("clock_offsets", writer.axis.rows())
    if stored is not None:
        writer.add_stored(stored)
    _name_list(writer, "evidence_exact", EXACT_SOURCES)
    _name_list(writer, "synchronising", (*sorted(SYNCHRONISING_OPS), "all_to_all"))
    writer.script("ranks")
    writer.script("tokens")
    mark_slowed(writer.con)
    if writer.completes_calls:
        writer.script("named")
        writer.script("identify")
    writer.script("floors")
    align_ordinals(writer.con)
    tie_clocks(writer.con)
    check_clocks(writer.con, in_files)
    unmatch_apart(writer.con)


def _match(writer: Writer) -> None:
    """What ranks did together, with its wait and its transfer told apart."""
    writer.script("untimed")
    writer.script("replays")
    for _ in group_chunks(writer.con, "timed_parts"):
        writer.script("match")
    for _ in call_chunks(writer.con, "untimed_parts"):
        writer.script("listed")
    release(writer.con, *MATCHING)


def _divide(writer: Writer, in_files: bool) -> None:
    """Every unit's window, rank by rank."""
    writer.script("gaps")
    for _ in rank_chunks(writer.con, in_files):
        writer.script("rank_gaps")
        add_device_gaps(writer.con)
        writer.add_all("unit_breakdown", breakdown_tables(writer.con))
    release(writer.con, "spans_here", "collectives_here", "totals")


def _blame(writer: Writer) -> None:
    """Who was late, and why; and which units not all ranks show."""
    writer.script("judged")
    for _ in judged_chunks(writer.con):
        writer.script("late")
    release(writer.con, "gaps", "late_gaps", "passed_on")
    writer.script("stragglers")
    writer.script("trim")


def _judge(writer: Writer, ended: VerdictEvidence, run_row: dict[str, Any]) -> None:
    """Verdicts of the run and of every job, now that all evidence is in."""
    writer.add_rows("job_verdicts", job_verdicts(writer.con))
    found = settle(writer.con, ended, run_row.get("verdict"))
    if found is None:
        return
    # Of a killed script only the accounting knows; its ranks say that they were ended.
    better = NOTHING_MORE in (run_row.get("verdict_detail") or "")
    if better or found.name != run_row.get("verdict") or found.rule == "slurm-script-killed":
        writer.con.execute(
            "UPDATE run.runs SET verdict = ?, verdict_detail = ?", [found.name, found.detail()]
        )


def _join_evidence(writer: Writer) -> None:
    """Complete each call's best row by the other evidence of it, and put the others aside."""
    writer.script("strangers")
    writer.script("choices")
    if len(writer.con.execute("SELECT DISTINCT source FROM run.collectives").fetchall()) < 2:
        return  # nothing that could complete it
    writer.script("calls")
    found = same_calls(writer.con)  # noqa: F841 - DuckDB finds it by its name
    writer.con.execute("CREATE TEMP TABLE same_call AS FROM found")
    writer.script("joined")


def _name_list(writer: Writer, name: str, values: Iterable[str]) -> None:
    """A temporary table of one column, for use in `IN (FROM name)`."""
    rows = ", ".join(f"('{value}')" for value in values)
    writer.con.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM (VALUES {rows}) AS v(value)")


def safe_run_id(text: str) -> str:
    """A run id from a file or folder name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "run"
