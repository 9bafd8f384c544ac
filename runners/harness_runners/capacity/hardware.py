"""Cards and what lies between them: datasheet figures, replaced by measured ones where given."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness_schemas.errors import UsageError, said_by

CARDS = Path(__file__).with_name("cards.json")
MIB = 1 << 20
NODE_LATENCY_NS = 10_000
NETWORK_LATENCY_NS = 25_000
"""Of one collective or message within a node and across; assumptions, to be measured."""
NETWORK_GB_S = 50.0
"""Assumed bandwidth between nodes: one 400 Gbit/s adapter a GPU."""
IN_CHAIN = ("nccl", "gloo")
"""Implementations that the runner uses; floors of others are left out."""


@dataclass(frozen=True)
class Card:
    """One device. Bandwidths in bytes/s, `flops` dense at 16 bits; `source` says of which kind."""

    key: str
    name: str
    memory_bytes: int
    bandwidth: float
    flops: float
    peer_bandwidth: float
    source: str = "datasheet"
    driver: str = ""

    def measured(self, bandwidth: float | None, flops: float | None) -> Card:
        """With what a run measured in place of the datasheet."""
        if bandwidth is None and flops is None:
            return self
        found = "measured" if bandwidth and flops else f"measured and {self.source}"
        return replace(
            self,
            bandwidth=bandwidth or self.bandwidth,
            flops=flops or self.flops,
            source=found,
        )


def cards() -> dict[str, Card]:
    """The cards shipped, by their short name."""
    found = {}
    for key, row in json.loads(CARDS.read_text()).items():
        if isinstance(row, dict):
            found[key] = Card(
                key,
                row["name"],
                row["memory_mib"] * MIB,
                row["bandwidth_gb_s"] * 1e9,
                row["tflops"] * 1e12,
                row["peer_gb_s"] * 1e9,
                driver=row["driver"],
            )
    return found


def find_card(name: str) -> Card:
    """A card by its short name.

    Raises:
        UsageError: there is none.
    """
    known = cards()
    found = known.get(name.lower())
    if found is None:
        raise UsageError(f"no card {name!r}", f"there are {', '.join(known)}")
    return found


def card_of_device(device_name: str) -> Card | None:
    """The card that a driver's name (`NVIDIA H200`) means; None: not known."""
    return next((card for card in cards().values() if card.driver == device_name.strip()), None)


@dataclass(frozen=True)
class Time:
    """A duration and what it rests on: measured, or assumed."""

    ns: float
    basis: str


@dataclass(frozen=True)
class Links:
    """Times of collectives and messages. `floors`: (op, ranks) -> bytes and ns, sorted."""

    peer_bandwidth: float
    ranks_per_node: int
    floors: Mapping[tuple[str, int], tuple[tuple[float, float], ...]] = field(default_factory=dict)

    def all_reduce(self, num_bytes: float, ranks: int) -> Time:
        """One all-reduce: measured, else latency + 2(n-1)/n bytes / bandwidth (a ring)."""
        return self._time("all_reduce", num_bytes, ranks, 2 * (ranks - 1) / ranks)

    def message(self, num_bytes: float, within_node: bool) -> Time:
        """One message from a stage to the next."""
        return self._time("send_recv", num_bytes, 2 if within_node else self.ranks_per_node + 1, 1)

    def _time(self, op: str, num_bytes: float, ranks: int, factor: float) -> Time:
        points = self.floors.get((op, 2 if op == "send_recv" else ranks))
        crosses = ranks > self.ranks_per_node
        if points and not (op == "send_recv" and crosses):
            return Time(interpolate(points, num_bytes), "measured")
        latency = NETWORK_LATENCY_NS if crosses else NODE_LATENCY_NS
        bandwidth = NETWORK_GB_S * 1e9 if crosses else self.peer_bandwidth
        return Time(latency + factor * num_bytes / bandwidth * 1e9, "assumed")


def interpolate(points: tuple[tuple[float, float], ...], num_bytes: float) -> float:
    """Straight on logarithmic axes; below the smallest size its time, above the largest its
    rate."""
    first, last = points[0], points[-1]
    if num_bytes <= first[0]:
        return first[1]
    if num_bytes >= last[0]:
        return last[1] * num_bytes / last[0]
    index = bisect_left(points, (num_bytes, 0.0))
    (x0, y0), (x1, y1) = points[index - 1], points[index]
    part = math.log(num_bytes / x0) / math.log(x1 / x0)
    return math.exp(math.log(y0) + part * math.log(y1 / y0))


def read_floors(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, int], tuple[Any, ...]]:
    """Floors by operation and group size; rows of `harness bench collectives` (p50_us)."""
    found: dict[tuple[str, int], dict[float, float]] = {}
    for row in rows:
        size, time = row.get("bytes"), row.get("p50_us")
        if row.get("implementation") in IN_CHAIN and size and time:
            key = (str(row.get("op")), int(row.get("group_size") or 0))
            found.setdefault(key, {})[float(size)] = float(time) * 1e3
    return {key: tuple(sorted(points.items())) for key, points in found.items()}


def load_floors(path: Path) -> dict[tuple[str, int], tuple[Any, ...]]:
    """Floors out of the file that `harness bench collectives` wrote.

    Raises:
        UsageError: it is no such file.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {said_by(error)}") from None
    if not isinstance(document, dict) or document.get("format") != "harness.floors":
        raise UsageError(f"{path} holds no floors", "`harness bench collectives -o FILE` makes one")
    return read_floors(row for row in document.get("rows", []) if isinstance(row, dict))
