"""What every rule of redaction is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MASK: Final = "[redacted]"
FRESH: Final = r"(?!\[redacted\])"
"""Before a value: it is not masked yet."""


@dataclass(frozen=True)
class Rule:
    """An expression, and what to put where it matches.

    `words`: one of them, in small letters, is in every text that the rule changes; to look for
    them takes a hundredth of the expression's time. `hint`: short expressions in RE2's syntax, in
    any case, one of which matches wherever the rule does; all rules' hints are asked at once.
    """

    words: tuple[str, ...]
    pattern: re.Pattern[str]
    put: str | Callable[[re.Match[str]], str]
    hint: tuple[str, ...]
