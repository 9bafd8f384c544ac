"""A delay put into one rank comes back as waiting of its peers: `python benchmarks/injection.py`.

Runs TP=2 x PP=2 on the CPU with delays of 0, 2 and 10 ms on rank 1, once a step and once a
layer, and prints what was injected against what the peers' waits say, with the interval of the
median over steps. The baseline (delay 0) is subtracted: ranks are never exactly equally fast.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness.progress import Narrator
from harness.session import run_spec
from harness_analysis.store import open_database
from harness_schemas.spec import RunSpec

LATE_RANK = 1
PEER = 0
LAYERS_A_STAGE = 4


@dataclass(frozen=True)
class Measured:
    """What one run says: waiting of the peer for the late rank, a value a decode step."""

    net_ns: np.ndarray
    step_ns: float
    culprits: tuple[int, ...]
    times_last: int
    collectives: int


def make_spec(folder: Path, delay: str | None, every: str, steps: int) -> RunSpec:
    """The run: a small synthetic model, one batch."""
    inject = {"rank": LATE_RANK, "delay": delay, "every": every} if delay else None
    return RunSpec.model_validate(
        {
            "name": f"inject-{delay or 0}-{every}",
            "device": "cpu",
            "model": {"synthetic": "tiny-llama"},
            "prompts": {"limit": 1},
            "parallel": {"tp": 2, "pp": 2},
            "generation": {"new_tokens": steps + 1, "warmup": 1, "stop_at_eos": False},
            "launcher": {"threads": 1, "timeout": "5min"},
            "check": {"reference": False},
            "collectors": {"psutil": False},
            "output": {"dir": str(folder)},
            "inject": inject,
        }
    )


def run_once(folder: Path, delay: str | None, every: str, steps: int) -> Measured:
    """Run once and read what the database says."""
    result = run_spec(make_spec(folder, delay, every, steps), Narrator(quiet=True))
    if result.exit_code != 0:
        raise RuntimeError(f"the run failed: {result.outcome}")
    return measure(result.run.database)


def measure(database: Path) -> Measured:
    """Waits of the late rank's peer, the culprits named, and how often it was last."""
    with open_database(database) as con:
        rows = con.execute(
            """
            SELECT step, sum(CASE WHEN rank = ? THEN wait_ns ELSE -wait_ns END)
            FROM collectives
            WHERE phase = 'decode' AND rank IN (?, ?) AND op = 'all_reduce'
              AND NOT warmup AND perturbed_by IS NULL
            GROUP BY step ORDER BY step
            """,
            [PEER, PEER, LATE_RANK],
        ).fetchall()
        culprits = con.execute(
            """
            SELECT DISTINCT rank FROM findings
            WHERE kind = 'straggler' AND phase = 'decode' ORDER BY rank
            """
        ).fetchall()
        last = con.execute(
            "SELECT times_last, collectives FROM stragglers WHERE rank = ? AND phase = 'decode'",
            [LATE_RANK],
        ).fetchone()
        step = con.execute("SELECT step_ms * 1e6 FROM run_summary").fetchone()
    return Measured(
        np.array([row[1] for row in rows], dtype=float),
        float(step[0]) if step else float("nan"),
        tuple(row[0] for row in culprits),
        *(last or (0, 0)),
    )


def median_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Median and its 95 % bootstrap interval."""
    draws = np.random.default_rng(seed).choice(values, (2000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(values)), float(low), float(high)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=48)
    steps = parser.parse_args().steps
    print(
        "| every | injected ms a step | returned as wait ms [95 %] | error | last | culprit named |"
    )
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for every, times in (("step", 1), ("layer", LAYERS_A_STAGE)):
            base, _, _ = median_interval(run_once(Path(name), None, every, steps).net_ns)
            for delay in (0, 2, 10):
                got = run_once(Path(name), f"{delay}ms" if delay else None, every, steps)
                middle, low, high = (value - base for value in median_interval(got.net_ns))
                want = delay * 1e6 * times
                error = (
                    f"{100 * (middle - want) / want:+.1f} %" if want else f"{middle / 1e6:+.2f} ms"
                )
                named = ", ".join(map(str, got.culprits)) or "nobody"
                print(
                    f"| {every} | {want / 1e6:.0f} | {middle / 1e6:.2f} "
                    f"[{low / 1e6:.2f}, {high / 1e6:.2f}] | {error} "
                    f"| {got.times_last} of {got.collectives} | {named} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
