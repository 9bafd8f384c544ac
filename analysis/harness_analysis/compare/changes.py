"""What changed between two sides: configuration, versions, hardware, placement, measurement."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_analysis.compare.effects import Side
from harness_analysis.compare.load import RunData

CONFIGURATION, VERSIONS, HARDWARE = "configuration", "versions", "hardware"
ENVIRONMENT, PLACEMENT, MEASUREMENT = "environment", "placement", "measurement"
DRIFT = (VERSIONS, HARDWARE, ENVIRONMENT, PLACEMENT, MEASUREMENT)
UNKNOWN = "unknown"
ABSENT = "(not set)"

_NO_CONFIGURATION = re.compile(r"^(name|output(\..*)?|launcher\.port)$")
"""Keys of a specification that change nothing about what is computed."""
_IDENTITY = re.compile(
    r"^(SLURM_(JOB_ID|JOB_NAME|PROCID|LOCALID|NODEID|RESTART_COUNT|ARRAY_.*|STEP_ID)"
    r"|RANK|LOCAL_RANK)$"
)
_SIZE = re.compile(r"^(SLURM_(NTASKS.*|JOB_NUM_NODES|JOB_NODELIST|GPUS_ON_NODE|CPUS_PER_TASK)"
                   r"|CUDA_VISIBLE_DEVICES|WORLD_SIZE)$")  # fmt: skip
"""Environment that says where the ranks are: part of the placement."""
_COLUMNS = {
    "runner": "runner", "dtype": "dtype", "device": "device", "tp": "parallel.tp",
    "pp": "parallel.pp", "batch_size": "generation.batch_size",
    "microbatches": "generation.microbatches", "world_size": "world_size",
}  # fmt: skip
"""What a database without a specification still says of the configuration."""


@dataclass(frozen=True)
class Change:
    """One thing that differs, or that differs among the runs of one side."""

    group: str
    path: str
    a: str
    b: str
    follows: bool = False
    """It follows from another number of ranks, and is no cause of its own."""
    varies: bool = False
    """Both sides hold the same values, but their runs differ among themselves."""


@dataclass(frozen=True)
class Changes:
    """What differs between A and B, and what cannot be known."""

    changes: tuple[Change, ...]
    unknown: tuple[str, ...]
    """What of which side is not recorded, a sentence each."""

    def causes(self) -> list[Change]:
        """Differences that may explain an effect."""
        return [c for c in self.changes if not c.follows and not c.varies]

    def verdict(self) -> str:
        """One sentence: whether the sides differ in one variable or in many."""
        causes = self.causes()
        if self.unknown:
            known = f"; known: {len(causes)} differ" if causes else ""
            return f"unknown in how many variables they differ: {'; '.join(self.unknown)}{known}"
        if not causes:
            return "nothing that is recorded differs"
        if len(causes) == 1:
            (only,) = causes
            return f"differs in ONE variable: {only.path} {only.a} -> {only.b}"
        main = [change for change in causes if change.group == CONFIGURATION]
        drift = [group for group in DRIFT if any(change.group == group for change in causes)]
        if len(main) == 1:
            (only,) = main
            return (
                f"differs in one key of the configuration, {only.path} {only.a} -> {only.b}, "
                f"but also in {' and '.join(drift)}: {len(causes)} variables in all"
            )
        names = ", ".join(change.path for change in causes[:6])
        more = f" and {len(causes) - 6} more" if len(causes) > 6 else ""
        return (
            f"differs in {len(causes)} variables: {names}{more}; "
            "no effect below can be put down to one of them"
        )


def what_changed(a: Side, b: Side) -> Changes:
    """Compare what is recorded of the runs of both sides."""
    facts = [[run_facts(run) for run in side.runs] for side in (a, b)]
    paths = dict.fromkeys(path for side in facts for run in side for path in run)
    resized = len({run.row.get("world_size") for side in (a, b) for run in side.runs}) > 1
    found = []
    for group, path in paths:
        first, second = (sorted({run.get((group, path), ABSENT) for run in side}) for side in facts)
        if first == second and len(first) == 1:
            continue
        found.append(
            Change(
                group, path, " | ".join(first), " | ".join(second),
                follows=resized and _follows(group, path, first, second),
                varies=first == second,
            )
        )  # fmt: skip
    order = (CONFIGURATION, *DRIFT)
    found.sort(key=lambda change: (order.index(change.group), change.follows, change.varies))
    return Changes(tuple(found), tuple(_unknown(a, b)))


def _follows(group: str, path: str, a: Sequence[str], b: Sequence[str]) -> bool:
    """Fewer or more of the same places, as another number of ranks needs them."""
    if group != PLACEMENT:
        return path == "world_size"
    if path.startswith("env."):
        return True
    first, second = ({name for text in side for name in text.split(", ")} for side in (a, b))
    return first <= second or second <= first


def _unknown(a: Side, b: Side) -> list[str]:
    lacking: dict[str, list[str]] = {}
    for what, field in (("specification", "spec"), ("provenance", "provenance")):
        sides = [
            label + ("" if not any(known) else f" ({known.count(False)} of {len(known)} runs)")
            for label, side in (("A", a), ("B", b))
            if not all(known := [getattr(run, field) is not None for run in side.runs])
        ]
        if sides:
            lacking.setdefault(" and ".join(sides), []).append(f"no {what}")
    return [f"{' and '.join(what)} of {sides}" for sides, what in lacking.items()]


def run_facts(run: RunData) -> dict[tuple[str, str], str]:
    """Everything recorded of a run that may differ: (group, dotted path) -> value as text."""
    found: dict[tuple[str, str], str] = {}
    if run.spec is not None:
        for path, value in {**_defaults(run.spec), **dict(flatten(run.spec))}.items():
            if not _NO_CONFIGURATION.match(path):
                found[CONFIGURATION, path] = value
    else:
        for column, path in _COLUMNS.items():
            if run.row.get(column) is not None:
                found[CONFIGURATION, path] = str(run.row[column])
    for path, value in flatten(run.provenance or {}):
        group = _provenance_group(path)
        if group:
            found[group, path] = value
    for name in ("host", "gpu_uuid"):
        values = sorted({str(rank[name]) for rank in run.ranks if rank.get(name)})
        if values:
            found[PLACEMENT, f"ranks.{name}"] = ", ".join(values)
    for phase, units in run.phases.items():
        found[MEASUREMENT, f"{phase}.evidence"] = units.basis
    return found


def _defaults(spec: Mapping[str, Any]) -> dict[str, str]:
    """Keys that were added to specifications after `spec` was resolved had no effect on it."""
    return _spec_defaults() if {"parallel", "generation"} <= spec.keys() else {}


@functools.cache
def _spec_defaults() -> dict[str, str]:
    from harness_schemas.spec import RunSpec

    whole = RunSpec.model_validate({"model": {"synthetic": "tiny-llama"}}).model_dump()
    return dict(flatten({name: value for name, value in whole.items() if name != "model"}))


def _provenance_group(path: str) -> str | None:
    if path.startswith("env."):
        name = path.removeprefix("env.")
        if _IDENTITY.match(name):
            return None
        return PLACEMENT if _SIZE.match(name) else ENVIRONMENT
    if path == "host.name":
        return None  # the ranks' hosts say it
    return HARDWARE if path.startswith(("host.cpu", "host.memory", "gpu")) else VERSIONS


def flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested mappings with their dotted paths; lists are leaves, null is not set."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flatten(item, f"{path}.{key}" if path else str(key))
    elif value is not None:
        yield path, value if isinstance(value, str) else json.dumps(value)
