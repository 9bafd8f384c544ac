"""Everything known of an end in words: facts as the table of rules knows them, then the text."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from typing import Final

from harness_analysis.verdict.launchers import SAYS_LITTLE, first_exits
from harness_analysis.verdict.model import (
    CONSEQUENCE,
    GOOD_STATES,
    OOM_EXIT,
    StepState,
    TextLine,
    VerdictEvidence,
    latest_attempt,
    lines_of,
)
from harness_schemas.log_prefix import peeled
from harness_schemas.spi import RankExit

_LONGEST_LINE: Final = 4000
_MOST_LINES: Final = 20_000
_CHATTER = re.compile(r"\bNCCL INFO\b")
"""NCCL tries things that need not work, and says so at this level: never a cause."""
_GLUED: Final = 160
"""Longer than what stands before it in a line of its own: another program's line, joined to it."""
_HEAD: Final = "Traceback (most recent call last):"
"""Where a rank's line ends with this, the exception below may have no head of its own."""
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:: |(?:Error|Exception)\s*$)")


def in_words(evidence: VerdictEvidence) -> Iterator[TextLine]:
    """Facts in the words that the rules know, then the text as it is."""
    if evidence.interrupted:
        yield TextLine("launcher", "interrupted by the user")
    if evidence.hang:
        yield TextLine("launcher", evidence.hang.text)
    if evidence.timed_out:
        yield TextLine("launcher", "the time limit of the run was reached")
    if evidence.oom_kills:
        yield TextLine("cgroup", f"memory.events: oom_kill {evidence.oom_kills}")
    # Steps of ranks first: the rows of the script and the job only sum up what became of them.
    for step in sorted(latest_attempt(evidence.steps), key=_sums_up):
        if step.state not in GOOD_STATES or step.derived_exit == OOM_EXIT:
            yield TextLine("sacct", _step_text(step))
    for end in evidence.rank_exits:
        if end.message != CONSEQUENCE:
            yield TextLine("exit", _exit_text(end), end.rank)
            yield from lines_of("stderr", end.message, end.rank)
    for end in _summed_up(evidence):
        if end.exit_code < 0 and end.exit_code not in SAYS_LITTLE:
            yield TextLine("exit", _exit_text(end), end.rank)
    yield from _text_lines(evidence.lines[-_MOST_LINES:])
    if evidence.exit_code:
        yield TextLine("launcher", f"the workload ended with code {evidence.exit_code}")


def _text_lines(lines: Sequence[TextLine]) -> Iterator[TextLine]:
    """Lines without what frameworks put before them, under the rank that this names."""
    body: int | None = None
    for line in lines:
        said = line.text[:_LONGEST_LINE]
        if chatter := _CHATTER.search(said):
            said = said[: chatter.start()]
        text, named = peeled(said)
        if chatter and len(text) < _GLUED:
            continue
        rank = named if line.rank is None else line.rank
        if rank is None and _EXCEPTION.match(text):
            rank = body
        yield TextLine(line.source, text, rank)
        if not _is_indented(said, text):
            body = rank if text.rstrip().endswith(_HEAD) else None


def _is_indented(line: str, text: str) -> bool:
    """Whether a line was indented before a prefix, with the blanks behind it, was taken off."""
    return text[:1].isspace() or line.removesuffix(text)[-2:].isspace()


def failed_ranks(evidence: VerdictEvidence) -> list[int]:
    """Ranks that failed on their own, the cause of the others first."""
    ends = evidence.rank_exits or _summed_up(evidence)
    return [end.rank for end in ends if end.message != CONSEQUENCE]


def _summed_up(evidence: VerdictEvidence) -> list[RankExit]:
    """Ranks that failed first as a launcher's text has it, where nothing better is known."""
    return [] if evidence.rank_exits else first_exits(line.text for line in evidence.lines)


def _sums_up(step: StepState) -> int:
    """0 for a step of ranks, 1 for the script, 2 for the job."""
    if step.step_id is None:
        return 2
    return 0 if step.step_id[:1].isdecimal() else 1


def _step_text(step: StepState) -> str:
    whole = step.step_id is None
    who = f"job {step.job_id}" if whole else f"step {step.job_id}.{step.step_id}"
    state = step.state or "of unknown state"
    ended = "" if step.exit_code is None else f", exit {step.exit_code}:{step.signal or 0}"
    told = step.derived_exit not in (None, "0:0")
    derived = f", derived exit {step.derived_exit}" if told else ""
    reason = f", reason {step.reason}" if step.reason else ""
    return f"{who}: {state}{ended}{derived}{reason}"


def _exit_text(end: RankExit) -> str:
    if end.exit_code >= 0:
        how = f"exited with code {end.exit_code}"
    else:
        try:
            how = f"was killed by {signal.Signals(-end.exit_code).name}"
        except ValueError:
            how = f"was killed by signal {-end.exit_code}"
    rest = end.message.removeprefix(how.removeprefix("was ")).removeprefix(": ")
    return f"rank {end.rank} {how}" + (f": {rest}" if rest else "")
