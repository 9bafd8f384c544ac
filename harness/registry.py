"""Collectors by name: the built-in ones from a literal list, strangers' from entry points."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from harness_schemas.errors import UsageError
from harness_schemas.spi import Collector

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "harness.collectors"

_BUILT_IN = {
    "app_timers": "harness_collectors.app_timers:COLLECTOR",
    "torch_profiler": "harness_collectors.torch_profiler:COLLECTOR",
    "nvml": "harness_collectors.nvml:COLLECTOR",
    "psutil": "harness_collectors.psutil_host:COLLECTOR",
    "otel": "harness_collectors.otel_spans:COLLECTOR",
    "floors": "harness_collectors.floors:COLLECTOR",
    "kineto": "harness_collectors.kineto:COLLECTOR",
    "nsys": "harness_collectors.nsys:COLLECTOR",
    "nccl_log": "harness_collectors.nccl_log:COLLECTOR",
    "nccl_inspector": "harness_collectors.nccl_inspector:COLLECTOR",
    "flight_recorder": "harness_collectors.flight_recorder:COLLECTOR",
    "perf": "harness_collectors.perf:COLLECTOR",
    "sacct": "harness_collectors.sacct:COLLECTOR",
    "topology": "harness_collectors.topology:COLLECTOR",
    "failure_log": "harness_collectors.failure_log:COLLECTOR",
}
"""In the order in which ingest asks who recognises a file: formats of our own first."""


def collector_names() -> list[str]:
    """Names of the built-in collectors, in the order of the registry."""
    return list(_BUILT_IN)


def load_collector(name: str) -> Collector:
    """Import one collector; entry points are looked at only where the name is not built in.

    Raises:
        UsageError: there is no such collector, or a stranger's cannot be imported.
    """
    target = _BUILT_IN.get(name)
    if target is None:
        return _load_foreign(name)
    module, _, attribute = target.partition(":")
    found: Collector = getattr(importlib.import_module(module), attribute)
    return found


def all_collectors() -> list[Collector]:
    """Every built-in collector, imported, in the order of the registry."""
    return [load_collector(name) for name in collector_names()]


def _load_foreign(name: str) -> Collector:
    found = _entry_points().get(name)
    if found is None:
        known = ", ".join(sorted({*_BUILT_IN, *_entry_points()}))
        raise UsageError(f"no collector is called {name!r}", f"there are {known}")
    try:
        loaded: Any = found.load()
    except Exception as error:  # a stranger's module may fail in any way
        raise UsageError(
            f"collector {name} cannot be imported: {type(error).__name__}: {error}",
            f"it comes from {found.value}",
        ) from error
    if not isinstance(loaded, Collector):
        raise UsageError(
            f"{found.value} is no collector",
            "see docs/adding-a-collector.md for what it must offer",
        )
    return loaded


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
