"""The answer of one run as numbers: what the terminal, the HTML page and scripts are told.

Nothing here formats, rounds or guesses. None means that the evidence does not say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_schemas.units import format_share
from harness_schemas.vocabulary import MEASURED_PHASES, PARTS

ALL = "all"
"""Phase of the rows that cover a rank from its first to its last activity."""


@dataclass(frozen=True)
class RunFacts:
    """What was run, and how it ended."""

    run_id: str
    name: str | None
    status: str | None
    verdict: str | None
    verdict_detail: str | None
    exit_code: int | None
    runner: str | None
    dtype: str | None
    device: str | None
    tp: int | None
    pp: int | None
    batch_size: int | None
    microbatches: int | None
    world_size: int | None
    job_id: str | None
    started_ns: int | None
    ended_ns: int | None
    ranks: int
    """Ranks that the evidence holds; `world_size` is what was asked for."""
    hosts: tuple[str, ...]

    @property
    def judged(self) -> bool:
        """False where the evidence tells neither status nor verdict: said once, not twice."""
        return self.status is not None or self.verdict != "unknown"


@dataclass(frozen=True)
class Throughput:
    """Tokens and time of the measured batches (columns of the view `run_summary`)."""

    tok_per_s: float | None
    tok_per_s_per_rank: float | None
    output_tokens: int | None
    requests: int | None
    wall_s: float | None
    step_ms: float | None
    cadence_ms: float | None
    resource_use: float | None
    communication_s: float | None
    communication_wait_share: float | None
    io_s: float | None
    preprocessing_s: float | None
    load_s: float | None
    startup_s: float | None


@dataclass(frozen=True)
class Latency:
    """Percentiles of one latency and the number of values they rest on."""

    metric: str
    count: int
    mean_ns: float | None
    p50_ns: float | None
    p90_ns: float | None
    p95_ns: float | None
    p99_ns: float | None
    max_ns: float | None


@dataclass(frozen=True)
class Parts:
    """A length of time and its nine parts, in nanoseconds; None: no evidence for that part."""

    window_ns: int
    ns: Mapping[str, int | None]

    def share(self, part: str) -> float | None:
        """The part's share of the window, 0 to 1."""
        value = self.ns[part]
        return None if value is None or not self.window_ns else value / self.window_ns


@dataclass(frozen=True)
class RankBreakdown:
    """Where the time of one rank went in one phase (views `rank_estimate`, `rank_breakdown`)."""

    rank: int
    stage: int | None
    tp_rank: int | None
    host: str | None
    phase: str
    timeline: str | None
    evidence: str | None
    units: int | None
    left_out: int | None
    sampled_units: int | None
    """Units slowed by observing them, from which the parts are estimated; None: measured."""
    slowed: float | None
    parts: Parts

    @property
    def basis(self) -> str:
        """What the parts rest on: `app_timers`, or the sampled units of a collector."""
        evidence = self.evidence or "-"
        if self.sampled_units is None:
            return evidence
        longer = f", {format_share(self.slowed)} longer" if (self.slowed or 0) >= 0.001 else ""
        return f"{evidence} in {self.sampled_units} sampled units a rank{longer}"


@dataclass(frozen=True)
class FoundFact:
    """A row of the table `findings`."""

    position: int
    severity: str
    kind: str
    rank: int | None
    phase: str | None
    text: str
    value_ns: int | None
    share: float | None
    floor_share: float | None
    evidence: str | None


@dataclass(frozen=True)
class Correctness:
    """Comparison with the reference, as the runner wrote it."""

    verdict: str | None
    compared: int | None
    equal: int | None
    ties: int | None
    max_logit_diff: float | None
    why: str | None
    """One sentence for the verdict."""
    details: Mapping[str, Any]
    """Whatever else the comparison says."""

    @property
    def share_equal(self) -> float | None:
        """Share of compared tokens that are equal."""
        if self.equal is None or not self.compared:
            return None
        return self.equal / self.compared


@dataclass(frozen=True)
class Coverage:
    """What the breakdown of a phase rests on (a row of the view `coverage`)."""

    phase: str
    ranks: int
    world_size: int | None
    evidence: str | None
    units: int
    incomplete: int
    trimmed: int
    """Units that not all ranks show: headline numbers leave them out."""
    unresolved_share: float | None
    unsplit_share: float | None
    unsplit_reason: str | None


@dataclass(frozen=True)
class CollectorState:
    """How a collector fared, over the places (hosts and ranks) where it fared the same."""

    collector: str
    state: str
    reason: str | None
    places: int
    bytes: int | None
    records: int | None
    dropped: int | None
    unreadable: int | None


@dataclass(frozen=True)
class Overhead:
    """What a collector cost, measured inside the run (a row of the table `overhead`)."""

    collector: str
    phase: str | None
    pairs: int | None
    off_ns: int | None
    effect_ns: int | None
    low_ns: int | None
    high_ns: int | None
    resolved: bool | None
    """Whether the interval excludes zero; None: too few pairs for one."""


@dataclass(frozen=True)
class Clock:
    """Clocks of one evidence that were aligned in one way."""

    source: str
    method: str | None
    clocks: int
    unknown: int
    """Of these, clocks whose residual is not known: their times are compared with no other's."""
    residual_ns: int | None
    largest_drift_ppb: int | None
    samples: int | None


@dataclass(frozen=True)
class Unanswered:
    """What nothing was recorded of (a row of the table `can_answer`)."""

    relation: str
    of_columns: str | None
    needs: str
    reason: str | None


@dataclass(frozen=True)
class Answer:
    """Everything that one run's database answers without a question being asked."""

    run: RunFacts
    throughput: Throughput | None
    latency: tuple[Latency, ...]
    breakdown: tuple[RankBreakdown, ...]
    findings: tuple[FoundFact, ...]
    correctness: Correctness | None
    coverage: tuple[Coverage, ...]
    collectors: tuple[CollectorState, ...]
    overhead: tuple[Overhead, ...]
    clocks: tuple[Clock, ...]
    unanswered: tuple[Unanswered, ...] = ()
    unclassified_share: float | None = None
    """Share of the kernels' time that no rule knows (counted as computing); None: no kernels."""

    def phases(self) -> list[str]:
        """Measured phases that have a breakdown, in order; `all` where there is none."""
        present = {row.phase for row in self.breakdown}
        measured: list[str] = [phase for phase in MEASURED_PHASES if phase in present]
        return measured or ([ALL] if ALL in present else [])

    def of_phase(self, phase: str) -> list[RankBreakdown]:
        """The ranks' rows of a phase, by rank."""
        return [row for row in self.breakdown if row.phase == phase]

    def collectors_not_ok(self) -> list[CollectorState]:
        """Collectors that were skipped, degraded or failed."""
        return [row for row in self.collectors if row.state != "ok"]

    def clock_residual_ns(self) -> int | None:
        """How finely two ranks' times may be compared, at worst; None: nothing is known."""
        known = [clock.residual_ns for clock in self.clocks if clock.residual_ns is not None]
        return max(known, default=None)


def total_parts(rows: Iterable[Parts]) -> Parts | None:
    """Sum over rows; a part that no row has stays None. None: there are no rows."""
    rows = list(rows)
    if not rows:
        return None
    return Parts(
        sum(row.window_ns for row in rows),
        {part: _sum_known([row.ns[part] for row in rows]) for part in PARTS},
    )


def _sum_known(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
