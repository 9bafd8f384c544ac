"""What a comparison needs of one run's database, read once: no spans, only units and requests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness_analysis.compare.seen import seen_in
from harness_analysis.estimates import parts_view
from harness_analysis.store import open_database, rows_of
from harness_schemas.errors import EvidenceError
from harness_schemas.vocabulary import PARTS, evidence_order

if TYPE_CHECKING:
    import duckdb

Floats = NDArray[np.float64]
Key = tuple[int, ...]
"""(repeat, batch, step, microbatch) of a unit, or (repeat, batch) of a batch."""

HEADLINE = """phase IN ('prefill', 'decode', 'mixed') AND NOT coalesce(warmup, false)
  AND perturbed_by IS NULL"""
SHORTEST_ENERGY_S = 1.0


@dataclass(frozen=True)
class PhaseUnits:
    """The headline units of one phase, in the order of time; NaN where a rank lacks one.

    window, start: [unit, rank] in ns, start from the run's first unit on. parts: [unit, rank,
    part] in ns in the order of `PARTS`.
    """

    keys: tuple[Key, ...]
    ranks: tuple[int, ...]
    start: Floats
    window: Floats
    parts: Floats
    basis: str
    """Timeline and evidence, as in `host timeline, app_timers`."""


@dataclass(frozen=True)
class Requests:
    """Headline requests: the batch of each, and its latencies in ns (NaN: unknown)."""

    keys: tuple[Key, ...]
    latencies: Mapping[str, Floats]
    tokens: Floats


@dataclass(frozen=True)
class RunData:
    """One run as a comparison sees it."""

    name: str
    path: Path
    row: Mapping[str, Any]
    """Its row of `runs`."""
    spec: Mapping[str, Any] | None
    provenance: Mapping[str, Any] | None
    ranks: tuple[Mapping[str, Any], ...]
    phases: Mapping[str, PhaseUnits]
    requests: Requests
    gaps: tuple[tuple[Key, ...], Floats]
    """Gaps between tokens: the step of each, and ns."""
    single: Mapping[str, float]
    """Metrics of which a run has one value."""
    why_not: Mapping[str, str]
    """Of metrics that the run lacks, the reason where it is known."""
    blamed_ns: Mapping[int, float]
    """Waiting of others that each rank caused in decode units, as last arriver."""
    estimated: Mapping[str, PhaseUnits] = field(default_factory=dict)
    """Of phases whose parts only sampled units tell (view `rank_estimate`): those units, scaled to
    the length of the others."""
    seen: Mapping[str, str] = field(default_factory=dict)
    """What the evidence shows of the configuration, where no specification was recorded."""


def load_run(path: Path) -> RunData:
    """Read one database.

    Raises:
        EvidenceError: not a run's database, or it holds several runs.
    """
    with open_database(path) as con:
        rows = rows_of(con, "SELECT * FROM runs ORDER BY run_id")
        if len(rows) != 1:
            raise EvidenceError(f"{path} holds {len(rows)} runs, a comparison needs one a file")
        phases = _phases(con)
        single, why_not = _singles(con, phases)
        begun, ended = (rows[0][name] for name in ("started_ns", "ended_ns"))
        if begun is not None and ended is not None:
            single["whole_run"] = (ended - begun) / 1e9
        return RunData(
            name=str(rows[0]["run_id"]),
            path=path,
            row=rows[0],
            spec=_object(rows[0]["spec"]),
            provenance=_object(rows[0]["provenance"]),
            ranks=tuple(rows_of(con, "SELECT * FROM ranks ORDER BY rank")),
            phases=phases,
            requests=_requests(con),
            gaps=_gaps(con),
            single=single,
            why_not=why_not,
            blamed_ns=_blamed(con),
            estimated=_estimated(con),
            seen=seen_in(partial(rows_of, con)),
        )


def _object(text: str | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


# -- units -----------------------------------------------------------------------------------

_UNITS = f"""
WITH kept AS (
  SELECT rank, phase, repeat, batch, step, microbatch, timeline, evidence, start_ns, window_ns,
    {", ".join(PARTS)}
  FROM step_breakdown WHERE {HEADLINE}
)
SELECT rank, phase, coalesce(repeat, 0) AS repeat, coalesce(batch, 0) AS batch,
  coalesce(step, -1) AS step, coalesce(microbatch, 0) AS microbatch, timeline, evidence,
  start_ns - min(start_ns) OVER () AS start_ns, window_ns,
  {", ".join(PARTS)}
FROM kept ORDER BY phase, repeat, batch, step, microbatch, rank
"""
_SAMPLED = f"""
SELECT s.rank, s.phase, coalesce(repeat, 0) AS repeat, coalesce(batch, 0) AS batch,
  coalesce(step, -1) AS step, coalesce(microbatch, 0) AS microbatch, s.timeline,
  s.evidence || ' in sampled units' AS evidence, s.start_ns,
  s.window_ns / (1 + slowed) AS window_ns,
  {", ".join(f"s.{part} / (1 + slowed) AS {part}" for part in PARTS)}
FROM step_breakdown s JOIN rank_estimate e USING (run_id, rank, phase, evidence)
JOIN (SELECT rank, phase, median(window_ns) AS usual_ns FROM step_breakdown WHERE {HEADLINE}
  GROUP BY ALL) u USING (rank, phase)
WHERE e.basis = 'sampled' AND s.perturbed_by IS NOT NULL AND s.compute_ns IS NOT NULL
  AND NOT coalesce(s.warmup, false) AND coalesce(s.on_all_ranks, true)
QUALIFY max(s.window_ns / usual_ns) OVER (PARTITION BY s.phase, repeat, batch, microbatch, step)
  <= 1.1
ORDER BY s.phase, repeat, batch, step, microbatch, s.rank
"""
_WHOLE = f"""
SELECT rank, phase, 0 AS repeat, 0 AS batch, -1 AS step, 0 AS microbatch, timeline, evidence,
  0 AS start_ns, window_ns, {", ".join(PARTS)}
FROM rank_breakdown WHERE phase = 'all' ORDER BY rank
"""


def _phases(con: duckdb.DuckDBPyConnection) -> dict[str, PhaseUnits]:
    """Measured phases; where a trace has no step marks, the whole of it as one unit."""
    columns = con.execute(_UNITS).fetchnumpy()
    if not len(columns["rank"]):
        columns = con.execute(_WHOLE).fetchnumpy()
    names = np.asarray(columns["phase"])
    return {
        str(phase): _phase_units({k: v[names == phase] for k, v in columns.items()})
        for phase in dict.fromkeys(names.tolist())
    }


def _estimated(con: duckdb.DuckDBPyConnection) -> dict[str, PhaseUnits]:
    if parts_view(con) != "rank_estimate":
        return {}
    columns = con.execute(_SAMPLED).fetchnumpy()
    names = np.asarray(columns["phase"])
    return {
        str(phase): _phase_units({k: v[names == phase] for k, v in columns.items()})
        for phase in dict.fromkeys(names.tolist())
    }


def _phase_units(rows: dict[str, Any]) -> PhaseUnits:
    keys = np.stack([_floats(rows[name]) for name in ("repeat", "batch", "step", "microbatch")], 1)
    new = np.concatenate(([True], (keys[1:] != keys[:-1]).any(axis=1)))
    unit = np.cumsum(new) - 1
    ranks, place = np.unique(_floats(rows["rank"]), return_inverse=True)
    shape = (int(unit[-1]) + 1, len(ranks))

    def spread(name: str) -> Floats:
        found = np.full(shape, np.nan)
        found[unit, place] = _floats(rows[name])
        return found

    bases = {(str(t), str(e)) for t, e in zip(rows["timeline"], rows["evidence"], strict=True)}
    timelines, evidences = ("+".join(sorted(set(names))) for names in zip(*bases, strict=True))
    return PhaseUnits(
        keys=tuple(tuple(int(value) for value in key) for key in keys[new]),
        ranks=tuple(int(rank) for rank in ranks),
        start=spread("start_ns"),
        window=spread("window_ns"),
        parts=np.stack([spread(part) for part in PARTS], axis=2),
        basis=f"{timelines} timeline, {evidences}",
    )


def _floats(values: Any) -> Floats:
    """Numbers of a column; NULL becomes NaN."""
    if isinstance(values, np.ma.MaskedArray):
        return np.ma.filled(values.astype(float), np.nan)
    return np.asarray(values, dtype=float)


# -- requests and tokens ---------------------------------------------------------------------


def _requests(con: duckdb.DuckDBPyConnection) -> Requests:
    columns = con.execute(
        """
        SELECT coalesce(repeat, 0) AS repeat, coalesce(batch, 0) AS batch, output_tokens,
          ttft_ns, tpot_ns, e2e_ns
        FROM requests WHERE NOT coalesce(warmup, false) AND perturbed_by IS NULL
        ORDER BY 1, 2, request_id
        """
    ).fetchnumpy()
    keys = zip(columns["repeat"].tolist(), columns["batch"].tolist(), strict=True)
    latencies = {name: _floats(columns[f"{name}_ns"]) for name in ("ttft", "tpot", "e2e")}
    return Requests(tuple(keys), latencies, _floats(columns["output_tokens"]))


def _gaps(con: duckdb.DuckDBPyConnection) -> tuple[tuple[Key, ...], Floats]:
    columns = con.execute(
        """
        WITH times AS (
          SELECT coalesce(repeat, 0) AS repeat, coalesce(batch, 0) AS batch, step, perturbed_by,
            coalesce(device_ns, host_ns) - lag(coalesce(device_ns, host_ns)) OVER (
              PARTITION BY request_id, batch, repeat ORDER BY step) AS ns
          FROM step_tokens WHERE n_tokens > 0 AND NOT coalesce(warmup, false)
        )
        SELECT repeat, batch, coalesce(step, -1) AS step, ns FROM times
        WHERE ns IS NOT NULL AND perturbed_by IS NULL ORDER BY 1, 2, 3
        """
    ).fetchnumpy()
    names = ("repeat", "batch", "step")
    keys = zip(*(columns[name].tolist() for name in names), strict=True)
    return tuple(keys), _floats(columns["ns"])


# -- one value a run -------------------------------------------------------------------------

_PEAKS = {"memory_used": "gpu_memory", "rss": "host_memory"}


def _singles(
    con: duckdb.DuckDBPyConnection, phases: Mapping[str, PhaseUnits]
) -> tuple[dict[str, float], dict[str, str]]:
    found: dict[str, float] = {}
    why_not = {name: f"no samples of {metric}" for metric, name in _PEAKS.items()}
    for metric, value in con.execute(
        "SELECT metric, max(value) FROM samples WHERE metric IN ('memory_used', 'rss') GROUP BY 1"
    ).fetchall():
        if value is not None:
            found[_PEAKS[metric]] = float(value)
    for phase, seconds in con.execute(
        """
        SELECT phase, max(ns) / 1e9 FROM (
          SELECT rank, phase, sum(window_ns) AS ns FROM step_breakdown
          WHERE phase IN ('startup', 'load', 'preprocess') GROUP BY ALL)
        GROUP BY phase
        """
    ).fetchall():
        found[phase] = float(seconds)
    joules = _joules_per_token(con) if phases else "no measured units"
    if isinstance(joules, str):
        why_not["j_per_token"] = joules
    else:
        found["j_per_token"] = joules
    return found, why_not


def _joules_per_token(con: duckdb.DuckDBPyConnection) -> float | str:
    """Energy of all sampled devices over the headline units, by token; or why there is none."""
    begin, end = con.execute(
        f"SELECT min(start_ns), max(start_ns + window_ns) FROM step_breakdown WHERE {HEADLINE}"
    ).fetchone() or (None, None)
    if begin is None:
        return "no measured units"
    rows = con.execute(
        "SELECT host, device, ts_ns - ?, value FROM samples WHERE metric = 'energy' ORDER BY ts_ns",
        [begin],
    ).fetchall()
    if not rows:
        return "no energy counter was sampled"
    if end - begin < SHORTEST_ENERGY_S * 1e9:
        return f"the measured units last {(end - begin) / 1e9:.2g} s; energy needs a second"
    joules = joules_between(rows, end - begin)
    (tokens,) = con.execute(
        """
        SELECT sum(output_tokens) FROM requests
        WHERE NOT coalesce(warmup, false) AND start_ns + coalesce(ttft_ns, 0) BETWEEN ? AND ?
        """,
        [begin, end],
    ).fetchone() or (None,)
    if not tokens:
        return "no request was counted"
    return "the energy counter does not cover the units" if joules is None else joules / tokens


def joules_between(rows: Sequence[tuple[Any, Any, int, float]], length_ns: int) -> float | None:
    """Joules between 0 and `length_ns`, all devices; None where a counter does not reach so far."""
    total = 0.0
    for device in dict.fromkeys((host, device) for host, device, _, _ in rows):
        mine = [(at, value) for host, index, at, value in rows if (host, index) == device]
        at, value = (np.array(column, dtype=float) for column in zip(*mine, strict=True))
        slack = 0.05 * length_ns
        if at[0] > slack or at[-1] < length_ns - slack:
            return None
        total += float(np.diff(np.interp([0, length_ns], at, value))[0])
    return total


def _blamed(con: duckdb.DuckDBPyConnection) -> dict[int, float]:
    rows = con.execute(
        """
        SELECT source, rank, sum(wait_caused_ns)::DOUBLE FROM straggler_causes
        WHERE phase IN ('decode', 'mixed') AND NOT coalesce(perturbed, false) GROUP BY ALL
        ORDER BY rank
        """
    ).fetchall()
    sources = {source for source, _, _ in rows}
    best = min(sources, key=evidence_order, default=None)
    return {rank: ns for source, rank, ns in rows if source == best and ns}
