"""What is known of an end, and the verdict over it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from harness_analysis.hang.model import DeclaredHang
from harness_analysis.verdict.suspects import CollectiveProgress, Suspects
from harness_schemas.spi import RankExit

VERDICTS: Final = (
    "ok",
    "rank_failed",
    "oom_host",
    "oom_gpu",
    "timeout",
    "cancelled",
    "preempted",
    "node_fail",
    "no_driver",
    "hang",
    "nccl_timeout",
    "nccl_error",
    "xid",
    "fell_off_bus",
    "sacct_unavailable",
    "interrupted",
    "unknown",
)
SURVIVED: Final = "survived"
"""Source of lines about a failure after which the work went on: asked where all else is vague."""
TEXT_SOURCES: Final = frozenset({"stderr", "kernel", "nccl", "spool", "log"})
FACT_SOURCES: Final = frozenset({"launcher", "sacct", "cgroup", "exit"})
GOOD_STATES: Final = frozenset({"COMPLETED"})
OOM_EXIT: Final = "0:125"
"""Derived exit code of a job of which Slurm killed a step for memory."""
CONSEQUENCE: Final = "ended because another rank had failed"
"""Message of a rank that its launcher ended: that rank is no cause."""


@dataclass(frozen=True)
class TextLine:
    """A line that some program wrote. `source` is one of `TEXT_SOURCES`; `rank`: whose log."""

    source: str
    text: str
    rank: int | None = None
    place: int = field(default=0, compare=False)
    """Its number among all lines: earlier ones of one file were written earlier."""


@dataclass(frozen=True)
class StepState:
    """A row of `slurm_steps`, as far as it says how it ended. `step_id` None: the job itself."""

    job_id: str
    step_id: str | None
    state: str | None
    exit_code: int | None = None
    signal: int | None = None
    name: str | None = None
    reason: str | None = None
    attempt: int | None = None
    derived_exit: str | None = None


@dataclass(frozen=True)
class VerdictEvidence:
    """All that is known of an end. What is not known is None or empty.

    `exit_code` is the workload's. `rank_exits` holds the ranks that failed, the cause first.
    `oom_kills`: rise of `oom_kill` in the cgroup's memory.events over the run. `hang`: one that
    the harness declared. `standing`: for whom the ranks' pages say that the others waited.
    """

    exit_code: int | None = None
    timed_out: bool = False
    interrupted: bool = False
    world_size: int | None = None
    rank_exits: tuple[RankExit, ...] = ()
    lines: tuple[TextLine, ...] = ()
    steps: tuple[StepState, ...] = ()
    oom_kills: int | None = None
    progress: tuple[CollectiveProgress, ...] = ()
    hang: DeclaredHang | None = None
    standing: Suspects = field(default_factory=Suspects)


@dataclass(frozen=True)
class Verdict:
    """One of `VERDICTS`, the line behind it and its source, the suspects, and what to do.

    `suspect` is set where exactly one rank is suspected. `also`: other verdicts whose rules
    matched something, in the order of the rules.
    """

    name: str
    evidence: str = ""
    source: str = ""
    suspects: tuple[int, ...] = ()
    why_suspect: str = ""
    remedy: str = ""
    rule: str = ""
    also: tuple[str, ...] = ()

    @property
    def suspect(self) -> int | None:
        """The suspect rank; None where none, or several, can be named."""
        return self.suspects[0] if len(self.suspects) == 1 else None

    def detail(self) -> str | None:
        """One paragraph for `runs.verdict_detail`; None where there is nothing to say."""
        parts = []
        if self.evidence:
            parts.append(f"{self.source}: {self.evidence}" if self.source else self.evidence)
        if self.suspects:
            noun = "rank" if len(self.suspects) == 1 else "ranks"
            named = ", ".join(map(str, self.suspects))
            why = f" ({self.why_suspect})" if self.why_suspect else ""
            parts.append(f"suspect: {noun} {named}{why}")
        parts += [self.remedy] if self.remedy else []
        return "; ".join(parts) or None


def lines_of(source: str, text: str, rank: int | None = None) -> tuple[TextLine, ...]:
    """The lines of a tail of a log, empty ones left out."""
    return tuple(TextLine(source, line, rank) for line in text.splitlines() if line.strip())


def latest_attempt(steps: Iterable[StepState]) -> list[StepState]:
    """Rows of the last run of each job: an earlier one that was requeued is no verdict."""
    listed = list(steps)
    last: dict[str, int] = {}
    for step in listed:
        last[step.job_id] = max(last.get(step.job_id, 0), step.attempt or 0)
    return [step for step in listed if step.attempt in (None, last[step.job_id])]
