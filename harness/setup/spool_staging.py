"""What a run on the nodes' own disks needs beside its ranks: somebody who brings the spools."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

from harness.progress import Narrator
from harness.setup.capture import Capture
from harness_runners.plan import StagePlan
from harness_schemas.spi import CapturePlan, SamplerSpec

NAME = "stage_spool"
TARGET = "harness_collectors.spool_mover:SpoolMover"
PATIENCE_S = 70.0
"""How long the last spools of a node may take on their way."""


def with_mover(capture: Capture, stage: StagePlan, every: str) -> Capture:
    """The samplers, and on every node one that brings the spools; unchanged where none are
    staged. Pure."""
    if stage.spool is None:
        return capture
    options = {"source": stage.spool, "every": every}
    plan = CapturePlan(samplers=(SamplerSpec(TARGET, options),))
    return replace(
        capture,
        plans={**capture.plans, NAME: plan},
        options={**capture.options, NAME: options},
    )


def patience_s(capture: Capture, usual: float) -> float:
    """How long the samplers' processes are given to end."""
    return PATIENCE_S if NAME in capture.plans else usual


def say_what_stayed(stage: StagePlan, narrator: Narrator) -> None:
    """Where spools still lie on this node, their bringer having failed or been killed."""
    if stage.spool is None:
        return
    folder = Path(stage.spool) / socket.gethostname()
    if folder.exists():
        narrator.say(f"records stayed in {folder}: copy its files to the run's spans/")
