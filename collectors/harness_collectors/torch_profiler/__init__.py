"""torch.profiler on a window of units: kernels on a GPU, operators on a CPU."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from harness_collectors.torch_profiler.capture import FORMAT, NAME, ProfilerHook
from harness_schemas.spi import (
    Availability,
    Batch,
    CapturePlan,
    CaptureRequest,
    IngestContext,
    Part,
    RankHookSpec,
)

__all__ = ["COLLECTOR", "ProfilerHook", "TorchProfiler"]

DEFAULTS: Final = {
    "steps": [],
    "first": 3,
    "count": 3,
    "every": None,
    "ranks": "all",
    "host": False,
}
_RANKS = re.compile(r"all|(?:(?:tp|stage):)?\d{1,6}(?:,\d{1,6})*")
_INJECTED: Final = ("CUDA_INJECTION64_PATH", "NVTX_INJECTION64_PATH")


class TorchProfiler:
    """Kernels, copies and operators of chosen units, recorded inside the ranks."""

    name = NAME
    title = "kernels of a window of steps (torch.profiler)"
    sources = (NAME,)

    def check(self, device: str) -> Availability:
        """Whether torch is there and nobody else holds the GPU's profiling interface."""
        if find_spec("torch") is None:
            return Availability(
                False, "torch is not installed", "pip install 'inference-harness[run]'"
            )
        injected = [name for name in _INJECTED if os.environ.get(name)]
        if device == "cuda" and injected:
            return Availability(
                False,
                f"another profiler is injected ({injected[0]} is set)",
                "run without it: CUPTI serves one profiler a process",
            )
        return Availability(True)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Which units of which ranks.

        `steps`: decode steps recorded in every batch (0: the prefill); or `first`, `count`,
        `every`: windows of `count` decode steps, the first at step `first` of the run (counted
        from 1, warm-up left out), then one each `every` steps. `ranks`: all, 0,2, tp:0 or
        stage:1. `host`: operators as well (slower; without a GPU they are all there is).

        Raises:
            ValueError: with a sentence per mistake, joined by newlines.
        """
        problems = [f"no option {name!r}" for name in sorted(set(given) - set(DEFAULTS))]
        options = {**DEFAULTS, **given}
        problems += _number_problems(options)
        if not isinstance(options["ranks"], str | int) or not _RANKS.fullmatch(
            str(options["ranks"])
        ):
            problems.append(f"ranks: {options['ranks']!r} is not all, 0,2, tp:0 or stage:1")
        if not isinstance(options["host"], bool):
            problems.append("host must be true or false")
        windowed = sorted({"first", "count", "every"} & set(given))
        if given.get("steps") and windowed:
            problems.append(f"give either steps or {', '.join(windowed)}")
        if problems:
            raise ValueError("\n".join(problems))
        return {**options, "ranks": str(options["ranks"])}

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """A hook in every rank; on a GPU it needs CUPTI for itself."""
        options = {**request.options, "device": request.device}
        hook = RankHookSpec("harness_collectors.torch_profiler:ProfilerHook", options)
        exclusive = frozenset({"cupti"} if request.device == "cuda" else ())
        # From torch 2.13 on Kineto reports every start and stop on stderr below this level.
        env = {"KINETO_LOG_LEVEL": "6"}
        return CapturePlan(env, rank_hooks=(hook,), exclusive=exclusive, switchable=True)

    def recognise(self, path: Path, head: bytes) -> bool:
        """A file of the hook's own format."""
        return f'"format":"{FORMAT}"'.encode() in head[:4096]

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Spans and collectives of every rank, in the order of ranks."""
        from harness_collectors.torch_profiler.rows import ingest_rank

        for path in sorted(files):
            yield from ingest_rank(path)

    def divide(self, files: Sequence[Path]) -> list[Part]:
        """A part a rank: each has a file of its own."""
        return [Part((path,)) for path in sorted(files)]

    def ingest_part(self, part: Part, context: IngestContext) -> Iterator[Batch]:
        """Rows of one rank."""
        return self.ingest(part.files, context)


def _number_problems(options: Mapping[str, Any]) -> Iterator[str]:
    steps = options["steps"]
    if not isinstance(steps, list) or not all(type(s) is int and s >= 0 for s in steps):
        yield "steps must be a list of step numbers"
    for name in ("first", "count", "every"):
        value = options[name]
        if (type(value) is not int or value < 1) and not (name == "every" and value is None):
            yield f"{name} must be a whole number from 1 on"
            return
    if options["every"] is not None and options["every"] <= options["count"]:
        yield "every must be larger than count: a window each step leaves no step undisturbed"


COLLECTOR = TorchProfiler()
