"""Takes secrets out of text that other programs wrote, before it is stored or shown."""

from __future__ import annotations

from typing import Any, Final

from harness_schemas.redact.commands import COMMANDS
from harness_schemas.redact.named import NAMED, is_harmless, names_secret
from harness_schemas.redact.rule import MASK
from harness_schemas.redact.shapes import SHAPES

__all__ = ["HINT", "MASK", "redact", "redact_tree"]

_RULES: Final = (*NAMED, *COMMANDS, *SHAPES)

HINT: Final = f"(?im:{'|'.join(sorted({hint for rule in _RULES for hint in rule.hint}))})"
"""A regular expression, in RE2's syntax too, that matches wherever `redact` would hide something;
one cheap look that most text does not pass."""


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced by `MASK`.

    Errs on the side of hiding: a value is hidden for its name or for its shape.
    """
    lowered = text.lower()
    for rule in _RULES:
        for word in rule.words:
            if word in lowered:
                text = rule.pattern.sub(rule.put, text)
                break
    return text


def redact_tree(data: Any) -> Any:
    """Data as JSON has it, with secrets hidden in every text and under every name of a secret."""
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, dict):
        named = _named_value(data)
        return {
            key: MASK
            if isinstance(value, str) and _is_secret(named if key == "value" else str(key), value)
            else redact_tree(value)
            for key, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [redact_tree(item) for item in data]
    return data


def _is_secret(name: str, value: str) -> bool:
    return names_secret(name) and not is_harmless(value)


def _named_value(data: dict[Any, Any]) -> str:
    """Of `{"name": "HF_TOKEN", "value": "x"}` the name."""
    return str(data.get("name", "")) if "value" in data else ""
