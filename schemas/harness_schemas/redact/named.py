"""Secrets that are known by the name before them: settings, environments, headers, addresses."""

from __future__ import annotations

import re
from typing import Final

from harness_schemas.redact.rule import FRESH, MASK, Rule

_MODEL_TOKENS: Final = (
    "".join(
        f"(?<!{word}[ _.-])"
        for word in ("bos", "eos", "pad", "unk", "sep", "cls", "mask", "stop", "next", "last")
    )
    + "(?<!first[ _-])(?<!per[ _-])(?<!each[ _-])(?<!input[ _-])(?<!output[ _-])"
    "(?<!prompt[ _-])(?<!/)"
)
"""Words of a model's vocabulary, and what is counted by the token."""
_WORDS: Final = (
    rf"{_MODEL_TOKENS}token(?!s|iz|_?id|_count|_type)|secret|passw(?:or)?d|passphrase|passcode"
    r"|sshpass|mysql_pwd"
    r"|(?:api|access|private|account|signing|encryption|subscription)[_-]?key|client-key-data"
    r"|credential|authorization|cookie|x-(?:amz|goog)-signature|connection[_-]?string"
    r"|sharedaccesssignature|dockerconfigjson|dockercfg|(?<![a-z])jwt(?![a-z])"
)
_ENDED: Final = rf"(?:{_WORDS})[\w.-]{{0,64}}"
NAMES: Final = rf"[\w.-]{{0,64}}?{_ENDED}"
"""What is called a secret in any spelling. To be used with (?i)."""
SHOUTED: Final = (
    r"(?<![A-Z0-9_])_*[A-Z][A-Z0-9_]*_(?:KEY|PASS|PWD|PSW|AUTH|DSN|SAS|PAT|CREDS?|TOKENS)"
)
"""As environments spell it: in capitals what would be a plain word (`key`, `pass`) otherwise."""
_UPPER_NAMES: Final = (
    r"[A-Z][A-Z0-9_]{0,64}(?:TOKEN|SECRET|PASSW(?:OR)?D|PASSPHRASE|CREDENTIAL|_KEY|_PASS|_AUTH|_DSN)"
    r"[A-Z0-9_]{0,64}"
)
"""The same where nothing but space or a comma stands between a name and its value."""
_MARK: Final = r"(?:\\?[\"']|&quot;|%22)"
_SEPARATOR: Final = rf"{_MARK}?\s*(?:=>|:=|[=:](?![=:])|%3[dDaA])\s*(?:&quot;|%22|\$(?=['\"]))?"
# What separates values from what follows may also stand in the middle of a password.
_BARE: Final = (
    r"(?:[^\s\"',;&%\x00\\<]|\\(?![nrtu\"'])|[,;&](?!quot;|[\w.-]+[=:]|[\s\"']|\Z)"
    r"|%(?!22)|<(?!/)){3,}"
)
_QUOTED: Final = (
    r"(?:\"(?:[^\"\\]|\\.)*(?:\"|\Z)|'(?:[^'\\]|\\.)*(?:'|\Z)|\\\"(?:[^\\]|\\[^\"])*(?:\\\"|\Z))"
)
VALUE: Final = rf"{FRESH}(?:{_QUOTED}|{_BARE})"
_HARMLESS: Final = re.compile(
    r"(?i)[+-]?\d{1,9}(?:\.\d+)?(?:[a-z%]{1,3})?|none|null|true|false|yes|no|n/a|undefined"
)
"""Values that are no secrets: numbers of tokens, switches."""


def quotes_kept(match: re.Match[str]) -> str:
    """The name as it stands, and its value hidden: inside its quotes, where it has some."""
    value = match[2]
    quote = value[:2] if value[0] == "\\" else value[0] if value[0] in "\"'" else ""
    bare = value.strip("\\\"'")
    if bare in ("", MASK) or (_HARMLESS.fullmatch(bare) and "passw" not in match[1].lower()):
        return match[0]
    closed = quote and len(value) >= 2 * len(quote) and value.endswith(quote)
    return f"{match[1]}{quote}{MASK}{quote if closed else ''}"


_NAME_WORDS: Final = (
    *("token", "secret", "passw", "passphrase", "passcode", "sshpass", "mysql_pwd", "key"),
    *("credential", "authorization", "cookie", "signature", "connection", "dockerc", "jwt"),
)
_SHOUTED_WORDS: Final = (
    *("_key", "_pass", "_pwd", "_psw", "_auth", "_dsn", "_sas", "_pat", "_cred", "_tokens"),
)
NAME_HINT: Final = (
    *("token(?:[^si]|$)", "secret", "pass(?:[^_ia]|$)", "jwt", "authorization", "credential"),
    *("cookie", "(?:api|access|private|account|signing|encryption|subscription)[_-]?key", "_key"),
    *("client-key-data", "mysql_pwd", "signature", "connection[_-]?string", "dockerc"),
)
_SHOUTED_HINT: Final = ("(?-i:[A-Z]_(?:KEY|PASS|PWD|PSW|AUTH|DSN|SAS|PAT|CRED|TOKENS))",)
_ADDRESS_HINT: Final = (r"://[^\s/]*(?:@|:)",)


def _rule(
    words: tuple[str, ...], form: str, hint: tuple[str, ...] = NAME_HINT, put: str | None = None
) -> Rule:
    """A rule that keeps the first group, and hides the second one or puts what is given."""
    return Rule(words, re.compile(form), quotes_kept if put is None else put, hint)


NAMED: Final = (
    # Headers whose value has several words: all of the line, or of the quoted text.
    _rule(
        ("authorization", "cookie"),
        rf"(?i)(\b(?:[\w-]*authorization|(?:set-)?cookie):\s*){FRESH}"
        r"(?:(?:bearer|basic|token)\s+[^\s\"',;\\]{3,}"
        r"|(?:(?!\s--?\w)[^\r\n\"'\\]){3,}(?:(?<==)\"[^\"\r\n]*\"[^\r\n\"']*)*)",
        put=rf"\1{MASK}",
    ),
    # `HF_TOKEN=x`, `"password": "x y"`.
    _rule(
        _NAME_WORDS,
        rf"(?i)({_ENDED}{_SEPARATOR}(?:(?:bearer|basic|token)\s+)?)({VALUE})",
    ),
    _rule(_SHOUTED_WORDS, rf"({SHOUTED}{_SEPARATOR})({VALUE})", _SHOUTED_HINT),
    _rule(
        ("auth",),
        rf"(?i)([_\"']auth{_SEPARATOR})({VALUE})",
        (r"[_\"']auth[^a-z]",),
    ),
    # `name: HF_TOKEN` and `value: x`, on two lines too; `("HF_TOKEN", "x")`.
    _rule(
        ("value",),
        rf"(?i)(\bname{_SEPARATOR}{_MARK}?(?:{NAMES}|[\w-]+_key){_MARK}?\s*,?\s*"
        rf"{_MARK}?value{_SEPARATOR})({VALUE})",
    ),
    _rule(
        _NAME_WORDS + _SHOUTED_WORDS,
        rf"([\"']{_UPPER_NAMES}[\"']\s*,\s*)(?![\"'][A-Z0-9_]+[\"'])({FRESH}{_QUOTED})",
        NAME_HINT + _SHOUTED_HINT,
    ),
    # Shells that set without `=`, and tables of an environment.
    _rule(
        ("set",),
        rf"(?i)(\b(?:setenv|(?:configure\s+)?set(?:\s+-\w+)*)\s+(?:{NAMES}|\w+_key)\s+)({VALUE})",
    ),
    _rule(
        _NAME_WORDS + _SHOUTED_WORDS,
        rf"(?m)((?:^|\s){_UPPER_NAMES}(?: {{2,}}|[ ]*\t\s*|\x00))({FRESH}[^\s\"']{{6,}})",
        NAME_HINT + _SHOUTED_HINT,
    ),
    _rule(
        ("_api_key ",), rf"(?i)(\b\w+_api_key\s+)({FRESH}(?=[\w-]*\d)[\w-]{{16,}})"
    ),
    _rule(("<",), rf"(?i)(<{NAMES}>){FRESH}[^<\s]+", put=rf"\1{MASK}"),
    # `user=x;pwd=y`: `pwd` by itself is a folder.
    _rule(
        ("pwd", "pass", "pw"),
        r"(?i)(\b(?:uid|user(?:name|[ _]?id)?|login)\s*[=:]\s*[^\s;,&]+[;,&\s]\s*"
        rf"(?:pwd|pass|pw)\s*[=:]\s*)({VALUE})",
        ("pwd", r"\bpass\b", r"\bpw\b"),
    ),
    # .netrc and .pgpass.
    _rule(
        ("password",),
        rf"(?im)(\b(?:login|account|machine)\s+\S+\s+password\s+|^\s*password\s+(?=\S+\s*$)){FRESH}\S+",
        put=rf"\1{MASK}",
    ),
    _rule(
        (":543", ":6432:"),
        rf"(?m)(^[\w.*-]+:(?:543[0-9]|6432):[^\s:]+:[^\s:]+:){FRESH}\S+$",
        (":(?:543[0-9]|6432):",),
        rf"\1{MASK}",
    ),
    _rule(
        ("bearer",),
        rf"(?i)(\bbearer:?\s+){FRESH}[\w.~+/=-]{{8,}}",
        ("bearer",),
        rf"\1{MASK}",
    ),
    # Of an address: its password, its user where that is a key, its signature. Also where a text
    # was cut in the middle of it; what is only digits there is a port.
    _rule(
        ("://",),
        rf"(://[^\s/:@\"']*:){FRESH}(?:[^\s/\"']+(?=@)|(?!\d*\Z)[^\s/\"'@]+\Z)",
        _ADDRESS_HINT,
        rf"\1{MASK}",
    ),
    _rule(("://",), r"(://)[\w-]{16,}(?=@)", _ADDRESS_HINT, rf"\1{MASK}"),
    _rule(
        ("jdbc:",),
        rf"(?i)(\bjdbc:\w+:\w+:[^\s/@]+/){FRESH}[^\s@]+(?=@)",
        ("jdbc:",),
        rf"\1{MASK}",
    ),
    _rule(
        ("sig", "key=", "auth=", "code="),
        rf"(?i)([?&;](?:[\w-]*signature|sig|key|auth|code)=){FRESH}[^\s&\"']+",
        ("[?&;](?:sig|key|auth|code)=", "signature"),
        rf"\1{MASK}",
    ),
)  # fmt: skip

_NAME_OF_SECRET: Final = re.compile(rf"(?:(?i:{NAMES})|{SHOUTED})\Z")


def names_secret(name: str) -> bool:
    """Whether what is called so is a secret."""
    return _NAME_OF_SECRET.match(name) is not None


def is_harmless(value: str) -> bool:
    """Whether a value is none, whatever it is called: a number of tokens, a switch."""
    return not value or _HARMLESS.fullmatch(value) is not None
