"""Takes secrets out of text that other programs wrote, before it is stored or shown."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "[redacted]"
_NAMES: Final = (
    r"[\w.-]*(?:token(?!s|iz|_?id|_count|_type)|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|credential|authorization|cookie)[\w.-]*"
)
_RULES: Final = (
    # A named secret: `HF_TOKEN=x`, `--api-key x`, `"password": "x"`, `Authorization: Bearer x`.
    (
        re.compile(
            rf"(?i)(\b{_NAMES}[\"']?\s*(?:[=:]|(?<=key) |(?<=token) |(?<=password) )\s*"
            r"(?:bearer\s+|basic\s+)?[\"']?)([^\s\"',;&]{3,})"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), rf"\1{MASK}"),
    # What is known by its own shape: hubs, forges, clouds, JSON web tokens.
    (
        re.compile(
            r"\b(?:hf_\w{8,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|glpat-[\w-]{16,}|xox[abpr]-[\w-]{10,}"
            r"|AKIA[0-9A-Z]{12,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
        ),
        MASK,
    ),
    (re.compile(r"(://[^\s/:@]+:)[^\s/@]+(?=@)"), rf"\1{MASK}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END[^\n]*|\Z)"), MASK),
)


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced by `MASK`.

    Errs on the side of hiding: a value is hidden for its name or for its shape.
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
