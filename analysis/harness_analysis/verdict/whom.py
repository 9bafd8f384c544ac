"""Whom a verdict suspects: by the way that its rule names (`suspect` in `rules.toml`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from harness_analysis.verdict.launchers import task_not_terminated, tasks_of
from harness_analysis.verdict.model import TextLine, VerdictEvidence
from harness_analysis.verdict.rules import Rule
from harness_analysis.verdict.suspects import (
    Suspects,
    suspects_from_dumps,
    suspects_from_progress,
    suspects_from_ras,
    suspects_from_reports,
    suspects_from_stalls,
    suspects_from_watchdog,
)
from harness_analysis.verdict.wording import failed_ranks

_AGENT: Final = re.compile(r"torch[./]distributed[./]elastic[./]|\(local_rank: \d+\)")
_NUMBER: Final = re.compile(r"0x[0-9a-f]+|\d+")


def suspects_of(rule: Rule, matched: Sequence[TextLine], evidence: VerdictEvidence) -> Suspects:
    """The ranks that `rule` suspects, of the lines that it `matched`, where they can be named."""
    if rule.suspect == "none":
        return Suspects()
    if rule.suspect == "missing":
        return _missing(evidence)
    if rule.suspect == "tasks" and (found := _tasks(rule, matched, evidence)).ranks:
        return found
    # What all say, the first to say it started: where that is nobody known, nobody is named.
    ranks = (rule.rank_of(line) for line in (matched[:1] if rule.echo else matched))
    first = next((rank for rank in ranks if rank is not None), None)
    failed = failed_ranks(evidence)
    if first is None and failed:
        return Suspects((failed[0],), "failed first")
    if first is None or (not failed and _said_by_others(rule, matched, first)):
        return Suspects()
    return Suspects((first,))


def _said_by_others(rule: Rule, matched: Sequence[TextLine], rank: int) -> bool:
    """Whether other ranks say what this one says: whose line came first in a file tells nothing."""
    said = [(rule.rank_of(line), _NUMBER.sub("#", line.text)) for line in matched]
    first = next(text for who, text in said if who == rank)
    return any(who not in (None, rank) and (rule.echo or text == first) for who, text in said)


def _missing(evidence: VerdictEvidence) -> Suspects:
    """The ranks that others waited for, from the best that tells."""
    if evidence.hang:
        return Suspects(evidence.hang.suspects)
    if evidence.standing.ranks:
        return evidence.standing
    if (found := suspects_from_progress(evidence.progress)).ranks:
        return found
    if (found := suspects_from_dumps((line.rank, line.text) for line in evidence.lines)).ranks:
        return found
    texts = [line.text for line in evidence.lines]
    if (found := suspects_from_reports(texts)).ranks:
        return found
    if (found := suspects_from_ras(texts)).ranks:
        return found
    if (found := suspects_from_stalls(texts)).ranks:
        return found
    return suspects_from_watchdog(texts, evidence.world_size)


def _tasks(rule: Rule, matched: Sequence[TextLine], evidence: VerdictEvidence) -> Suspects:
    """The tasks that srun names, those that memory ran out for before all others.

    Under torchrun a task is the agent of a node, and no rank.
    """
    if any(_AGENT.search(line.text) for line in evidence.lines):
        return Suspects()
    if rule.verdict == "oom_host":
        for_memory = [line.text for line in evidence.lines if "Out Of Memory" in line.text]
        if tasks := tasks_of(for_memory, first_only=False):
            return Suspects(tasks, "named by srun as out of memory")
        matched = evidence.lines
    tasks = tasks_of([line.text for line in matched], first_only=True)
    if not tasks and rule.id == "task-failure":
        spared = task_not_terminated(line.text for line in evidence.lines)
        return Suspects(spared, "not among those that Slurm ended for it")
    return Suspects(tasks, "named by srun first") if tasks else Suspects()
