"""Checks of this machine: what can be recorded here, what is missing, what that costs, the mend.

Looking (`gather`) and judging (`*_checks`) are apart: a check is a pure function of `Facts`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from harness.doctor.check import Check, missing, ok
from harness.doctor.env_checks import env_checks
from harness.doctor.facts import Facts
from harness.doctor.gather import gather
from harness.doctor.gpu_checks import gpu_checks
from harness.doctor.host_checks import host_checks
from harness.doctor.network_checks import network_checks
from harness.doctor.tool_checks import nsys_too_old, tool_checks
from harness.registry import all_collectors

__all__ = ["Check", "Facts", "check_machine", "diagnose", "gather"]

AREAS = (host_checks, gpu_checks, network_checks, tool_checks, env_checks)


def check_machine(facts: Facts) -> list[Check]:
    """Every check of a machine, in the order in which a run would need them. Pure."""
    return [check for area in AREAS for check in area(facts)]


def diagnose() -> list[Check]:
    """This machine, its packages and the collectors. Changes nothing."""
    facts = gather()
    return [*check_machine(facts), *_packages(), *_collectors(facts)]


def _packages() -> Iterator[Check]:
    for name in ("torch", "deepspeed", "transformers", "safetensors"):
        if importlib.util.find_spec(name) is None:
            cost = "`harness run SPEC` cannot run models; every other verb works"
            mend = "pip install 'inference-harness[run]'"
            yield missing(name, "not installed", cost, mend)
        else:
            yield ok(name, importlib.metadata.version(name))


def _collectors(facts: Facts) -> Iterator[Check]:
    device = "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
    for collector in all_collectors():
        answer = collector.check(device)
        name = f"collector {collector.name}"
        if answer.available:
            yield nsys_too_old(name, answer.facts.get("version"), facts) or ok(
                name, collector.title
            )
        else:
            yield missing(name, answer.reason, f"no {collector.title}", answer.hint)
