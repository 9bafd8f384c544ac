"""Why a run ended as it did: a verdict, the line it rests on, the rank, and what to do.

Everything known is put into words (`verdict/rules.toml` explains them) and an ordered table of
rules is asked: the first rule that matches any line decides, so causes stand above consequences.
"""

from __future__ import annotations

import re
import signal
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from typing import Final

from harness_analysis.hang.model import DeclaredHang
from harness_analysis.verdict.launchers import SAYS_LITTLE, first_exits, tasks_of
from harness_analysis.verdict.mentions import said
from harness_analysis.verdict.suspects import (
    CollectiveProgress,
    Suspects,
    suspects_from_dumps,
    suspects_from_progress,
    suspects_from_ras,
    suspects_from_watchdog,
)
from harness_schemas.log_prefix import peeled
from harness_schemas.redact import redact
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
CONSEQUENCE: Final = "ended because another rank had failed"
"""Message of a rank that its launcher ended: that rank is no cause."""
NOTHING_MORE: Final = "Nothing says more than the exit code"
"""Begins the remedy of the last rule: whatever says more replaces it."""
SAMPLERS: Final = "harness-samplers"
"""Name of the step that samples beside the ranks (harness_slurm.step.launcher)."""
_LONGEST_LINE: Final = 4000
_MOST_LINES: Final = 20_000
_SHOWN: Final = 400
_OOM_EXIT: Final = "0:125"
_GOOD_STATES: Final = frozenset({"COMPLETED"})
_CHATTER = re.compile(r"\bNCCL INFO\b")
"""NCCL tries things that need not work, and says so at this level: never a cause."""
_HEADS: Final = ("Scheduler hit an exception: Traceback",)
"""A rank's line whose next, the exception, has no head of its own."""
_ANYTHING = re.compile("")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\ufffc]+")


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


@dataclass(frozen=True)
class Rule:
    """A line of the table; the keys are explained at its head."""

    id: str
    verdict: str
    pattern: re.Pattern[str]
    sources: frozenset[str]
    remedy: str
    suspect: str
    echo: bool
    yields: bool
    overrules: bool
    vague: bool


def judge(evidence: VerdictEvidence, rules: Sequence[Rule] | None = None) -> Verdict:
    """Why the run ended as it did. Pure: the same evidence gives the same verdict."""
    evidence = replace(evidence, steps=tuple(_believed(evidence)))
    if _went_well(evidence):
        return Verdict("ok", also=("oom_host",) if evidence.oom_kills else ())
    outlived = [line for line in evidence.lines if line.source == SURVIVED]
    rules = load_rules() if rules is None else rules
    whole, evidence = (
        evidence,
        replace(evidence, lines=tuple(line for line in evidence.lines if line.source != SURVIVED)),
    )
    hits = _hits(rules, evidence)
    if hits and outlived and _deciding(hits)[0].vague:
        again = replace(whole, lines=tuple(map(_as_text, whole.lines)))
        known = _hits(rules, again)
        if not _deciding(known)[0].vague:
            hits, evidence = known, again
    if not hits:
        return _unexplained(evidence, outlived)
    rule, matched = _deciding(hits)
    suspects = _suspects(rule, matched, evidence)
    line = next((x for x in matched if _rank_of(rule, x) in suspects.ranks), matched[0])
    others = dict.fromkeys(other.verdict for other in hits)
    return Verdict(
        rule.verdict,
        _shown(line.text, rule.pattern),
        _named_source(line),
        suspects.ranks,
        suspects.why,
        _remedy(rule, suspects, evidence),
        rule.id,
        tuple(name for name in others if name != rule.verdict),
    )


def _as_text(line: TextLine) -> TextLine:
    return replace(line, source="log") if line.source == SURVIVED else line


def _unexplained(evidence: VerdictEvidence, outlived: Sequence[TextLine]) -> Verdict:
    """No rule speaks: what failed on the way, if anything, was no end."""
    if outlived:
        shown = _shown(outlived[0].text, _ANYTHING)
        remedy = (
            f"What failed on the way was survived, and nothing says that the run failed: {shown}"
        )
        return Verdict("unknown", remedy=remedy)
    remedy = "nothing in the evidence says why: read the logs of the ranks"
    return Verdict("unknown", remedy=remedy if evidence != VerdictEvidence() else "")


def _remedy(rule: Rule, suspects: Suspects, evidence: VerdictEvidence) -> str:
    """What to do, with the file of the one rank that it is about."""
    if evidence.hang and rule.verdict == "hang" and evidence.hang.remedy:
        return evidence.hang.remedy
    only = f"{suspects.ranks[0]:05d}" if len(suspects.ranks) == 1 else "NNNNN"
    return rule.remedy.replace("NNNNN", only)


def lines_of(source: str, text: str, rank: int | None = None) -> tuple[TextLine, ...]:
    """The lines of a tail of a log, empty ones left out."""
    return tuple(TextLine(source, line, rank) for line in text.splitlines() if line.strip())


def _believed(evidence: VerdictEvidence) -> Iterator[StepState]:
    """Steps that bear on the run: not the samplers', and no failure that the run itself denies.

    A job's state follows from its script's exit code: where that is known to be 0 and the
    accounting has FAILED, the accounting is wrong.
    """
    denied = evidence.exit_code == 0 and any(
        step.step_id is None and step.state == "FAILED" for step in latest_attempt(evidence.steps)
    )
    for step in evidence.steps:
        if step.name != SAMPLERS and not (denied and step.state == "FAILED"):
            yield step


def _went_well(evidence: VerdictEvidence) -> bool:
    """Whether what is known of the end is all good; the text is not asked then."""
    if evidence.timed_out or evidence.interrupted or evidence.hang or evidence.rank_exits:
        return False
    steps = latest_attempt(evidence.steps)
    states = {step.state for step in steps}
    if any(step.derived_exit == _OOM_EXIT for step in steps):
        return False
    if evidence.exit_code is None:
        return bool(states) and states <= _GOOD_STATES
    return evidence.exit_code == 0 and states <= _GOOD_STATES | {"RUNNING", "COMPLETING", None}


def latest_attempt(steps: Iterable[StepState]) -> list[StepState]:
    """Rows of the last run of each job: an earlier one that was requeued is no verdict."""
    listed = list(steps)
    last: dict[str, int] = {}
    for step in listed:
        last[step.job_id] = max(last.get(step.job_id, 0), step.attempt or 0)
    return [step for step in listed if step.attempt in (None, last[step.job_id])]


def _all_lines(evidence: VerdictEvidence) -> Iterator[TextLine]:
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
        if step.state not in _GOOD_STATES or step.derived_exit == _OOM_EXIT:
            yield TextLine("sacct", _step_text(step))
    for end in evidence.rank_exits:
        if end.message != CONSEQUENCE:
            yield TextLine("exit", _exit_text(end), end.rank)
            yield from lines_of("stderr", end.message, end.rank)
    for end in _summed_up(evidence):
        if end.exit_code < 0 and end.exit_code not in SAYS_LITTLE:
            yield TextLine("exit", _exit_text(end), end.rank)
    body: int | None = None
    for line in evidence.lines[-_MOST_LINES:]:
        if _CHATTER.search(line.text):
            continue
        text, named = peeled(line.text[:_LONGEST_LINE])
        rank = named if line.rank is None else line.rank
        yield TextLine(line.source, text, body if rank is None else rank)
        if not text[:1].isspace():
            body = rank if text.startswith(_HEADS) else None
    if evidence.exit_code:
        yield TextLine("launcher", f"the workload ended with code {evidence.exit_code}")


def _summed_up(evidence: VerdictEvidence) -> list[RankExit]:
    """Ranks that failed first as a launcher's text has it, where nothing better is known."""
    return [] if evidence.rank_exits else first_exits(line.text for line in evidence.lines)


def _sums_up(step: StepState) -> int:
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
    said = end.message.removeprefix(how.removeprefix("was ")).removeprefix(": ")
    return f"rank {end.rank} {how}" + (f": {said}" if said else "")


def _hits(rules: Sequence[Rule], evidence: VerdictEvidence) -> dict[Rule, list[TextLine]]:
    """The lines by the first rule that matches them, in the order of the rules.

    Of a rule's lines, those of the rank that ended first come first.
    """
    causes = _causes(evidence)
    order: dict[int | None, int] = {rank: place for place, rank in enumerate(causes)}
    lines = [replace(line, place=place) for place, line in enumerate(_all_lines(evidence))]
    hits: dict[Rule, list[TextLine]] = {}
    for rule in rules:
        allowed = {None, causes[0]} if rule.echo and causes else None
        matched = [
            line
            for line in lines
            if line.source in rule.sources
            and (allowed is None or line.rank in allowed)
            and said(rule.pattern, line.text)
        ]
        if matched:
            hits[rule] = sorted(matched, key=lambda line: order.get(line.rank, len(order)))
            lines = [line for line in lines if line not in set(matched)]
    return hits


def _deciding(hits: dict[Rule, list[TextLine]]) -> tuple[Rule, list[TextLine]]:
    """The first rule; where that may be the echo of an exception, the exception's.

    An exception comes before what it caused in others: earlier in the text, or in a rank that
    does not itself report the other.
    """
    rule, matched = next(iter(hits.items()))
    if not rule.yields:
        return rule, matched
    first = min(line.place for line in matched)
    ranks = {line.rank for line in matched}
    for cause, lines in hits.items():
        if cause.overrules:
            earlier = [
                line for line in lines if line.place < first or line.rank not in {None, *ranks}
            ]
            if earlier:
                return cause, earlier
    return rule, matched


def _causes(evidence: VerdictEvidence) -> list[int]:
    ends = evidence.rank_exits or _summed_up(evidence)
    return [end.rank for end in ends if end.message != CONSEQUENCE]


def _suspects(rule: Rule, matched: Sequence[TextLine], evidence: VerdictEvidence) -> Suspects:
    if rule.suspect == "missing" and evidence.hang:
        return Suspects(evidence.hang.suspects)
    if rule.suspect == "missing" and evidence.standing.ranks:
        return evidence.standing
    if rule.suspect == "missing":
        found = suspects_from_progress(evidence.progress)
        texts = [line.text for line in evidence.lines]
        said_by = [(line.rank, line.text) for line in evidence.lines]
        found = found if found.ranks else suspects_from_dumps(said_by)
        found = found if found.ranks else suspects_from_ras(texts)
        return found if found.ranks else suspects_from_watchdog(texts, evidence.world_size)
    if rule.suspect == "tasks":
        for_memory = [line.text for line in evidence.lines if "Out Of Memory" in line.text]
        if rule.verdict == "oom_host" and (tasks := tasks_of(for_memory, first_only=False)):
            return Suspects(tasks, "named by srun as out of memory")
        if rule.verdict == "oom_host":
            matched = evidence.lines
        if tasks := tasks_of([line.text for line in matched], first_only=True):
            return Suspects(tasks, "named by srun first")
    if rule.suspect == "none":
        return Suspects()
    # What all say, the first to say it started: where that is nobody known, nobody is named.
    ranks = (_rank_of(rule, line) for line in (matched[:1] if rule.echo else matched))
    first = next((rank for rank in ranks if rank is not None), None)
    if first is None and (causes := _causes(evidence)):
        return Suspects((causes[0],), "failed first")
    return Suspects() if first is None else Suspects((first,))


def _rank_of(rule: Rule, line: TextLine) -> int | None:
    """The rank that a line names, else the one whose log it is in."""
    match = rule.pattern.search(line.text)
    groups = match.groupdict().values() if match else ()
    named = next((value for value in groups if value is not None), None)
    return int(named) if named is not None else line.rank


def _shown(text: str, pattern: re.Pattern[str]) -> str:
    """A line fit for a report: one line, printable, without secrets, of bounded length."""
    match = pattern.search(text)
    if match and match.start() > _SHOWN // 2:  # glued to something else, as to a progress bar
        text = "... " + text[match.start() - _SHOWN // 4 :]
    line = redact(_UNPRINTABLE.sub(" ", text).strip())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + " ..."


def _named_source(line: TextLine) -> str:
    return line.source if line.rank is None else f"{line.source} of rank {line.rank}"


@lru_cache(maxsize=1)
def load_rules() -> tuple[Rule, ...]:
    """The shipped table, in order."""
    text = resources.files("harness_analysis").joinpath("verdict/rules.toml").read_text()
    return parse_rules(text)


def parse_rules(text: str) -> tuple[Rule, ...]:
    """Rules from TOML.

    Raises:
        ValueError: a rule names an unknown verdict, source or way to the suspect, or is no regex.
        KeyError: a rule lacks a key.
    """
    rules = []
    for entry in tomllib.loads(text)["rule"]:
        sources = frozenset(entry.get("sources", TEXT_SOURCES))
        suspect = entry.get("suspect", "line")
        if entry["verdict"] not in VERDICTS or not sources <= TEXT_SOURCES | FACT_SOURCES:
            raise ValueError(f"rule {entry['id']}: unknown verdict or source")
        if suspect not in ("line", "missing", "tasks", "none"):
            raise ValueError(f"rule {entry['id']}: no such way to a suspect: {suspect}")
        pattern = re.compile(entry["pattern"])
        echo = bool(entry.get("echo", False))
        verdict, remedy = entry["verdict"], entry["remedy"]
        yields, overrules = bool(entry.get("yields", echo)), bool(entry.get("overrules", False))
        flags = (echo, yields, overrules, bool(entry.get("vague", False)))
        rules.append(Rule(entry["id"], verdict, pattern, sources, remedy, suspect, *flags))
    return tuple(rules)
