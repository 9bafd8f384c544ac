"""Collectors by name: built-in ones from a literal list, others from entry points."""

from __future__ import annotations

import importlib

from harness_schemas.spi import Collector

_BUILT_IN = {"app_timers": "harness_collectors.app_timers:COLLECTOR"}


def collector_names() -> list[str]:
    """Names in the order of the registry."""
    return list(_BUILT_IN)


def load_collector(name: str) -> Collector:
    """Import one collector."""
    module, _, attribute = _BUILT_IN[name].partition(":")
    found: Collector = getattr(importlib.import_module(module), attribute)
    return found


def all_collectors() -> list[Collector]:
    """Every collector, imported."""
    return [load_collector(name) for name in collector_names()]
