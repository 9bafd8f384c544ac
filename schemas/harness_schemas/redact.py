"""Takes secrets out of text that other programs wrote, before it is stored or shown."""

from __future__ import annotations

import re
from typing import Any, Final

MASK: Final = "[redacted]"
_NAMES: Final = (
    r"[\w.-]*(?:token(?!s|iz|_?id|_count|_type)|secret|passw(?:or)?d|passphrase|api[_-]?key"
    r"|access[_-]?key|private[_-]?key|account[_-]?key|credential|authorization|cookie"
    r"|connection[_-]?string)[\w.-]*"
)
_SEPARATOR: Final = r"(?:\\?[\"'])?\s*[=:]\s*"
_VALUE: Final = r"(?!\[redacted\])([^\s\"',;&\x00\\]{3,})"
_RULES: Final = (
    # A named secret: `HF_TOKEN=x`, `"password": "x"`, `Authorization: Bearer x`.
    (
        re.compile(
            rf"(?i)(\b{_NAMES}{_SEPARATOR}(?:\\?[\"'])?(?:(?:bearer|basic|token)\s+)?){_VALUE}"
        ),
        rf"\1{MASK}",
    ),
    # An option and its value in the next word: `--api-key x`, ["--api-key", "x"], NUL-separated.
    (
        re.compile(
            rf"(?i)((?<![\w-])--?{_NAMES}(?:\\?[\"']\s*,\s*\\?[\"']|(?:[ \x00]|\\u0000)+)){_VALUE}"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(?i)\b(bearer\s+)[\w.~+/=-]{8,}"), rf"\1{MASK}"),
    # What is known by its own shape: hubs, forges, clouds, JSON web tokens.
    (
        re.compile(
            r"(?i)\b(?:hf_\w{8,}|sk-[\w-]{16,}|gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
            r"|xox[abpr]-[\w-]{10,}|nvapi-[\w-]{16,}|A(?:KIA|SIA)[0-9A-Z]{12,}|AIza[\w-]{30,}"
            r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
        ),
        MASK,
    ),
    (re.compile(r"(://[^\s/:@\"']*:)(?!\[redacted\])[^\s/@\"']+(?=@)"), rf"\1{MASK}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END[^\n]*|\Z)"), MASK),
)
_NAME_OF_SECRET: Final = re.compile(rf"(?i){_NAMES}\Z")

HINT: Final = (
    r"(?i:token(?:[^si]|$)|secret|passw|passphrase|(?:api|access|private|account)[_-]?key"
    r"|credential|authorization|cookie|connection[_-]?string|bearer\s|://[^\s/@]*@"
    r"|\bhf_|\bsk-|\bgh[pousr]_|github_pat_|glpat-|xox[abpr]-|nvapi-|\ba[ks]ia|\baiza|\beyj)"
    r"|-----BEGIN"
)
"""A regular expression, in RE2's syntax too, that matches wherever `redact` would hide something;
one cheap look that most text does not pass."""


def redact(text: str) -> str:
    """The text with everything that looks like a secret replaced by `MASK`.

    Errs on the side of hiding: a value is hidden for its name or for its shape.
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def redact_tree(data: Any) -> Any:
    """Data as JSON has it, with secrets hidden in every text and under every name of a secret."""
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, dict):
        return {
            key: MASK
            if isinstance(value, str) and value and _NAME_OF_SECRET.match(str(key))
            else redact_tree(value)
            for key, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [redact_tree(item) for item in data]
    return data
