"""One line of the diagnosis."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What was found, what that costs, how to mend it. `state`: ok, missing or warning."""

    name: str
    state: str
    found: str
    cost: str = ""
    mend: str = ""


def ok(name: str, found: str) -> Check:
    """Nothing to mend."""
    return Check(name, "ok", found)


def missing(name: str, found: str, cost: str, mend: str) -> Check:
    """It is not there."""
    return Check(name, "missing", found, cost, mend)


def warning(name: str, found: str, cost: str, mend: str) -> Check:
    """It is there, and something is wrong with it."""
    return Check(name, "warning", found, cost, mend)
