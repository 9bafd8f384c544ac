"""What one run contributes to a scaling table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

UNRESOLVED_AT_MOST = 0.05
"""Where more of the windows cannot be classified, computing is not resolved."""


@dataclass(frozen=True)
class RankTime:
    """The measured windows of one rank (prefill and decode) and their parts; None: unknown."""

    rank: int
    window_ns: int
    parts: Mapping[str, int | None]

    @property
    def compute_ns(self) -> int | None:
        """Useful time: computing, fused kernels included where there are any."""
        compute = self.parts.get("compute_ns")
        return None if compute is None else compute + (self.parts.get("fused_ns") or 0)


@dataclass(frozen=True)
class RunFacts:
    """One run: its configuration, and what was measured. Unknown is None."""

    run_id: str
    settings: Mapping[str, Any]
    """The resolved specification, flattened to dotted keys."""
    repeat: int = 0
    status: str | None = None
    verdict: str | None = None
    detail: str | None = None
    device: str | None = None
    world_size: int | None = None
    tp: int | None = None
    pp: int | None = None
    batch_size: int | None = None
    hosts: int | None = None
    cpus: int | None = None
    """Cores of the machine that the run was started on."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the harness and of the packages that ran the model."""
    started_ns: int | None = None
    requests: int | None = None
    output_tokens: int | None = None
    wall_ns: int | None = None
    resource_use: float | None = None
    io_s: float | None = None
    communication_s: float | None = None
    wait_share: float | None = None
    preprocessing_s: float | None = None
    tpot_ms: float | None = None
    idle_share: float | None = None
    """Share of decode in which the worst rank's device had nothing to do; None: not known."""
    ranks: tuple[RankTime, ...] = field(default_factory=tuple)
    decode: tuple[RankTime, ...] = field(default_factory=tuple)
    """The same of decode alone."""
    sampled_steps: int | None = None
    """Decode steps that the parts of decode are estimated from; None: all are measured."""
    slowed: float | None = None
    """How much longer those steps are than the others, as a share."""

    @property
    def good(self) -> bool:
        """Whether it may be measured by. Strangers' logs may say nothing of an end: it counts."""
        silent = self.status is None and self.verdict in ("unknown", None)
        return (silent or self.verdict in ("ok", None)) and bool(self.wall_ns)

    @property
    def unresolved_share(self) -> float | None:
        """Share of the windows, over all ranks, that the evidence cannot classify."""
        return unresolved(self.ranks)

    def part_share(self, *parts: str) -> float | None:
        """Share of decode that parts take, over all ranks; None where one of them is unknown."""
        total = sum(rank.window_ns for rank in self.decode)
        found = [rank.parts.get(part) for rank in self.decode for part in parts]
        known = [value for value in found if value is not None]
        return sum(known) / total if total > 0 and len(known) == len(found) else None


def unresolved(ranks: Sequence[RankTime]) -> float | None:
    """Share of windows that the evidence cannot classify; None where that is unknown."""
    total = sum(rank.window_ns for rank in ranks)
    unknown = [rank.parts.get("unresolved_ns") for rank in ranks]
    if total <= 0 or any(value is None for value in unknown):
        return None
    return sum(value for value in unknown if value is not None) / total
