"""Which annotations mark units of work: an ordered, user-editable table of rules.

The shipped table is `step_marks.toml` (its head explains the keys). Spellings of vLLM, SGLang,
ATOM and TensorRT-LLM were taken from their pull requests and from traces. Shared by every
collector that meets annotations: Kineto's `user_annotation`, NVTX ranges.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from harness_collectors.names.rule_tables import Entry, check_keys, compiled, read_entries
from harness_schemas.errors import UsageError
from harness_schemas.spi import UnitKey
from harness_schemas.vocabulary import PHASES

MARKS_ENV: Final = "HARNESS_STEP_MARKS"

KEY_GROUPS: Final = ("batch", "microbatch", "repeat", "step")
SIZE_GROUPS: Final = ("batch_size", "padded_batch", "prefill_tokens", "decode_tokens")
_GROUPS: Final = {*KEY_GROUPS, *SIZE_GROUPS, "phase", "warmup", "context", "generation"}
_LONGEST_NAME: Final = 1024
_LARGEST: Final = 2**31 - 1


@dataclass(frozen=True)
class Mark:
    """What an annotation says about the unit of work it encloses; None: it does not say.

    `numbered`: the step number is written in the annotation itself. `joins`, `follows`: as in the
    table.
    """

    rule: str
    family: str
    phase: str | None = None
    step: int | None = None
    batch: int | None = None
    microbatch: int | None = None
    repeat: int | None = None
    warmup: bool | None = None
    numbered: bool = False
    sizes: tuple[int | None, ...] = ()
    """Values of `SIZE_GROUPS`; empty: none is known."""
    joins: tuple[str, ...] = ()
    follows: bool = False

    def counts_in(self, family: str | None) -> bool:
        """Whether it makes units where `family` does."""
        return self.family == family or family in self.joins


@dataclass(frozen=True)
class Rule:
    """One line of the table."""

    id: str
    family: str
    pattern: re.Pattern[str]
    phase: str | None = None
    step: int | None = None
    note: str = ""
    joins: tuple[str, ...] = ()
    follows: bool = False

    def mark(self, name: str) -> Mark | None:
        """What `name` says, or None where the rule does not match."""
        match = self.pattern.match(name)
        if match is None:
            return None
        found = match.groupdict()
        numbers = {group: _number(found.get(group)) for group in (*KEY_GROUPS, *SIZE_GROUPS)}
        requests = (_number(found.get("context")), _number(found.get("generation")))
        if numbers["batch_size"] is None and None not in requests:
            numbers["batch_size"] = (requests[0] or 0) + (requests[1] or 0)
        sizes = tuple(numbers[group] for group in SIZE_GROUPS)
        warmup = found.get("warmup")
        step = numbers["step"]
        return Mark(
            rule=self.id,
            family=self.family,
            phase=self._phase(found.get("phase"), *requests),
            step=self.step if step is None else step,
            batch=numbers["batch"],
            microbatch=numbers["microbatch"],
            repeat=numbers["repeat"],
            warmup=None if warmup is None else warmup == "1",
            numbered=step is not None,
            sizes=sizes if any(size is not None for size in sizes) else (),
            joins=self.joins,
            follows=self.follows,
        )

    def _phase(
        self, written: str | None, context: int | None, generation: int | None
    ) -> str | None:
        if written is not None:
            return written if written in PHASES else None
        if context is None or generation is None:
            return self.phase
        if context and generation:
            return "mixed"
        return "prefill" if context else "decode" if generation else None


def _number(text: str | None) -> int | None:
    """An integer that the tables can hold, or None."""
    if text is None or len(text) > 10:
        return None
    value = int(text)
    return value if value <= _LARGEST else None


class StepMarks:
    """Applies an ordered table; every answer is kept, since traces repeat names."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._order: dict[str, int] = {}
        for rule in self.rules:
            self._order.setdefault(rule.family, len(self._order))
        self._known: dict[str, Mark | None] = {}

    def find(self, name: str) -> Mark | None:
        """What the first rule that matches makes of `name`; None: no mark."""
        if name not in self._known:
            marks = (rule.mark(name[:_LONGEST_NAME]) for rule in self.rules)
            self._known[name] = next((mark for mark in marks if mark is not None), None)
        return self._known[name]

    def best_family(self, marks: Iterable[Mark | None]) -> str | None:
        """The family, of those that occur, that stands first in the table; None of none."""
        families = {mark.family for mark in marks if mark is not None and not mark.follows}
        return min(families, key=lambda family: self._order[family], default=None)


def annotation(key: UnitKey) -> str:
    """The text with which our own capture annotates a unit, for record_function and NVTX alike.

    `harness:decode batch=0 step=3 warmup=0`: what is not known is left out.
    """
    parts = [f"harness:{key.phase}"]
    parts += [f"{name}={value}" for name in KEY_GROUPS if (value := getattr(key, name)) is not None]
    return " ".join([*parts, f"warmup={int(key.warmup)}"])


def load_marks(path: Path | None = None) -> tuple[Rule, ...]:
    """The rules of a TOML file, in order; None: the shipped table.

    Raises:
        UsageError: the file cannot be read, or a rule is not well-formed.
    """
    entries = read_entries(path, "step_marks.toml", "mark", f"see {MARKS_ENV}")
    return tuple(_rule(entry, place) for place, entry in entries)


def _rule(entry: Entry, where: str) -> Rule:
    optional = {"phase", "step", "note", "joins", "follows"}
    check_keys(entry, where, {"id", "family", "pattern"}, optional)
    phase, step = entry.get("phase"), entry.get("step")
    if phase is not None and phase not in PHASES:
        raise UsageError(f"{where}: no such phase: {phase!r}", ", ".join(PHASES))
    if step is not None and (not isinstance(step, int) or not 0 <= step <= _LARGEST):
        raise UsageError(f"{where}: step must be a number from 0 on")
    pattern = compiled(entry["pattern"], where)
    strange = set(pattern.groupindex) - _GROUPS
    if strange:
        raise UsageError(f"{where} has unknown groups: {', '.join(sorted(strange))}")
    joins, follows = entry.get("joins", []), entry.get("follows", False)
    if not isinstance(joins, list) or not all(isinstance(family, str) for family in joins):
        raise UsageError(f"{where}: joins must be a list of families")
    if not isinstance(follows, bool):
        raise UsageError(f"{where}: follows must be true or false")
    note, family = str(entry.get("note", "")), str(entry["family"])
    return Rule(str(entry["id"]), family, pattern, phase, step, note, tuple(joins), follows)


@lru_cache(maxsize=4)
def _step_marks(extra: str) -> StepMarks:
    own = load_marks(Path(extra)) if extra else ()
    return StepMarks((*own, *load_marks()))


def step_marks() -> StepMarks:
    """The marks of this process: the user's rules (HARNESS_STEP_MARKS), then ours.

    Raises:
        UsageError: the user's file is not well-formed.
    """
    return _step_marks(os.environ.get(MARKS_ENV, ""))
