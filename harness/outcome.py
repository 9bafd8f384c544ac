"""How a run ended: from exit codes, error lines and logs to a verdict and an exit code."""

from __future__ import annotations

from dataclasses import dataclass

from harness_schemas.errors import ExitCode
from harness_schemas.rundir import RunDir
from harness_schemas.spi import LaunchResult

LOG_TAIL_BYTES = 16 << 10


@dataclass(frozen=True)
class Outcome:
    """What run.json and the database say about the end of a run."""

    status: str
    verdict: str
    detail: str | None
    exit_code: int
    rank: int | None = None
    tail: tuple[str, ...] = ()


def judge_run(run: RunDir, result: LaunchResult) -> Outcome:
    """Judge how the workload ended."""
    if result.timed_out:
        detail = "the run took longer than launcher.timeout; raise it, or look for a hang"
        return Outcome("failed", "timeout", detail, ExitCode.TIMED_OUT)
    if result.interrupted:
        return Outcome("failed", "interrupted", "stopped by the user", ExitCode.INTERRUPTED)
    if result.exit_code == 0:
        return Outcome("finished", "ok", None, ExitCode.OK)
    first = result.failures[0] if result.failures else None
    rank = first.rank if first else None
    tail = log_tail(run, rank)
    said = first.message if first else "the launcher failed"
    ended = f"rank {rank} ended first: {said}" if first else said
    return Outcome("failed", "rank_failed", ended, result.exit_code, rank, tail)


def log_tail(run: RunDir, rank: int | None, lines: int = 12) -> tuple[str, ...]:
    """The last lines of a rank's stderr, or of the launcher's."""
    path = run.logs / "launcher.err" if rank is None else run.rank_log(rank, "err")
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line for line in text.splitlines() if line.strip())[-lines:]
