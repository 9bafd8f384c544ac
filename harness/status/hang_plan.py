"""What the watch against hangs needs in a run: a sampler on every node, a variable in the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.progress import Narrator
from harness.setup.capture import Capture
from harness.status.hang_watch import hint, watch
from harness_schemas import hang_files
from harness_schemas.rundir import RunDir
from harness_schemas.spi import CapturePlan, SamplerSpec
from harness_schemas.units import parse_duration_ns

NAME = "hang"
SAMPLER = "harness_collectors.stacks:StackSampler"


def limit_ns(text: str | None) -> int | None:
    """A limit as the specification has it, in ns; None: hangs are not watched for."""
    return None if text is None else parse_duration_ns(text)


def with_watch(capture: Capture, run_dir: Path, limit: int | None) -> Capture:
    """The capture with the watch's own wishes added; pure."""
    if limit is None:
        return capture
    options = {"limit_s": limit / 1e9}
    folder = str(RunDir(run_dir.absolute()).hang)
    plan = CapturePlan(env={hang_files.VARIABLE: folder}, samplers=(SamplerSpec(SAMPLER, options),))
    return replace(
        capture,
        plans={**capture.plans, NAME: plan},
        options={**capture.options, NAME: options},
    )


def beside(
    progress: Iterator[None], run: RunDir, limit: int | None, narrator: Narrator
) -> Iterator[bool]:
    """Narrate and watch; yields True once the run is to be ended as hung. Without a limit it only
    says when the run seems to stand."""
    watching = hint(run, narrator) if limit is None else watch(run, limit, narrator)
    for _ in progress:
        yield next(watching)
