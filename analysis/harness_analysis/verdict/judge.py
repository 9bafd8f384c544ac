"""Why a run ended as it did: a verdict, the line it rests on, the rank, and what to do.

Everything known is put into words (`wording`) and an ordered table of rules (`rules`) is asked:
the first rule that matches any line decides, so causes stand above consequences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from harness_analysis.verdict.mentions import said
from harness_analysis.verdict.model import (
    GOOD_STATES,
    OOM_EXIT,
    SURVIVED,
    StepState,
    TextLine,
    Verdict,
    VerdictEvidence,
    latest_attempt,
)
from harness_analysis.verdict.rules import Rule, load_rules
from harness_analysis.verdict.suspects import Suspects
from harness_analysis.verdict.whom import suspects_of
from harness_analysis.verdict.wording import failed_ranks, in_words
from harness_schemas.redact import redact

SAMPLERS: Final = "harness-samplers"
"""Name of the step that samples beside the ranks (harness_slurm.step.launcher)."""
_SHOWN: Final = 400
_ANYTHING = re.compile("")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\u00a0-\ufffc]+")


def judge(evidence: VerdictEvidence, rules: Sequence[Rule] | None = None) -> Verdict:
    """Why the run ended as it did. Pure: the same evidence gives the same verdict."""
    evidence = replace(evidence, steps=tuple(_believed(evidence)))
    if _went_well(evidence):
        return Verdict("ok", also=("oom_host",) if evidence.oom_kills else ())
    rules = load_rules() if rules is None else rules
    outlived = [line for line in evidence.lines if line.source == SURVIVED]
    others = tuple(line for line in evidence.lines if line.source != SURVIVED)
    asked = replace(evidence, lines=others)
    hits = _hits(rules, asked)
    if hits and outlived and _deciding(hits)[0].vague:
        everything = replace(evidence, lines=tuple(map(_as_text, evidence.lines)))
        better = _hits(rules, everything)
        if not _deciding(better)[0].vague:
            hits, asked = better, everything
    return _verdict(hits, asked) if hits else _unexplained(asked, outlived)


def _verdict(hits: dict[Rule, list[TextLine]], evidence: VerdictEvidence) -> Verdict:
    """The verdict of the rule that decides, resting on a line of the suspects where one is."""
    rule, matched = _deciding(hits)
    suspects = suspects_of(rule, matched, evidence)
    line = next((x for x in matched if rule.rank_of(x) in suspects.ranks), matched[0])
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
    if any(step.derived_exit == OOM_EXIT for step in steps):
        return False
    if evidence.exit_code is None:
        return bool(states) and states <= GOOD_STATES
    return evidence.exit_code == 0 and states <= GOOD_STATES | {"RUNNING", "COMPLETING", None}


def _hits(rules: Sequence[Rule], evidence: VerdictEvidence) -> dict[Rule, list[TextLine]]:
    """The lines by the first rule that matches them, in the order of the rules.

    Of a rule's lines, those of the rank that ended first come first.
    """
    failed = failed_ranks(evidence)
    order: dict[int | None, int] = {rank: place for place, rank in enumerate(failed)}
    lines = [replace(line, place=place) for place, line in enumerate(in_words(evidence))]
    hits: dict[Rule, list[TextLine]] = {}
    for rule in rules:
        allowed = {None, failed[0]} if rule.echo and failed else None
        matched = [
            line
            for line in lines
            if line.source in rule.sources
            and (allowed is None or line.rank in allowed)
            and said(rule.pattern, line.text)
        ]
        if matched:
            hits[rule] = sorted(matched, key=lambda line: order.get(line.rank, len(order)))
            taken = set(matched)
            lines = [line for line in lines if line not in taken]
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


def _shown(text: str, pattern: re.Pattern[str]) -> str:
    """A line fit for a report: one line, printable, without secrets, of bounded length."""
    match = pattern.search(text)
    if match and match.start() > _SHOWN // 2:  # glued to something else, as to a progress bar
        text = "... " + text[match.start() - _SHOWN // 4 :]
    line = redact(_UNPRINTABLE.sub(" ", text).strip())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + " ..."


def _named_source(line: TextLine) -> str:
    return line.source if line.rank is None else f"{line.source} of rank {line.rank}"
