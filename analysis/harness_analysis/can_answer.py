"""What the evidence at hand can answer, relation by relation, and why not (table can_answer).

Every source of evidence is optional, so a NULL may mean that nobody looked. `NEEDS` says which
columns rest on which collectors; a group of columns can be answered where at least one row has
one of them. The reason is that of the collectors themselves (table collection).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

KERNELS = ("torch_profiler", "kineto", "nsys")
TIMERS = ("app_timers",)
NCCL = ("nccl_log", "nccl_inspector")


_WHOLE = re.compile(r"\s*(?:from\b(?!.*\bselect\b)|select\s+(?:distinct\s+)?(?:\w+\.)?\*)", re.S)
"""A query that shows all columns of what it reads; not one that only passes them on."""
_READ = re.compile(r"\b(?:from|join|describe|summarize)\s+\"?(\w+)")
"""Relations that a query reads; a column of the same name is none."""


@dataclass(frozen=True)
class Need:
    """Columns of a relation (none: its rows) and the collectors that can give them."""

    relation: str
    columns: tuple[str, ...]
    collectors: tuple[str, ...]


PARTS_OF_KERNELS = ("compute_ns", "idle_ns", "fused_ns")
SPLIT = ("comm_transfer_ns", "comm_wait_ns")
ANY_TIMES = (*TIMERS, *KERNELS)
ANY_CALLS = (*ANY_TIMES, *NCCL, "flight_recorder")

NEEDS: tuple[Need, ...] = (
    *(
        need
        for name in ("step_breakdown", "step_breakdown_all", "rank_breakdown", "rank_estimate")
        for need in (
            Need(name, (), ANY_TIMES),
            Need(name, PARTS_OF_KERNELS, ANY_TIMES),
            Need(name, SPLIT, ANY_TIMES),
        )
    ),
    Need("slow_units", (), ANY_TIMES),
    Need("coverage", (), ANY_TIMES),
    Need("collectives", (), ANY_CALLS),
    Need("collectives", ("transfer_ns", "wait_ns", "wait_method"), ANY_TIMES),
    Need("collectives", ("algo", "proto", "transport"), NCCL),
    Need("collectives", ("nccl_seq",), ("nccl_log",)),
    Need("collectives", ("floor_ns",), ("floors",)),
    Need("collective_waits", (), ANY_CALLS),
    Need("collective_waits", ("transfer_ns", "sum_wait_ns", "max_wait_ns"), ANY_TIMES),
    Need("collective_waits", ("floor_ns", "excess_ns"), ("floors",)),
    Need("waits", (), ANY_CALLS),
    Need("waits", ("wait_ns", "waited_for"), ANY_TIMES),
    Need("stragglers", (), ANY_TIMES),
    Need("stragglers", ("late_ns", "main_cause", "late_compute_ns", "late_gap_ns"), ANY_TIMES),
    Need("what_if", (), ANY_TIMES),
    Need("pipeline_bubbles", (), TIMERS),
    Need("utilisation", (), TIMERS),
    Need("memory_against_plan", ("planned_bytes", "planned_weights_bytes", "ratio"), TIMERS),
    Need("memory_against_plan", ("measured_bytes", "measured_by"), (*TIMERS, "psutil")),
    Need("latency", (), TIMERS),
    Need("requests", (), TIMERS),
    Need("steps", (), TIMERS),
    Need("step_tokens", (), TIMERS),
    Need("run_summary", ("tok_per_s", "output_tokens"), TIMERS),
    Need("run_summary", ("step_ms", "cadence_ms", "wall_s"), ANY_TIMES),
    Need("overhead", (), TIMERS),
    Need("samples", (), ("nvml", "psutil")),
    Need("nccl_comms", (), NCCL),
    Need("nccl_tuning", (), ("nccl_log",)),
    Need("perf_counters", (), ("perf",)),
    Need("slurm_steps", (), ("sacct",)),
    Need("floors", (), ("floors",)),
    Need("topology", (), ("topology",)),
)

PROFILER = ("torch_profiler", "kineto")
"""The same evidence: by our own windows, and by anybody's traces."""
OF_STEPS = frozenset(
    {"step_breakdown", "step_breakdown_all", "rank_estimate", "slow_units", "coverage"}
    | {"run_summary", "pipeline_bubbles", "utilisation"}
)
"""What was recorded, and has none of these, has no steps that were recognised."""
OF_CALLS = frozenset({"collectives", "collective_waits", "waits", "stragglers", "what_if"})
"""Empty where nothing was communicated, which is an answer."""
OF_PIPELINES = frozenset({"pipeline_bubbles"})
"""Empty where all ranks are one stage, which is an answer."""


def can_answer_rows(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Rows for the table `can_answer`. Reads tables and views; a look at each need's columns."""
    states = con.execute(
        "SELECT collector, state, host, reason FROM collection ORDER BY ALL"
    ).fetchall()
    silent = con.execute(
        """
        SELECT EXISTS (FROM step_breakdown_all WHERE compute_ns IS NOT NULL)
          AND NOT EXISTS (FROM step_breakdown_all WHERE comm_unsplit_ns IS NULL)
          AND NOT EXISTS (FROM collectives)
        """
    ).fetchone() == (True,)
    one_stage = con.execute("SELECT bool_and(pp = 1) FROM runs").fetchone() == (True,)
    seen = _seen(con)
    why = _why_not(con)
    some = {need.relation for need in NEEDS if not need.columns and seen[need]}
    rows = []
    for need in NEEDS:
        found = seen[need] or (silent and need.relation in OF_CALLS)
        found = found or (one_stage and need.relation in OF_PIPELINES)
        rows.append(
            {
                "relation": need.relation,
                "of_columns": ", ".join(need.columns) or None,
                "needs": ", ".join(need.collectors),
                "answerable": found,
                "reason": None if found else _reason(need, states, need.relation in some, why),
            }
        )
    return rows


def _seen(con: duckdb.DuckDBPyConnection) -> dict[Need, bool]:
    """Whether a row has what each need names. One query a relation: to plan a view takes longer
    than to look through it."""
    found: dict[Need, bool] = {}
    for relation, group in groupby(NEEDS, key=lambda need: need.relation):
        needs = list(group)
        known = [
            "(" + (" OR ".join(f"{name} IS NOT NULL" for name in need.columns) or "true") + ")"
            for need in needs
        ]
        sql = f"SELECT {', '.join(f'bool_or({shown})' for shown in known)} FROM {relation}"
        values = con.execute(sql).fetchone() or ()
        found.update(zip(needs, (value is True for value in values), strict=True))
    return found


def _why_not(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Why what was recorded does not tell this: by relation or group of columns."""
    (unsplit, on_host) = con.execute(
        """
        SELECT (SELECT mode(unsplit_reason) FROM collectives WHERE wait_ns IS NULL),
          (SELECT bool_and(timeline = 'host') FROM unit_breakdown)
        """
    ).fetchall()[0]
    return {
        **({"split": unsplit} if unsplit else {}),
        **({"device": "it shows nothing that ran on a device"} if on_host else {}),
    }


def _tells(need: Need, collector: str, some: bool, why: Mapping[str, str]) -> str:
    """What is to be said of a collector that recorded, and yet does not answer."""
    if need.relation in OF_STEPS and not (need.columns and some):
        return "and has no step marks"
    told = ""
    if collector in (*KERNELS, *TIMERS):
        told = why.get("device", "") if collector in KERNELS else ""
        if need.relation in OF_CALLS or need.columns == SPLIT:
            told = why.get("split", told)
    return f"but not this ({_short(told)})" if told else "but not this"


def _reason(
    need: Need,
    states: Iterable[tuple[str, str, str | None, str | None]],
    some: bool,
    why: Mapping[str, str],
) -> str:
    """`nsys skipped on node2 (not found); torch_profiler not recorded`.

    `some`: the relation has rows. `why`: as by `_why_not`.
    """
    said: dict[str, list[str]] = {}
    for collector, state, host, reason in states:
        where = f" on {host}" if host else ""
        shown = f" ({_short(reason)})" if reason else ""
        said.setdefault(collector, [])
        text = f"{collector} {state}{where}{shown}"
        if state == "ok":
            text = f"{collector} recorded{where}, {_tells(need, collector, some, why)}"
        if text not in said[collector]:
            said[collector].append(text)
    known = [text for name in need.collectors for text in said.get(name, ())[:3]]
    same = set(PROFILER) if said.keys() & set(PROFILER) else set()
    absent = [name for name in need.collectors if name not in said and name not in same]
    if absent:
        known.append(f"{' and '.join(absent)} not recorded")
    return "; ".join(known)


def _short(reason: str) -> str:
    return reason if len(reason) <= 160 else reason[:157] + "..."


def not_answered(con: duckdb.DuckDBPyConnection, sql: str) -> list[str]:
    """A line for each group of columns that a query names and that nothing was seen of.

    `con` as by harness_analysis.query.open_runs: with several runs, a group counts where no run
    answers it, with the runs' reasons. A database without the table `can_answer` says nothing.
    """
    import duckdb

    try:
        rows = con.execute(
            """
            SELECT relation, of_columns, bool_or(answerable), string_agg(DISTINCT reason, ' | ')
            FROM can_answer GROUP BY ALL ORDER BY ALL
            """
        ).fetchall()
    except duckdb.Error:
        return []
    plain = re.sub(r"'[^']*'", "", sql.lower())
    words, read = set(re.findall(r"\w+", plain)), set(_READ.findall(plain))
    everything = _WHOLE.match(plain) is not None
    lines = []
    silent = {
        relation for relation, columns, answered, _ in rows if columns is None and not answered
    }
    for relation, columns, answered, reason in rows:
        if answered or relation not in read or (columns and relation in silent):
            continue
        named = [name for name in (columns or "").split(", ") if name in words]
        if columns is None or named or everything:
            what = relation if columns is None else f"{relation} ({', '.join(named) or columns})"
            lines.append(f"cannot answer: {what}: {reason}")
    return lines
