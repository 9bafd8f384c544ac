"""What observing cost in this run: pairs of the same batch, recorder off and on.

A batch's figure is the median over its decode steps (prefill: over micro-batches) of latest end
minus earliest start over ranks, as `run_summary.step_ms` has it; a median leaves out what only a
few steps pay, so phase `all` gives the whole batch besides. The effect is the median over pairs
of on minus off, its interval the percentile bootstrap of that median (Efron and Tibshirani 1993,
chapter 13). On simulated differences (normal, heavy-tailed, skewed) it held the truth in 92 to
96 % of 600 sets of 6 to 40 pairs; that of the mean in 82 to 94 %.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness_schemas.vocabulary import CALIBRATE_OFF, CALIBRATE_ON, RECORDER

if TYPE_CHECKING:
    import duckdb

DRAWS = 2000
FEWEST_PAIRS = 6
"""Of fewer pairs without any effect all have the same sign more often than once in twenty."""


def measure_overhead(con: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """Rows of the table `overhead`; none where nothing was calibrated. Reads `unit_breakdown`."""
    batches = con.execute(_BATCHES, [CALIBRATE_OFF, CALIBRATE_ON, RECORDER]).fetchall()
    switched: dict[tuple[str, str], list[tuple[int, bool, int, float]]] = {}
    for collector, phase, *batch in batches:
        switched.setdefault((collector, phase), []).append(tuple(batch))
    return [
        {"collector": collector, "phase": phase, **effect(*pairs)}
        for (collector, phase), found in switched.items()
        if len((pairs := pair_up(found))[0])
    ]


_BATCHES = """
WITH calibrated AS (
  SELECT *, starts_with(perturbed_by, $2) AS observed,
    coalesce(nullif(split_part(perturbed_by, ':', 3), ''), $3) AS collector
  FROM unit_breakdown
  WHERE evidence = 'app_timers' AND phase IN ('prefill', 'decode', 'mixed')
    AND (starts_with(perturbed_by, $1) OR starts_with(perturbed_by, $2))
), steps AS (
  SELECT collector, phase, repeat, observed, max(start_ns + window_ns) - min(start_ns) AS ns
  FROM calibrated GROUP BY collector, phase, repeat, batch, microbatch, step, observed
), figures AS (
  SELECT collector, phase, repeat, observed, count(*) AS steps, median(ns) AS ns
  FROM steps GROUP BY ALL
  UNION ALL
  SELECT collector, 'all', repeat, observed, count(*), max(start_ns + window_ns) - min(start_ns)
  FROM calibrated GROUP BY collector, repeat, observed
)
SELECT collector, phase, repeat - min(repeat) OVER (PARTITION BY collector) AS position, observed,
  steps, ns
FROM figures
ORDER BY collector <> $3, min(repeat) OVER (PARTITION BY collector),
  list_position(['prefill', 'decode', 'mixed', 'all'], phase), position
"""


def pair_up(
    batches: list[tuple[int, bool, int, float]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Off and on of every whole pair, in nanoseconds.

    `batches`: (position, observed, steps, ns). Positions 2k and 2k + 1 are a pair; one that the
    end of the run cut, and so has fewer steps on one side, is left out.
    """
    pairs: dict[int, dict[bool, tuple[int, float]]] = {}
    for position, observed, steps, ns in batches:
        pairs.setdefault(position // 2, {})[observed] = (steps, ns)
    whole = [p for p in pairs.values() if len(p) == 2 and p[False][0] == p[True][0]]
    off, on = (np.array([pair[side][1] for pair in whole], dtype=float) for side in (False, True))
    return off, on


def effect(off: NDArray[np.float64], on: NDArray[np.float64]) -> dict[str, Any]:
    """Columns pairs, off_ns, effect_ns, low_ns, high_ns and resolved of paired measurements.

    The interval and the verdict are None for fewer than `FEWEST_PAIRS`.
    """
    differences = on - off
    row: dict[str, Any] = {
        "pairs": len(off),
        "off_ns": round(float(np.median(off))),
        "effect_ns": round(float(np.median(differences))),
    }
    if len(off) < FEWEST_PAIRS:
        return {**row, "low_ns": None, "high_ns": None, "resolved": None}
    draws = np.random.default_rng(0).choice(differences, (DRAWS, len(off)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    resolved = bool(low > 0 or high < 0)
    return {**row, "low_ns": round(float(low)), "high_ns": round(float(high)), "resolved": resolved}
