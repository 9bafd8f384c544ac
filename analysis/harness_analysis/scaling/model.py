"""What a scaling table says: its points, and what to know before believing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness_analysis.scaling.intervals import Estimate
from harness_analysis.scaling.knee import Knee
from harness_analysis.scaling.limits import Limit


@dataclass(frozen=True)
class Point:
    """One configuration of a study. None: unknown."""

    label: str
    size: int | None
    """Ranks, or the batch size."""
    base: bool
    """What the others are compared with."""
    tp: int | None
    pp: int | None
    runs: int
    """Good runs, which the numbers rest on."""
    failures: tuple[str, ...]
    wall_s: Estimate | None = None
    speedup: Estimate | None = None
    efficiency: Estimate | None = None
    throughput_efficiency: Estimate | None = None
    """Weak scaling's other form: it must agree with `efficiency`."""
    throughput: Estimate | None = None
    resource_use: Estimate | None = None
    io_s: Estimate | None = None
    communication_s: Estimate | None = None
    wait_share: Estimate | None = None
    preprocessing_s: Estimate | None = None
    tpot_ms: Estimate | None = None
    load_balance: Estimate | None = None
    communication_efficiency: Estimate | None = None
    pop_efficiency: Estimate | None = None
    decode_compute: Estimate | None = None
    """Shares of decode, over all ranks: computing, moving data, waiting."""
    decode_transfer: Estimate | None = None
    decode_wait: Estimate | None = None
    limit: Limit | None = None
    parts_ns: Mapping[str, float] | None = None
    """Where the measured time went, mean over ranks and runs, by part."""


@dataclass(frozen=True)
class Study:
    """One table: a series of configurations along one axis."""

    kind: str
    """strong, weak, batch, or grid (no axis: nothing is compared)."""
    series: str
    """What all of its points share and those of other series do not."""
    points: tuple[Point, ...]
    marks: tuple[str, ...]
    """What a reader must know before believing the numbers."""
    knee: Knee | None = None

    @property
    def axis(self) -> str:
        """What grows from point to point."""
        return {"batch": "batch size", "grid": "cell"}.get(self.kind, "ranks")

    @property
    def base(self) -> Point | None:
        """The point that the others are compared with."""
        return next((point for point in self.points if point.base), None)
