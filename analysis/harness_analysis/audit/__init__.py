"""What cannot be: rules over tables of claimed results, over runs, and over sweeps.

markdown -> claims (a file) -> scaling_rules, limit_rules, digit_rules, cross_rules
facts (a database) -> run_rules, sweep_rules
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness_analysis.audit.claims import ClaimTable, is_claims_file, read_claims
from harness_analysis.audit.cross_rules import CROSS
from harness_analysis.audit.digit_rules import DIGITS
from harness_analysis.audit.facts import Facts, load_facts
from harness_analysis.audit.flags import PROBLEM, Flag
from harness_analysis.audit.limit_rules import LIMITS, never_batched, single_request_pipeline
from harness_analysis.audit.run_rules import RUN_RULES
from harness_analysis.audit.scaling_rules import SCALING, efficiency_over_one
from harness_analysis.audit.sweep_rules import (
    SWEEP_RULES,
    group_cells,
    group_studies,
    measured_table,
)

__all__ = ["audit_claims", "audit_runs", "is_claims_file", "load_facts", "read_claims"]

OF_MEASURED = (efficiency_over_one, single_request_pipeline, never_batched)
"""Rules for claims that measured cells may break as well."""


def audit_claims(tables: Sequence[ClaimTable]) -> list[Flag]:
    """Flags of the tables of one report, problems first."""
    rules = (*SCALING, *LIMITS, *DIGITS)
    alone = [flag for table in tables for rule in rules for flag in rule(table)]
    return _ordered(alone + [flag for rule in CROSS for flag in rule(tables)])


def audit_runs(runs: Sequence[Facts]) -> list[Flag]:
    """Flags of runs, alone and together, problems first."""
    found = _gathered([flag for run in runs for rule in RUN_RULES for flag in rule(run)])
    for study in group_studies(runs):
        if len(study) < 2:
            continue
        cells = group_cells(study)
        found += [flag for rule in SWEEP_RULES for flag in rule(cells)]
        table = measured_table(cells)
        if table is not None:
            found += [flag for rule in OF_MEASURED for flag in rule(table)]
    return _ordered(found)


def _gathered(flags: Sequence[Flag]) -> list[Flag]:
    """The same said of several runs, said once."""
    found: dict[tuple[str, str, str], list[Flag]] = {}
    for flag in flags:
        found.setdefault((flag.rule, flag.severity, flag.numbers), []).append(flag)
    return [
        same[0]
        if len(same) == 1
        else replace(same[0], subject=f"{len(same)} runs: {', '.join(f.subject for f in same)}")
        for same in found.values()
    ]


def _ordered(flags: Sequence[Flag]) -> list[Flag]:
    return sorted(flags, key=lambda flag: flag.severity != PROBLEM)
