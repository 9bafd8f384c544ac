"""What a kernel, a copy or an operator is: an ordered, user-editable table of rules.

The shipped table is `classify_rules.toml` (its head explains the keys). The rule that matched is
kept on every span, so that a number can be traced to the line that made it. The families of
names were collected from traces and issue threads of NCCL, RCCL, vLLM, SGLang, TensorRT-LLM,
FlashInfer, torch symmetric memory, DeepEP and NVSHMEM users; "nccl" as a substring is neither
necessary nor sufficient.
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
from harness_schemas.vocabulary import CATEGORIES

RULES_ENV: Final = "HARNESS_CLASSIFY_RULES"
UNKNOWN_KERNEL: Final = "unknown-kernel"
"""Rule of kernels that no other rule knows: their share is the unclassified share."""
UNCLASSIFIED: Final = ("other", "unclassified")

KINDS: Final = frozenset(
    {"kernel", "memcpy", "memset", "op", "host_op", "runtime", "overhead", "sync", "annotation"}
)
KINETO_KINDS: Final = {
    "kernel": "kernel",
    "Kernel": "kernel",
    "concurrent_kernel": "kernel",
    "gpu_memcpy": "memcpy",
    "Memcpy": "memcpy",
    "gpu_memset": "memset",
    "Memset": "memset",
    "cuda_runtime": "runtime",
    "cuda_driver": "runtime",
    "Runtime": "runtime",
    "cuda_sync": "sync",
    "overhead": "overhead",
    "user_annotation": "annotation",
    "gpu_user_annotation": "annotation",
}
"""Kineto's activity names to kinds. `cpu_op` and `Operator` are `op` or `host_op`, by device."""

_MATCHED_KEYS: Final = ("function", "name", "full")
_LONGEST_NAME: Final = 4096
_ANONYMOUS = re.compile(r"\(anonymous namespace\)::|\[clone [^\]]*\]|\{lambda[^{}]*\}(?:::)?")
_GROUP = re.compile(r"<[^<>()]*>|\([^<>()]*\)")
_REST = re.compile(r"[<>()].*", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """One line of the table; `where` says which form of the name `pattern` is searched in."""

    id: str
    category: str
    kinds: frozenset[str]
    where: str = ""
    pattern: re.Pattern[str] | None = None
    note: str = ""

    def matches(self, forms: dict[str, str]) -> bool:
        """Whether the rule applies to a name in its three forms."""
        return self.pattern is None or self.pattern.search(forms[self.where]) is not None


class Classifier:
    """Applies an ordered table; every answer is kept, since traces repeat few names."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_kind = {
            kind: tuple(rule for rule in self.rules if kind in rule.kinds) for kind in KINDS
        }
        self._known: dict[tuple[str, str], tuple[str, str]] = {}

    def classify(self, name: str, kind: str = "kernel") -> tuple[str, str]:
        """(category, id of the rule that matched) of an activity of one of `KINDS`."""
        key = (kind, name)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._search(name, kind)
        return found

    def _search(self, name: str, kind: str) -> tuple[str, str]:
        forms = name_forms(name)
        for rule in self._by_kind.get(kind, ()):
            if rule.matches(forms):
                return rule.category, rule.id
        return UNCLASSIFIED


def name_forms(text: str) -> dict[str, str]:
    """The three forms that rules look at: `function`, `name` (qualified) and `full`.

    `void a::b<c::d>(e*)` has the name `a::b` and the function `b`. Names longer than 4096
    characters are looked at up to there.
    """
    full = text[:_LONGEST_NAME]
    name = _ANONYMOUS.sub("", full)
    while True:
        shorter = _GROUP.sub("", name)
        if shorter == name:
            break
        name = shorter
    # What is left unbalanced was cut by whoever wrote the name: nothing after it is its own.
    name = _REST.sub("", name).strip().rpartition(" ")[2]
    return {"full": full, "name": name, "function": name.rpartition("::")[2]}


def load_rules(path: Path | None = None) -> tuple[Rule, ...]:
    """The rules of a TOML file, in order; None: the shipped table.

    Raises:
        UsageError: the file cannot be read, or a rule is not well-formed.
    """
    hint = f"docs/classification.md says what {RULES_ENV} and --rules name"
    entries = read_entries(path, "classify_rules.toml", "rule", hint)
    return tuple(_rule(entry, place) for place, entry in entries)


def _rule(entry: Entry, where: str) -> Rule:
    check_keys(entry, where, {"id", "category", "kinds"}, {"note", *_MATCHED_KEYS})
    if entry["category"] not in CATEGORIES:
        raise UsageError(f"{where}: no such category: {entry['category']!r}", ", ".join(CATEGORIES))
    kinds = entry["kinds"]
    if not isinstance(kinds, list) or not set(map(str, kinds)) <= KINDS:
        raise UsageError(f"{where}: kinds must be a list of {', '.join(sorted(KINDS))}")
    given = [key for key in _MATCHED_KEYS if key in entry]
    if len(given) > 1:
        raise UsageError(f"{where} has {' and '.join(given)}; give one")
    pattern = None
    if given:
        flags = 0 if given[0] == "full" else re.IGNORECASE
        pattern = compiled(entry[given[0]], where, flags)
    return Rule(
        id=str(entry["id"]),
        category=str(entry["category"]),
        kinds=frozenset(map(str, kinds)),
        where=given[0] if given else "",
        pattern=pattern,
        note=str(entry.get("note", "")),
    )


@lru_cache(maxsize=4)
def _classifier(extra: str) -> Classifier:
    own = load_rules(Path(extra)) if extra else ()
    return Classifier((*own, *load_rules()))


def classifier() -> Classifier:
    """The classifier of this process: the user's rules (HARNESS_CLASSIFY_RULES), then ours.

    Raises:
        UsageError: the user's file is not well-formed.
    """
    return _classifier(os.environ.get(RULES_ENV, ""))
