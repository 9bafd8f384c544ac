"""What an audit says: a rule that was broken, by which numbers, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

PROBLEM, NOTICE = "problem", "notice"
"""A problem cannot be, or makes the numbers worthless; a notice weakens them."""


@dataclass(frozen=True)
class Flag:
    """One broken rule. `subject`: the run, or the table and its rows."""

    rule: str
    severity: str
    subject: str
    numbers: str
    todo: str
