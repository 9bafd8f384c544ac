"""What changed between two sides: configuration, versions, hardware, placement, measurement."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness_analysis.compare.effects import Side
from harness_analysis.compare.load import RunData

CONFIGURATION, VERSIONS, HARDWARE = "configuration", "versions", "hardware"
ENVIRONMENT, PLACEMENT, MEASUREMENT = "environment", "placement", "measurement"
EVIDENCE = "evidence"
"""What the evidence shows of a configuration that nobody recorded: consequences, no causes."""
_RANKS, _COMMAND = "ranks.", "command"
DRIFT = (VERSIONS, HARDWARE, ENVIRONMENT, PLACEMENT, MEASUREMENT)
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
        return [c for c in self.changes if not (c.follows or c.varies or c.group == EVIDENCE)]

    def verdict(self) -> str:
        """One sentence: whether the sides differ in one variable or in many."""
        causes = self.causes()
        if self.unknown:
            why = "; ".join(self.unknown)
            return f"unknown in how many variables they differ: {why}{_known(causes)}"
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
        return (
            f"differs in {len(causes)} variables: {_named(causes)}; "
            "no effect below can be put down to one of them"
        )


def _named(causes: Sequence[Change]) -> str:
    more = f" and {len(causes) - 6} more" if len(causes) > 6 else ""
    return ", ".join(change.path for change in causes[:6]) + more


def _known(causes: Sequence[Change]) -> str:
    """What differs of that which is recorded on both sides."""
    return f"; known to differ: {_named(causes)}" if causes else ""


def what_changed(a: Side, b: Side) -> Changes:
    """Compare what is recorded of the runs of both sides."""
    unknown = _unknown(a, b)
    facts = [[Recorded.of(run) for run in side.runs] for side in (a, b)]
    paths = dict.fromkeys(path for side in facts for run in side for path in run.facts)
    resized = len({run.row.get("world_size") for side in (a, b) for run in side.runs}) > 1
    found = []
    for group, path in paths:
        first, second = (_values(side, group, path) for side in facts)
        if not first or not second or (first == second and len(first) == 1):
            continue  # what one side did not record is no difference
        found.append(
            Change(
                group, path, " | ".join(first), " | ".join(second),
                follows=resized and _follows(group, path, first, second),
                varies=first == second,
            )
        )  # fmt: skip
    if unknown:
        found += _seen(a, b)
    order = (CONFIGURATION, *DRIFT, EVIDENCE)
    found.sort(key=lambda change: (order.index(change.group), change.follows, change.varies))
    return Changes(tuple(found), tuple(unknown))


def _values(side: Sequence[Recorded], group: str, path: str) -> list[str]:
    values = {run.value(group, path) for run in side}
    return sorted(value for value in values if value is not None)


def _seen(a: Side, b: Side) -> list[Change]:
    """What the evidence of both sides shows differently, where it shows anything of both."""
    sides = [[run.seen for run in side.runs if run.seen] for side in (a, b)]
    if not all(sides):
        return []
    found = []
    for path in dict.fromkeys(path for side in sides for run in side for path in run):
        calls = "." in path  # a unit without a call of some kind is known not to make it
        first, second = (
            sorted({run.get(path, "none" if calls else "") for run in side} - {""})
            for side in sides
        )
        if first and second and first != second:
            found.append(Change(EVIDENCE, path, " | ".join(first), " | ".join(second)))
    return found


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


@dataclass(frozen=True)
class Recorded:
    """What is recorded of a run, and of what anything was recorded at all."""

    facts: Mapping[tuple[str, str], str]
    groups: frozenset[str]

    @classmethod
    def of(cls, run: RunData) -> Recorded:
        """The facts of a run."""
        groups = {CONFIGURATION: run.spec is not None, MEASUREMENT: bool(run.phases)}
        groups |= dict.fromkeys(
            (VERSIONS, HARDWARE, ENVIRONMENT, PLACEMENT), run.provenance is not None
        )
        groups[_RANKS] = run.provenance is not None and bool(run.ranks)
        groups[_COMMAND] = "command" in (run.provenance or {})
        return cls(run_facts(run), frozenset(name for name, known in groups.items() if known))

    def value(self, group: str, path: str) -> str | None:
        """The value, `ABSENT` where nothing was set, None where nobody recorded it."""
        about = next((part for part in (_RANKS, _COMMAND) if path.startswith(part)), group)
        absent = ABSENT if about in self.groups else None
        return self.facts.get((group, path), absent)


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
    provenance = dict(run.provenance or {})
    for path, value in _words(str(provenance.pop("command", ""))).items():
        found[CONFIGURATION, path] = value
    for path, value in flatten(provenance):
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


def _words(command: str) -> dict[str, str]:
    """A command line as dotted paths: `command` without its options, `command.--batch`, ..."""
    try:
        words = shlex.split(command)
    except ValueError:  # cut, or a quote that a shell of another kind leaves open
        return {"command": command}
    plain: list[str] = []
    options: dict[str, str] = {}
    while words:
        word = words.pop(0)
        name, sign, value = word.partition("=")
        if not word.startswith("-") or word.strip("-") == "":
            plain.append(word)
            continue
        if not sign:
            value = words.pop(0) if words and not words[0].startswith("-") else "given"
        options[name] = f"{options[name]} {value}" if name in options else value
    found = {"command": " ".join(plain)} if plain else {}
    return found | {f"command.{name}": value for name, value in options.items()}


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
    if path == "script":  # what sbatch was given, by its digest
        return CONFIGURATION
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
