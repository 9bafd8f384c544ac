"""Which of several failed ranks is the cause, and what it said last."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness_schemas.rundir import RunDir
from harness_schemas.spi import RankExit

TAIL_BYTES = 16384

# What gloo, NCCL, torch's store and the kernel say to those whose peer has gone.
_PEER_GONE = re.compile(
    r"connection (was )?(closed|reset|refused|aborted)|closed by peer|broken pipe"
    r"|remote process exited|nccl\w*error|dist(backend|network|store)error|gloo"
    r"|wait timeout|timed out waiting|socket (timeout|error)|recvvalue failed",
    re.IGNORECASE,
)
# What a process says of the signal that ends it; anything else it said before is no reason.
_CRASH = re.compile(
    r"what\(\):|terminate called|fatal|segmentation|assert|abort|out of memory|\berror\b",
    re.IGNORECASE,
)
_EXCEPTION = re.compile(r"^(\[rank\d+\]:\s*)?[\w.]*(Error|Exception|Interrupt|Exit)\b")


@dataclass(frozen=True)
class Ended:
    """A rank that did not end with 0: its exit code (negative: signal) and when it ended.

    `error` is what the rank wrote into torch's error file; empty if it wrote none.
    """

    rank: int
    exit_code: int
    ended_ns: int
    error: str = ""


def explain(ended: Sequence[Ended], run: RunDir, shutdown_s: float) -> list[RankExit]:
    """Failures with the root cause first.

    A rank that failed by itself comes before those whose peer had gone, and those before the
    ones that were ended because another had failed; then the earlier first. `shutdown_s`:
    seconds between the agent's SIGTERM and its SIGKILL.
    """
    if not ended:
        return []
    first_ns = min(one.ended_ns for one in ended)
    keyed = []
    for one in ended:
        by_agent = _ended_by_agent(one, first_ns, shutdown_s)
        said = one.error or last_words(run.rank_log(one.rank, "err"), one.exit_code < 0)
        order = 2 if by_agent else int(bool(_PEER_GONE.search(said)))
        message = "ended because another rank had failed" if by_agent else _message(one, said)
        keyed.append(
            ((order, one.ended_ns), RankExit(one.rank, one.exit_code, message, one.ended_ns))
        )
    return [failure for _, failure in sorted(keyed, key=lambda pair: pair[0])]


def _ended_by_agent(one: Ended, first_ns: int, shutdown_s: float) -> bool:
    """The agent signals nobody before the first failure, and kills `shutdown_s` after it."""
    if one.ended_ns == first_ns or one.error:
        return False
    if one.exit_code == -signal.SIGTERM:
        return True
    late = one.ended_ns - first_ns > (shutdown_s - 0.5) * 1e9
    return one.exit_code == -signal.SIGKILL and late


def _message(one: Ended, said: str) -> str:
    if one.exit_code >= 0 or one.error:
        return said or f"exited with code {one.exit_code}"
    try:
        name = signal.Signals(-one.exit_code).name
    except ValueError:
        name = f"signal {-one.exit_code}"
    return f"killed by {name}" + (f": {said}" if said else "")


def last_words(path: Path, killed: bool = False) -> str:
    """The last exception line of a log's last 16 KiB, else its last line; "" if there is none.

    `killed`: by a signal; then a line without a word of failure is none.
    """
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    raised = [line for line in lines if _EXCEPTION.match(line)]
    if killed:
        lines = [line for line in lines if _CRASH.search(line) or _PEER_GONE.search(line)]
    return (raised or lines or [""])[-1][:1000]
