"""Which collectors a run gets, and what they ask for: pure planning, so `--dry-run` shows it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.registry import collector_names, load_collector
from harness_schemas.errors import SpecError, UsageError
from harness_schemas.spec import RunSpec
from harness_schemas.spi import CapturePlan, CaptureRequest, RankHookSpec, SamplerSpec

DEFAULT_ON = ("app_timers", "psutil")
DEFAULT_ON_GPU = ("nvml", "topology")


@dataclass(frozen=True)
class Capture:
    """The collectors' wishes joined, and the state of those that cannot run."""

    plans: Mapping[str, CapturePlan] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skipped: tuple[dict[str, str | None], ...] = ()

    @property
    def env(self) -> dict[str, str]:
        """Environment that the ranks get besides their own."""
        return {key: value for plan in self.plans.values() for key, value in plan.env.items()}

    @property
    def argv_prefix(self) -> tuple[str, ...]:
        """Words put before each rank's command."""
        return tuple(word for plan in self.plans.values() for word in plan.argv_prefix)

    @property
    def hooks(self) -> tuple[RankHookSpec, ...]:
        """Hooks that ranks call around every unit."""
        return tuple(hook for plan in self.plans.values() for hook in plan.rank_hooks)

    @property
    def samplers(self) -> tuple[SamplerSpec, ...]:
        """Samplers that run once a node."""
        return tuple(sampler for plan in self.plans.values() for sampler in plan.samplers)

    def samplers_json(self) -> str:
        """The samplers as their agent takes them (`harness_collectors.agent --samplers`)."""
        return json.dumps([{"target": s.target, "options": dict(s.options)} for s in self.samplers])

    @property
    def notes(self) -> tuple[str, ...]:
        """What collectors say to the user: settings of theirs that were kept, and the cost."""
        return tuple(note for plan in self.plans.values() for note in plan.notes)

    def make_folders(self, artifacts: Path) -> None:
        """A folder a collector: the libraries that write there do not make their own."""
        for name in self.plans:
            (artifacts / name).mkdir(exist_ok=True)


def wanted_collectors(spec: RunSpec, device: str) -> dict[str, dict[str, Any]]:
    """Names and options of the collectors that a specification asks for.

    Raises:
        SpecError: an unknown name.
    """
    wanted: dict[str, dict[str, Any]] = {name: {} for name in DEFAULT_ON}
    if device == "cuda":
        wanted.update({name: {} for name in DEFAULT_ON_GPU})
    known = collector_names()
    problems = []
    for name, value in spec.collectors.items():
        if name not in known:
            problems.append((f"collectors.{name}", f"unknown; known are {', '.join(known)}"))
        elif value is False:
            wanted.pop(name, None)
        else:
            wanted[name] = value if isinstance(value, dict) else {}
    if problems:
        raise SpecError("collectors", problems)
    return wanted


def plan_capture(
    spec: RunSpec, device: str, run_dir: Path, strict: bool = False, refuse: bool = True
) -> Capture:
    """Ask every wanted collector whether it can run, and what it needs.

    A collector that cannot is recorded as skipped with its reason; with `strict` that is an
    error. Collectors that exclude each other are refused, unless `refuse` is false.

    Raises:
        SpecError: options that a collector refuses.
        UsageError: two collectors that exclude each other, or `strict` and one missing.
    """
    plans: dict[str, CapturePlan] = {}
    options: dict[str, Mapping[str, Any]] = {}
    skipped: list[dict[str, str | None]] = []
    problems: list[tuple[str, str]] = []
    for name, given in wanted_collectors(spec, device).items():
        collector = load_collector(name)
        try:
            options[name] = collector.options(given)
        except ValueError as error:
            problems += [(f"collectors.{name}", line) for line in str(error).splitlines()]
            continue
        answer = collector.check(device)
        if not answer.available:
            reason = "; ".join(text for text in (answer.reason, answer.hint) if text)
            skipped.append(_state(name, "skipped", reason))
            continue
        request = CaptureRequest(run_dir, spec.world_size, device, options[name])
        plans[name] = collector.prepare(request)
    problems += _cannot_be_switched(spec, plans)
    if problems:
        raise SpecError("collectors", problems)
    if strict and skipped:
        first = skipped[0]
        raise UsageError(
            f"collector {first['collector']} cannot run here: {first['reason']}",
            "leave it out, or run without --strict",
        )
    if refuse:
        _refuse_exclusive(plans)
    return Capture(plans, options, tuple(skipped))


def _cannot_be_switched(
    spec: RunSpec, plans: Mapping[str, CapturePlan]
) -> Iterator[tuple[str, str]]:
    """Collectors whose cost is asked for and that cannot be off in one batch and on in the next."""
    names = spec.generation.calibrate_collectors
    if names and not spec.generation.calibrate:
        yield "generation.calibrate_collectors", "needs generation.calibrate, the number of pairs"
    for name in names:
        plan = plans.get(name)
        if plan is None:
            yield "generation.calibrate_collectors", f"{name} does not run in this specification"
        elif not plan.switchable:
            yield (
                "generation.calibrate_collectors",
                f"{name} is on for a whole run: compare two, "
                f"harness sweep SPEC --grid collectors.{name}=false,true",
            )


ON_OTHER_NODES = ("nccl_log",)


def plan_wrap_capture(run_dir: Path, elsewhere: bool) -> Capture:
    """The collectors around a wrapped command: the default ones, and NVML where it answers.

    `elsewhere`: the command runs on other nodes, as under Slurm. What this node lacks may be
    there, so everything is tried, NCCL's log too.
    """
    plans: dict[str, CapturePlan] = {}
    options: dict[str, Mapping[str, Any]] = {}
    skipped: list[dict[str, str | None]] = []
    for name in (*DEFAULT_ON, *DEFAULT_ON_GPU, *(ON_OTHER_NODES if elsewhere else ())):
        collector = load_collector(name)
        answer = collector.check("auto")
        if not answer.available and not elsewhere:
            skipped.append(_state(name, "skipped", answer.reason))
            continue
        options[name] = collector.options({})
        plans[name] = collector.prepare(CaptureRequest(run_dir, 0, "auto", options[name]))
    return Capture(plans, options, tuple(skipped))


def _state(name: str, state: str, reason: str) -> dict[str, str | None]:
    return {"collector": name, "host": socket.gethostname(), "state": state, "reason": reason}


def _refuse_exclusive(plans: Mapping[str, CapturePlan]) -> None:
    holders: dict[str, str] = {}
    for name, plan in plans.items():
        for resource in plan.exclusive:
            if resource in holders:
                raise UsageError(
                    f"collectors {holders[resource]} and {name} cannot run together: "
                    f"both need {resource} for themselves",
                    "switch one of them off, or `harness run SPEC --split` makes a run with each",
                )
            holders[resource] = name
