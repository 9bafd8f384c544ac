"""Why units were slow, and who makes the others late: lines out of views, no judgement anew.

The view `slow_units` names the part and the rank of a unit, `stragglers` and `what_if` who comes
last and what that costs, `findings` whether it is material. What lacks its evidence is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness_analysis.explain_host import grown_operators, operators, unit_of
from harness_analysis.store import require, rows_of
from harness_schemas.units import format_ns, format_share
from harness_schemas.vocabulary import EVIDENCE_RANK

if TYPE_CHECKING:
    import duckdb

FEWEST_UNITS = 5
"""Of fewer units a median is no standard to hold one of them against."""
EXPLAINED = 0.5
"""A rank's own work explains a unit where it makes up at least this share of the excess."""
MATERIAL = 0.1
"""Units that exceed their median by less are said not to stand out."""
DID = {
    "compute": "computed {} longer",
    "fused": "spent {} more in kernels that compute and communicate",
    "comm_transfer": "moved data for {} longer (an upper bound)",
    "comm_unsplit": "communicated {} longer (wait and transfer not told apart)",
    "memcpy": "copied memory for {} longer",
    "io": "read or wrote files for {} longer",
    "idle": "left its device idle for {} longer (launches came late)",
    "unresolved": "spent {} more that the evidence cannot classify",
}
PREEMPTED = "was off the CPU or unclassified for {} longer"
"""On a host timeline that is what unresolved time mostly is (docs/definitions.md)."""


@dataclass(frozen=True)
class Explanation:
    """Rows for the tables, and what cannot be answered, with the reason.

    `hang`: what the ranks stood on when they ended, and in which calls; empty where in none.
    `host`: where nothing ran on a device, the operators that took most of the host's time.
    """

    units: list[dict[str, Any]]
    late: list[dict[str, Any]]
    unit_notes: list[str]
    late_notes: list[str]
    hang: list[dict[str, Any]] = field(default_factory=list)
    host: list[dict[str, Any]] = field(default_factory=list)


def explain(con: duckdb.DuckDBPyConnection, worst: int) -> Explanation:
    """The `worst` slowest units and the ranks that come last.

    Raises:
        EvidenceError: the database was built by an older version.
    """
    require(con, "slow_units", "what_if")
    units, late = _units(con, worst), _late(con)
    hang = rows_of(
        con, "SELECT rank, text FROM findings WHERE kind IN ('hang', 'stuck') ORDER BY position"
    )
    host = operators(con)
    if host:
        grown = grown_operators(con)
        units = [
            {**row, "why": f"{row['why']}; {grown[unit_of(row)]}"} if unit_of(row) in grown else row
            for row in units
        ]
    return Explanation(units, late, _unit_notes(con, units), _late_notes(con, late), hang, host)


# -- slow units ---------------------------------------------------------------------------------


def _units(con: duckdb.DuckDBPyConnection, worst: int) -> list[dict[str, Any]]:
    rows = rows_of(
        con,
        """
        SELECT phase, repeat, batch, microbatch, step, step_ns, median_ns, excess_ns, rank, part,
          part_excess_ns, own_excess_ns, waiting_rank, wait_excess_ns, evidence, perturbed,
          (SELECT any_value(timeline) FROM step_breakdown) AS timeline
        FROM slow_units WHERE units >= ? AND excess_ns > 0
        ORDER BY excess_ns DESC, phase, repeat, batch, microbatch, step LIMIT ?
        """,
        FEWEST_UNITS,
        worst,
    )
    return [{**row, "unit": _name(row), "why": _why(row)} for row in rows]


def _name(row: dict[str, Any]) -> str:
    """Phase, step and what else tells the unit from others."""
    parts = [row["phase"]]
    for key, word in (("step", "step"), ("batch", "batch"), ("microbatch", "micro-batch")):
        if row[key] is not None and not (key == "microbatch" and row[key] == 0):
            parts.append(f"{word} {row[key]}")
    if row["repeat"]:
        parts.append(f"repeat {row['repeat']}")
    return " ".join(parts)


def _why(row: dict[str, Any]) -> str:
    """One sentence: which rank did what longer, and who waited."""
    if row["part"] is None:
        return "cannot answer: no part of its time is known"
    own, excess = row["own_excess_ns"] or 0, row["excess_ns"]
    did = DID[row["part"]]
    if row["part"] == "unresolved" and row["timeline"] == "host":
        did = PREEMPTED
    said = f"rank {row['rank']} {did.format(format_ns(row['part_excess_ns']))}"
    if own < EXPLAINED * excess:
        said = f"no single rank explains it; the most: {said}"
    waited = row["wait_excess_ns"] or 0
    if row["waiting_rank"] not in (None, row["rank"]) and waited > EXPLAINED * own > 0:
        said += f"; rank {row['waiting_rank']} waited {format_ns(waited)} longer"
    return said + (" (units slowed by observing them)" if row["perturbed"] else "")


def _unit_notes(con: duckdb.DuckDBPyConnection, units: list[dict[str, Any]]) -> list[str]:
    counts = rows_of(
        con, "SELECT phase, max(units) AS units FROM slow_units GROUP BY phase ORDER BY 1"
    )
    if not counts:
        return [f"cannot answer: {_why_no_units(con)}"]
    notes = [
        f"{row['phase']}: too few units for a median ({row['units']}, at least {FEWEST_UNITS})"
        for row in counts
        if row["units"] < FEWEST_UNITS
    ]
    if not units and len(notes) < len(counts):
        notes.append("no unit was longer than the median of its phase")
    shares = [row["excess_ns"] / row["median_ns"] for row in units if row["median_ns"]]
    if shares and max(shares) < MATERIAL:
        notes.append(f"none stands out: at most {format_share(max(shares))} above the median")
    sources = sorted({row["evidence"] for row in units})
    return [*notes, *(f"evidence: {source}" for source in sources)]


def _why_no_units(con: duckdb.DuckDBPyConnection) -> str:
    found = con.execute("SELECT count(*), count(step) FROM unit_breakdown").fetchone()
    if found and found[1]:
        return "the marks of its steps do not say whether they prefill or decode (step_breakdown)"
    if found and found[0]:
        return (
            "the evidence has no steps (no step marks were recognised; docs/formats-kineto.md "
            "says which are)"
        )
    if con.execute("SELECT 1 FROM spans WHERE category <> 'unit' LIMIT 1").fetchone():
        return (
            "the evidence has no steps (no step marks were recognised), and shows nothing that ran "
            "on a device"
        )
    return "the evidence shows no time of any rank (no spans, kernels or steps)"


# -- late ranks ----------------------------------------------------------------------------------


def _late(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """A row a group and phase: the rank that costs the others most, by the best evidence."""
    rows = rows_of(
        con,
        """
        SELECT s.phase, s.comm_group, s.rank, s.times_last, s.collectives, s.wait_caused_ns,
          s.share_of_wait, s.main_cause, w.step_ms, w.predicted_step_ms, s.source, s.perturbed,
          EXISTS (FROM findings f WHERE f.kind = 'straggler' AND f.rank = s.rank
            AND f.phase IS NOT DISTINCT FROM s.phase) AS named
        FROM stragglers s
        LEFT JOIN what_if w USING (run_id, source, comm_group, phase, rank)
        WHERE s.times_last > 0 AND (s.phase IS NULL OR s.phase IN ('prefill', 'decode', 'mixed'))
        QUALIFY row_number() OVER (PARTITION BY s.comm_group, s.phase
          ORDER BY s.perturbed, list_position(?, s.source) NULLS LAST, s.source,
            s.wait_caused_ns DESC, s.rank) = 1
        ORDER BY named DESC, s.wait_caused_ns DESC, s.comm_group, s.phase
        """,
        list(EVIDENCE_RANK),
    )
    return [{**row, "why": _why_late(row)} for row in rows]


def _why_late(row: dict[str, Any]) -> str:
    caused = format_ns(row["wait_caused_ns"])
    said = f"last in {row['times_last']} of {row['collectives']}, the others waited {caused} for it"
    said += f"; {row['main_cause'] or 'why it is late: no part of its time stands out'}"
    if row["predicted_step_ms"] is not None:
        now, then = format_ns(row["step_ms"] * 1e6), format_ns(row["predicted_step_ms"] * 1e6)
        said += f"; without it a step takes about {then} instead of {now}"
    if not row["named"]:
        said += "; no culprit (seldom, cheap, or few units)"
    return said + (" (units slowed by observing them)" if row["perturbed"] else "")


def _late_notes(con: duckdb.DuckDBPyConnection, late: list[dict[str, Any]]) -> list[str]:
    slow = con.execute(
        "SELECT text FROM findings WHERE kind = 'stage' ORDER BY position"
    ).fetchall()
    return [text for (text,) in slow] or _late_rank_notes(con, late)


def _late_rank_notes(con: duckdb.DuckDBPyConnection, late: list[dict[str, Any]]) -> list[str]:
    sources = [f"evidence: {source}" for source in sorted({row["source"] for row in late})]
    if any(row["named"] for row in late):
        return sources
    if late:
        text = "nobody is a culprit: one is late in most units and costs its peers 2 % at least"
        return [text, *sources]
    row = con.execute(
        """
        SELECT count(*), count(wait_ns), mode(unsplit_reason), mode(wait_method)
        FROM collectives WHERE op NOT IN ('send', 'recv') AND group_size > 1
        """
    ).fetchone()
    total, split, reason, method = row or (0, 0, None, None)
    if total == 0:
        return ["cannot answer: the evidence shows no collective of several ranks"]
    if split == 0:
        why = reason or (f"wait method {method}" if method else "no reason recorded")
        return [f"cannot answer: wait and transfer cannot be told apart: {why}"]
    return ["nobody can be named: every last arrival is within the clocks' error"]
