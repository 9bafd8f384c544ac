"""What the runner wrote of the comparison with the reference."""

from __future__ import annotations

import json
from typing import Any

from harness_analysis.answer.model import Correctness


def read_correctness(text: str) -> Correctness:
    """The comparison out of its JSON; what is missing or of another kind stays unknown."""
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        data = {"why": "the record of the comparison cannot be read"}
    known = ("verdict", "compared", "equal", "ties", "max_logit_diff", "why", "share")
    return Correctness(
        verdict=_text(data.get("verdict")),
        compared=_integer(data.get("compared")),
        equal=_integer(data.get("equal")),
        ties=_integer(data.get("ties")),
        max_logit_diff=_number(data.get("max_logit_diff")),
        why=_text(data.get("why")),
        details={name: value for name, value in data.items() if name not in known},
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric else None
