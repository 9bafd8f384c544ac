"""Asking Slurm's controller, seldom: a cluster's controller is shared by everybody on it."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness_schemas.errors import HarnessError, LaunchError, UsageError

SQUEUE_SECONDS = 5.0
"""Between two questions about all jobs, at least."""
ANSWER_SECONDS = 20.0
ENDED = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "GONE",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
GONE = "GONE"
"""The controller no longer knows the job: it ended some minutes ago."""
_SUBMITTED = re.compile(
    r"^(?:Submitted batch job )?(?P<id>\d+)(?:(?: on cluster |;)(?P<cluster>[\w.-]+))?\s*$", re.M
)


@dataclass(frozen=True)
class JobState:
    """What squeue says of a job: its state, and why it waits or where it runs."""

    state: str
    reason: str = ""

    @property
    def active(self) -> bool:
        """Whether it may still write."""
        return self.state not in ENDED


def parse_submitted(text: str) -> tuple[str, str | None]:
    """Job id and cluster from what sbatch printed, with `--parsable` or without.

    Raises:
        LaunchError: there is no job id in it.
    """
    match = _SUBMITTED.search(text)
    if match is None:
        raise LaunchError(f"sbatch did not say a job id: {text.strip()[:200]!r}")
    return match["id"], match["cluster"]


class Controller:
    """One squeue for all jobs, at most every 5 s; sbatch and scancel when told to."""

    def __init__(
        self, cluster: str | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.cluster = cluster
        self._clock = clock
        self._asked = -SQUEUE_SECONDS

    def submit(self, argv: Sequence[str], cwd: str | None = None) -> tuple[str, str | None, str]:
        """Run an sbatch line; returns job id, cluster and what it printed.

        Raises:
            UsageError: sbatch refused it.
            LaunchError: there is no sbatch, or no answer.
        """
        env = {name: value for name, value in os.environ.items() if name != "SBATCH_WAIT"}
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=120, cwd=cwd, env=env
            )
        except FileNotFoundError:
            raise LaunchError(
                "sbatch is not on PATH", "run this where Slurm's commands are (a login node)"
            ) from None
        except subprocess.TimeoutExpired:
            raise LaunchError("sbatch gave no answer for 120 s") from None
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise UsageError("\n  ".join(said) or f"sbatch returned {done.returncode}")
        job, cluster = parse_submitted(done.stdout)
        self.cluster = cluster or self.cluster
        return job, cluster, done.stdout

    def due(self) -> float:
        """Seconds until the controller may be asked again."""
        return max(0.0, self._asked + SQUEUE_SECONDS - self._clock())

    def states(self, jobs: Sequence[str]) -> dict[str, JobState] | None:
        """The state of every job, tasks of arrays by `id_task`; None: too early, or no answer."""
        if self.due() > 0:
            return None
        self._asked = self._clock()
        ids = ",".join(sorted({job.partition("_")[0] for job in jobs}))
        argv = ("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r|%N", *self._where(), "-j", ids)
        try:
            done = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                timeout=ANSWER_SECONDS,
                env={**os.environ, "LC_ALL": "C"},
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode != 0 and "Invalid job id" not in done.stderr:
            return None
        found = dict(_state(line) for line in done.stdout.splitlines() if line.count("|") >= 3)
        return {job: found.get(job, JobState(GONE)) for job in jobs}

    def cancel(self, job: str) -> None:
        """Cancel a job.

        Raises:
            HarnessError: scancel failed.
        """
        try:
            done = subprocess.run(
                ("scancel", *self._where(), job), capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HarnessError(f"scancel {job}: {error}") from None
        if done.returncode != 0:
            raise HarnessError(f"scancel {job}: {done.stderr.strip()[:300]}")

    def _where(self) -> tuple[str, ...]:
        return ("-M", self.cluster) if self.cluster else ()


def _state(line: str) -> tuple[str, JobState]:
    job, state, reason, nodes = line.strip().split("|", 3)
    told = nodes if state == "RUNNING" else reason
    return job, JobState(state, "" if told == "None" else told)
