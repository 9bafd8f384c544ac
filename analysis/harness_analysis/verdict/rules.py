"""The table of rules (`rules.toml` explains its keys): what words mean which verdict."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Final

from harness_analysis.verdict.model import FACT_SOURCES, TEXT_SOURCES, VERDICTS, TextLine

NOTHING_MORE: Final = "Nothing says more than the exit code"
"""Begins the remedy of the last rule: whatever says more replaces it."""


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

    def rank_of(self, line: TextLine) -> int | None:
        """The rank that a line names, else the one whose log it is in."""
        match = self.pattern.search(line.text)
        groups = match.groupdict().values() if match else ()
        named = next((value for value in groups if value is not None), None)
        return int(named) if named is not None else line.rank


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
