"""Takes secrets out of text that other programs wrote, before it is stored or shown."""

from __future__ import annotations

import re
from typing import Any, Final

MASK: Final = "[redacted]"
_NAMES: Final = (
    r"[\w.-]*(?:token(?!s|iz|_?id|_count|_type)|secret|passw(?:or)?d|passphrase|passcode|sshpass"
    r"|mysql_pwd|api[_-]?key|access[_-]?key|private[_-]?key|account[_-]?key|signing[_-]?key"
    r"|encryption[_-]?key|credential|authorization|cookie|x-amz-signature|connection[_-]?string"
    r"|(?<![a-z])jwt(?![a-z]))[\w.-]*"
)
# As environments spell it: in capitals what would be a plain word (`key`, `pass`) otherwise.
_SHOUTED: Final = r"\b[A-Z][A-Z0-9_]*_(?:KEY|PASS|PWD|PSW|AUTH|DSN|SAS)"
_SEPARATOR: Final = r"(?:\\?[\"'])?\s*[=:]\s*"
_FRESH: Final = r"(?!\[redacted\])"
# What separates values from what follows may also stand in the middle of a password.
_BARE: Final = r"(?:[^\s\"',;&\x00\\<]|\\(?![nrtu\"'])|[,;&](?![\w.-]+[=:]|[\s\"']|\Z)|<(?!/)){3,}"
_QUOTED: Final = (
    r"(?:\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)|\\\"(?:[^\\]|\\[^\"])*(?:\\\"|\Z))"
)
_VALUE: Final = rf"{_FRESH}(?:{_QUOTED}|{_BARE})"
_OPTION: Final = r"(?<![\w-])--?"
_TO_OPTION: Final = r"(?:\\?[\"']\s*,\s*|(?:[ \t\x00]|\\u0000|\\t)+|=)"


def _quotes_kept(match: re.Match[str]) -> str:
    """The name as it stands, and its value hidden: inside its quotes, where it has some."""
    value = match[2]
    quote = value[:2] if value[0] == "\\" else value[0] if value[0] in "\"'" else ""
    if value.strip("\\\"'") in ("", MASK):
        return match[0]
    closed = quote and len(value) >= 2 * len(quote) and value.endswith(quote)
    return f"{match[1]}{quote}{MASK}{quote if closed else ''}"


_RULES: Final = (
    # Headers whose value has several words: all of the line, or of the quoted text.
    (
        re.compile(
            rf"(?i)(\b(?:[\w-]*authorization|(?:set-)?cookie):\s*){_FRESH}"
            r"(?:(?:bearer|basic|token)\s+[^\s\"',;\\]{3,}|[^\r\n\"'\\]{3,}(?:\"[^\"\r\n]*\"[^\r\n\"']*)*)"
        ),
        rf"\1{MASK}",
    ),
    # A named secret: `HF_TOKEN=x`, `"password": "x y"`.
    (
        re.compile(rf"(?i)(\b{_NAMES}{_SEPARATOR}(?:(?:bearer|basic|token)\s+)?)({_VALUE})"),
        _quotes_kept,
    ),
    (re.compile(rf"({_SHOUTED}{_SEPARATOR})({_VALUE})"), _quotes_kept),
    (re.compile(rf"(?i)(<{_NAMES}>){_FRESH}[^<\s]+"), rf"\1{MASK}"),
    (re.compile(rf"(?i)(\blogin\s+\S+\s+password\s+){_FRESH}\S+"), rf"\1{MASK}"),
    # An option and its value in the next word: `--api-key x`, ["--api-key", "x"], NUL-separated.
    (
        re.compile(
            rf"(?i)({_OPTION}(?:{_NAMES}|(?:[\w-]+-)?(?:pass|pw|pwd|auth)){_TO_OPTION})({_VALUE})"
        ),
        _quotes_kept,
    ),
    # Clients whose short options are a user's.
    (
        re.compile(
            r"(?i)(\b(?:mysql\w*|mariadb|sshpass|docker\s+login|mongo\w*|smbclient)\b"
            rf"[^\r\n|]*?\s-p[ =]?){_FRESH}[^\s\"',]{{3,}}"
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            r"(?i)(\bcurl\b[^\r\n|]*?\s(?:-u|--user)[ =]?[\"']?[^\s:\"']+:)"
            rf"{_FRESH}[^\s\"']+"
        ),
        rf"\1{MASK}",
    ),
    (re.compile(rf"(?i)(\bwandb\s+login\b[^\r\n|]*?\s){_FRESH}[\w-]{{20,}}"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b(bearer:?\s+)[\w.~+/=-]{8,}"), rf"\1{MASK}"),
    # What is known by its own shape: hubs, forges, clouds, JSON web tokens.
    (
        re.compile(
            r"(?i)\b(?:hf_[a-z0-9]{16,}|sk-[\w-]{16,}|[srp]k_(?:live|test)_\w{10,}|gh[pousr]_\w{16,}"
            r"|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}"
            r"|nvapi-[\w-]{16,}|A(?:KIA|SIA)[0-9A-Z]{12,}|AIza[\w-]{30,}|ya29\.[\w-]{16,}"
            r"|npm_[a-z0-9]{20,}|pypi-[\w-]{20,}|SG\.[\w-]{10,}\.[\w-]{10,}|do[por]_v1_\w{16,}"
            r"|(?:r8|gsk)_[a-z0-9]{20,}|lsv2_\w{16,}|wandb_v\d_\w{16,}"
            r"|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
        ),
        MASK,
    ),
    # Of an address: its password, its user where that is a key, its signature.
    (
        # Also where a text was cut in the middle of it; what is only digits there is a port.
        re.compile(rf"(://[^\s/:@\"']*:){_FRESH}(?:[^\s/\"']+(?=@)|(?!\d*\Z)[^\s/\"'@]+\Z)"),
        rf"\1{MASK}",
    ),
    (re.compile(r"(://)[\w-]{16,}(?=@)"), rf"\1{MASK}"),
    (re.compile(rf"(?i)([?&](?:sig(?:nature)?|key|auth|code)=){_FRESH}[^\s&\"']+"), rf"\1{MASK}"),
    (
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END[^\n]*|\Z)"),
        MASK,
    ),
    # A line of such a key by itself, as logs are read.
    (
        re.compile(
            r"(?m)^(?=[^a-z\n]*[a-z])(?=[^A-Z\n]*[A-Z])(?=[^0-9+/\n]*[0-9+/])[A-Za-z0-9+/]{64}={0,2}$"
        ),
        MASK,
    ),
)
_NAME_OF_SECRET: Final = re.compile(rf"(?:(?i:{_NAMES})|{_SHOUTED})\Z")

HINT: Final = (
    r"(?i:token(?:[^si]|$)|secret|pass(?:[^_ia]|$)|pwd|(?:\b|-)pw\b|jwt|auth|credential|cookie"
    r"|(?:api|access|private|account|signing|encryption)[_-]?key|_key|x-amz-sig"
    r"|connection[_-]?string|bearer:?\s|://[^\s/]*(?:@|:)|[?&](?:sig|signature|key|code)="
    r"|(?:mysql|mariadb|docker\s+login|mongo|smbclient|curl\b).*\s-|wandb"
    r"|\bhf_|\bsk-|k_live_|k_test_|\bgh[pousr]_|github_pat_|glpat-|xox[a-z]-|xapp-|nvapi-"
    r"|\ba[ks]ia|\baiza|\bya29\.|\bnpm_|\bpypi-|\bsg\.|\bdo[por]_v1|\br8_|\bgsk_|\blsv2_|\beyj)"
    r"|_(?:PSW|DSN|SAS)|-----BEGIN|(?m:^[A-Za-z0-9+/]{64}={0,2}$)"
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
