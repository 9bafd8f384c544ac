"""Waiting for the process that holds the ranks, and what its end says of the run."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from harness_schemas.errors import ExitCode
from harness_schemas.spi import LaunchResult, RankExit

TICK_SECONDS = 0.1

Ending = Literal["ended", "timed_out", "interrupted", "hung", "stopped"]

_ENDED_BY_US = {
    "timed_out": LaunchResult(ExitCode.TIMED_OUT, timed_out=True),
    "interrupted": LaunchResult(ExitCode.INTERRUPTED, interrupted=True),
    "hung": LaunchResult(ExitCode.TIMED_OUT, hung=True),
}


def wait_for(
    process: subprocess.Popen[bytes],
    timeout_s: float | None,
    progress: Iterable[Any] | None,
    stopped: Callable[[], bool] = lambda: False,
) -> Ending:
    """Wait until `process` ends or has to be ended, and say which; it is not ended here.

    `progress` is advanced every tick, and ends the wait where it yields True; so does `stopped`.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    ticks = iter(progress if progress is not None else ())
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TICK_SECONDS)
                return "ended"
            if next(ticks, None):
                return "hung"
            if stopped():
                return "stopped"
            if deadline is not None and time.monotonic() > deadline:
                return "timed_out"
    except KeyboardInterrupt:
        return "interrupted"


def result_of_ending(ending: Ending) -> LaunchResult | None:
    """The result of a run that the launcher ended; None where its ranks have to say it."""
    return _ENDED_BY_US.get(ending)


def result_of_failures(failures: Sequence[RankExit]) -> LaunchResult:
    """The result of ranks that failed, the cause first: its exit code, as a shell would give it."""
    return LaunchResult(shell_code(failures[0].exit_code), tuple(failures))


def shell_code(code: int) -> int:
    """128 + N for death by signal N, which Popen gives as -N."""
    return code if code > 0 else 128 - code
