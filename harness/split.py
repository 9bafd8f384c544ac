"""One specification whose collectors exclude each other, run once for each kind of evidence.

Two tools that need CUPTI cannot watch one process. `harness run SPEC --split` runs the same
configuration once with each of them, into one folder; `split.json` joins the runs, and their
run.json name the folder as `sweep_id` and the evidence as `cell`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.runs.folders import SPLIT_JSON
from harness.setup.capture import plan_capture
from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir, name_run, point_latest, write_json
from harness_schemas.spi import CapturePlan

if TYPE_CHECKING:
    from harness.conclude import RunResult
    from harness.progress import Narrator
    from harness_schemas.spec import RunSpec


@dataclass(frozen=True)
class SplitPart:
    """One of the runs: what it is called (its evidence), and its specification."""

    label: str
    spec: RunSpec


def divide(plans: Mapping[str, CapturePlan]) -> list[frozenset[str]]:
    """Names of collectors that run together, as few sets as exclusions allow.

    Every set holds all collectors that exclude nobody. Greedy, in the order of the plans: one
    that needs a resource joins the first set in which nobody holds it.
    """
    shared = [name for name, plan in plans.items() if not plan.exclusive]
    sets: list[tuple[list[str], set[str]]] = []
    for name, plan in plans.items():
        if not plan.exclusive:
            continue
        for names, held in sets:
            if not plan.exclusive & held:
                names.append(name)
                held |= plan.exclusive
                break
        else:
            sets.append(([name], set(plan.exclusive)))
    return [frozenset([*shared, *names]) for names, _ in sets] or [frozenset(shared)]


def split_spec(spec: RunSpec, device: str) -> list[SplitPart]:
    """The parts of a specification; one part, the specification itself, where nothing excludes.

    Raises:
        SpecError: options that a collector refuses.
    """
    plans = plan_capture(spec, device, Path("run").absolute(), refuse=False).plans
    sets = divide(plans)
    if len(sets) == 1:
        return [SplitPart("", spec)]
    return [_part(spec, plans, names) for names in sets]


def _part(spec: RunSpec, plans: Mapping[str, CapturePlan], names: frozenset[str]) -> SplitPart:
    off: dict[str, bool | dict[str, Any]] = {name: False for name in plans if name not in names}
    label = "-".join(sorted(name for name in names if plans[name].exclusive))
    changes = {"collectors": {**spec.collectors, **off}, "name": f"{spec.name}-{label}"}
    return SplitPart(label, spec.model_copy(update=changes))


def group_folder(spec: RunSpec) -> Path:
    """A new folder for the parts. Touches nothing."""
    slug = name_run(Path(spec.output.dir), spec.name).path.name.rpartition("-")[0]
    return Path(spec.output.dir) / f"{slug}-split-{secrets.token_hex(2)}"


def run_split(
    parts: Sequence[SplitPart], folder: Path, narrator: Narrator, strict: bool = False
) -> list[RunResult]:
    """Run every part, one after the other, into `folder`; the others run though one fails.

    Raises:
        HarnessError: a part could not be planned: then none was started.
    """
    from harness.session import plan_run, run_spec

    specs = [_into(part.spec, folder) for part in parts]
    for spec in specs:
        plan_run(spec, name_run(folder, spec.name), strict)
    folder.mkdir(parents=True)
    point_latest(RunDir(folder))
    record: dict[str, Any] = {"version": 1, "group": folder.name, "started_ns": time.time_ns()}
    results: list[RunResult] = []
    rows: list[dict[str, str | None]] = []
    for number, (part, spec) in enumerate(zip(parts, specs, strict=True), 1):
        narrator.say(f"[{number}/{len(parts)}] with {part.label}")
        marks = {"sweep_id": folder.name, "cell": part.label, "repeat": 0}
        try:
            results.append(run_spec(spec, narrator, strict, marks))
            rows.append({"evidence": part.label, "run": results[-1].run.run_id})
        except HarnessError as error:
            narrator.say(f"{part.label}: {error.message}")
            rows.append({"evidence": part.label, "run": None, "problem": error.message})
        write_json(folder / SPLIT_JSON, {**record, "parts": rows})
    return results


def _into(spec: RunSpec, folder: Path) -> RunSpec:
    return spec.model_copy(update={"output": spec.output.model_copy(update={"dir": str(folder)})})


def split_runs(folder: Path) -> list[tuple[str, RunDir]]:
    """(evidence, run) of every part that ran; empty where the folder is no split."""
    try:
        parts = json.loads((folder / SPLIT_JSON).read_text())["parts"]
        named = [(str(part["evidence"]), part["run"]) for part in parts]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [(label, RunDir(folder / str(run))) for label, run in named if run]
