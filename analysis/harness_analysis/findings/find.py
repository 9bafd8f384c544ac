"""What a run shows, in sentences, most important first.

A culprit is named only when it is late in most units (sign test) and when that costs a material
share of the phase: a rank that happens to be last in 55 % of collectives is noise, and a tool
that names somebody in every run is not believed when it matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness_analysis.build.other_jobs import other_jobs
from harness_analysis.build.slowed import still_counted
from harness_analysis.findings.finding import MIN_UNITS, Finding, percent, steady
from harness_analysis.findings.launches import launch_findings
from harness_analysis.findings.pipeline import pipeline_findings
from harness_analysis.hang.findings import hang_findings
from harness_schemas.units import format_ns
from harness_schemas.vocabulary import evidence_order

if TYPE_CHECKING:
    import duckdb


def find(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Rows for `findings`. Reads the views; changes nothing."""
    found = [*hang_findings(con), *_culprits(con), *pipeline_findings(con)]
    found += [*launch_findings(con), *_unresolved(con)]
    found += [*_slowed(con), *_trimmed(con), *_cut(con), *other_jobs(con)]
    order = {"problem": 0, "notice": 1, "info": 2}
    # What ended the run comes before what made it slow.
    found.sort(key=lambda f: (order[f.severity], f.kind != "hang", -(f.share or 0)))
    return [{"position": k, **asdict(finding)} for k, finding in enumerate(found)]


# -- who makes the others wait ---------------------------------------------------------------


@dataclass(frozen=True)
class Lateness:
    """How much each unit's peers waited for one rank, beyond what they waited for any other."""

    source: str
    group: str
    phase: str
    perturbed: bool
    """Only units that a collector slowed show this phase."""
    rank: int
    net_ns: np.ndarray
    units: int
    typical_ns: float
    """Median over units with a collective of the group, also those in which nobody was late: one
    unit in which a profiler opened late must not speak for all."""


def _culprits(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    windows = _windows(con)
    found = []
    for by_evidence in _latenesses(con):
        for latenesses in by_evidence:
            named = []
            for lateness in latenesses:
                of_source = windows.get((lateness.source, lateness.phase, lateness.perturbed))
                window = of_source or windows.get((None, lateness.phase, False))
                if window is None:
                    continue
                share = lateness.typical_ns / window
                if steady(lateness.net_ns, share):
                    named.append(_culprit_finding(con, lateness, share))
            if named:
                found += named
                break
    return found


def _windows(con: duckdb.DuckDBPyConnection) -> dict[tuple[str | None, str, bool], float]:
    """Median unit by (evidence, phase, perturbed); evidence None: of headline units."""
    rows = con.execute(
        """
        SELECT evidence, phase, perturbed_by IS NOT NULL AS perturbed,
          median(window_ns)
        FROM step_breakdown_all WHERE NOT coalesce(warmup, false) GROUP BY ALL
        UNION ALL
        SELECT NULL, phase, false, median(window_ns) FROM step_breakdown
        WHERE NOT coalesce(warmup, false) AND perturbed_by IS NULL GROUP BY phase
        """
    ).fetchall()
    return {(source, phase, perturbed): float(ns) for source, phase, perturbed, ns in rows if ns}


def _latenesses(con: duckdb.DuckDBPyConnection) -> Iterator[list[list[Lateness]]]:
    """For each group and phase every rank by each evidence that judges it, the best first.

    The next is asked where the one before names nobody: kernels of a short window may be too few
    units to be sure where stamps of many are not. What only perturbed units say is never asked
    where others judge.
    """
    rows = con.execute(
        """
        SELECT w.source, w.comm_group, w.phase, s.perturbed,
          hash(batch, microbatch, repeat, step) AS unit, last_arriver,
          sum(sum_wait_ns / (group_size - 1)) FILTER (last_arriver IS NOT NULL) AS caused
        FROM collective_waits w
        JOIN (SELECT DISTINCT source, comm_group, phase, perturbed FROM stragglers) s
          ON s.source = w.source AND s.comm_group = w.comm_group AND s.phase = w.phase
        WHERE NOT coalesce(warmup, false) AND (perturbed_by IS NOT NULL) = s.perturbed
        GROUP BY ALL ORDER BY ALL
        """
    ).fetchall()
    judged: dict[tuple[str, str], dict[tuple[bool, str], dict[int, dict[int, float]]]] = {}
    for source, group, phase, perturbed, unit, rank, caused in rows:
        evidence = judged.setdefault((group, phase), {}).setdefault((perturbed, source), {})
        late = evidence.setdefault(unit, {})
        if rank is not None:
            late[rank] = float(caused)
    for (group, phase), by_evidence in judged.items():
        ordered = sorted(by_evidence, key=_evidence_order)
        best = [key for key in ordered if key[0] == ordered[0][0]]
        yield [
            [
                _lateness(source, group, phase, perturbed, rank, by_evidence[perturbed, source])
                for rank in sorted(
                    {r for unit in by_evidence[perturbed, source].values() for r in unit}
                )
            ]
            for perturbed, source in best
        ]


def _lateness(
    source: str,
    group: str,
    phase: str,
    perturbed: bool,
    rank: int,
    units: dict[int, dict[int, float]],
) -> Lateness:
    net = np.array([_net(ranks, rank) for ranks in units.values() if ranks])
    typical = float(np.median([ranks.get(rank, 0.0) for ranks in units.values()]))
    return Lateness(source, group, phase, perturbed, rank, net, len(units), typical)


def _evidence_order(evidence: tuple[bool, str]) -> tuple[bool, int, str]:
    """Headline units before perturbed ones, then the better evidence."""
    perturbed, source = evidence
    return perturbed, *evidence_order(source)


def _net(ranks: dict[int, float], rank: int) -> float:
    others = [value for other, value in ranks.items() if other != rank]
    return ranks.get(rank, 0.0) - max(others, default=0.0)


def _culprit_finding(con: duckdb.DuckDBPyConnection, lateness: Lateness, share: float) -> Finding:
    key = [lateness.source, lateness.group, lateness.phase, lateness.rank]
    row = con.execute(
        """
        SELECT times_last, collectives, main_cause FROM stragglers
        WHERE source = ? AND comm_group = ? AND phase = ? AND rank = ?
        """,
        key,
    ).fetchone()
    times, total, cause = row or (0, 0, None)
    text = (
        f"rank {lateness.rank} makes group {lateness.group} wait: last in {times} of {total} "
        f"collectives of {lateness.phase}, {format_ns(lateness.typical_ns)} a unit (median) for "
        f"each peer, {percent(share)} of {lateness.phase}"
    )
    if cause:
        text += f"; {cause}"
    text += _prediction(con, key)
    if lateness.perturbed:
        text += f" (units slowed by observing them, {lateness.source}: no others show it)"
    return Finding(
        "problem",
        "straggler",
        text,
        rank=lateness.rank,
        phase=lateness.phase,
        value_ns=round(lateness.units * lateness.typical_ns),
        share=share,
        evidence=lateness.source,
    )


def _prediction(con: duckdb.DuckDBPyConnection, key: list[Any]) -> str:
    """What a step would take without the lateness of `key` = source, group, phase, rank."""
    row = con.execute(
        """
        SELECT step_ms * 1e6, predicted_step_ms * 1e6 FROM what_if
        WHERE source = ? AND comm_group = ? AND phase = ? AND rank = ?
        """,
        key,
    ).fetchone()
    if row is None or None in row:
        return ""
    step = {"decode": "a decode step", "prefill": "a prefill"}.get(key[2], "a step")
    return (
        f"; without it {step} would take about {format_ns(row[1])} instead of {format_ns(row[0])}"
    )


# -- what the numbers do not say ----------------------------------------------------------------


def _unresolved(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    row = con.execute(
        """
        SELECT sum(unresolved_ns) / sum(window_ns), sum(unresolved_ns), any_value(timeline)
        FROM rank_breakdown WHERE phase = 'decode'
        """
    ).fetchone()
    if row is None or row[0] is None or row[0] < 0.05:
        return []
    sampled = _sampled(con) if row[2] == "device" else None
    if sampled is not None:
        return [sampled]
    why = (
        "the ranks were neither on a CPU nor communicating (more ranks than free cores?)"
        if row[2] == "host"
        else "no evidence covers it; record kernels with `torch_profiler`"
    )
    text = f"{percent(row[0])} of decode is unresolved: {why}"
    return [Finding("info", "unresolved", text, phase="decode", value_ns=int(row[1]), share=row[0])]


def _sampled(con: duckdb.DuckDBPyConnection) -> Finding | None:
    """Decode as the steps show it that were slowed by observing them, where no others do."""
    row = con.execute(
        """
        SELECT evidence, count(DISTINCT (repeat, batch, microbatch, step)),
          sum(compute_ns) / sum(window_ns), sum(comm_transfer_ns) / sum(window_ns),
          sum(comm_wait_ns) / sum(window_ns), coalesce(sum(idle_ns) / sum(window_ns), 0)
        FROM step_breakdown
        WHERE phase = 'decode' AND perturbed_by IS NOT NULL AND compute_ns IS NOT NULL
          AND NOT coalesce(warmup, false) AND timeline = 'device'
        GROUP BY evidence ORDER BY count(*) DESC LIMIT 1
        """
    ).fetchone()
    if row is None:
        return None
    evidence, steps, *shares = row
    names = ("computing", "transfer", "waiting", "idle")
    parts = ", ".join(f"{percent(s)} {n}" for s, n in zip(shares, names, strict=True) if s)
    text = f"decode in {steps} sampled steps (slowed by {evidence}, which saw them): {parts}"
    return Finding("info", "sampled", text, phase="decode", evidence=evidence)


def _trimmed(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    """Recordings that began or ended at different moments: what is left out, by rank."""
    rows = con.execute(
        """
        SELECT phase, rank, count(*), count(*) FILTER (NOT on_all_ranks), min(start_ns)
        FROM step_breakdown WHERE on_all_ranks IS NOT NULL AND perturbed_by IS NULL
          AND NOT coalesce(warmup, false)
        GROUP BY phase, rank ORDER BY phase, rank
        """
    ).fetchall()
    found = []
    for phase in dict.fromkeys(row[0] for row in rows):
        ranks = [row[1:] for row in rows if row[0] == phase]
        left = [f"{out} of rank {rank}" for rank, _, out, _ in ranks if out]
        total, out = sum(row[1] for row in ranks), sum(row[2] for row in ranks)
        if not out or len(ranks) == 1:  # of one rank only what was cut is left out: `_cut`
            continue
        began = sorted((start, rank) for rank, _, _, start in ranks)
        late = began[-1][0] - began[0][0]
        text = (
            f"the ranks' recordings do not cover the same units: {out} of {total} of {phase} are "
            f"left out ({', '.join(left[:8])}{', ...' if len(left) > 8 else ''}); "
            f"rank {began[-1][1]} begins {format_ns(late)} after rank {began[0][1]}"
        )
        kept = {rank: units - out for rank, units, out, _ in ranks}
        fewest = min(kept, key=lambda rank: (kept[rank], rank))
        if kept[fewest] < MIN_UNITS <= max(units for _, units, _, _ in ranks):
            text += (
                f"; in groups of rank {fewest} a late rank is not named: {kept[fewest]} units are "
                f"left, and it takes {MIN_UNITS}"
            )
        found.append(Finding("notice", "trimmed", text, rank=began[-1][1], phase=phase))
    return found


def _slowed(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    slowed = still_counted(con)
    if slowed is None:
        return []
    text = (
        f"all {slowed.requests} measured requests had steps slowed by {slowed.by}: "
        f"{percent(slowed.share)} of their time; tokens/s, TPOT and E2E include that (more batches "
        f"or repeats leave some clean)"
    )
    return [Finding("notice", "slowed", text, share=slowed.share, evidence=slowed.by)]


def _cut(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    rows = con.execute("SELECT rank FROM ranks WHERE NOT complete ORDER BY rank").fetchall()
    if not rows:
        return []
    ranks = ", ".join(str(rank) for (rank,) in rows)
    text = (
        f"the evidence of rank {ranks} is cut: its recording was not closed, or its file lost its "
        f"end; what came later is unknown"
    )
    return [Finding("notice", "cut", text, rank=rows[0][0])]
