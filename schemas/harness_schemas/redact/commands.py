"""Secrets on command lines, known by the program or the option before them."""

from __future__ import annotations

import re
from typing import Final

from harness_schemas.redact.named import NAME_HINT, NAMES, VALUE, quotes_kept
from harness_schemas.redact.rule import FRESH, MASK, Rule

_OPTION: Final = r"(?<![\w-])--?"
_TO_OPTION: Final = r"(?:\\?[\"']\s*,\s*|(?:[ \t\x00]|\\u0000|\\t)+|=)"
_ON: Final = r"[^\r\n|]{0,400}?"
"""What may stand between a program and its option: the rest of a command."""
_WORD: Final = r"[^\s\"']{3,}"

_CLIENTS: Final = (
    # Programs, what follows their names, what stands before the secret, and, where a program's
    # name is short enough to be anything, what to look for in many texts.
    ("mysql mariadb sshpass mongo smbclient", r"[\w.-]*\b", r"\s-p[ =]?", ""),
    ("7z 7za", r"\s+\w\b", r"\s-p", r"7za?\b"),
    (
        "docker podman nerdctl helm skopeo buildah oras crane apptainer singularity oc az cf",
        rf"\b{_ON}\blogin\b",
        r"\s-p[ =]?",
        "login",
    ),
    ("twine", r"\b", r"\s-p[ =]?", ""),
    ("ipmitool sqlcmd bcp zip unzip", r"\b", r"\s-P[ =]?", "(?-i:-P)"),
    ("redis-cli", r"\b", r"\s-a[ =]?", ""),
    ("ldapsearch ldapmodify ldapadd ldapwhoami ldappasswd", r"\b", r"\s-w[ =]?", ""),
    ("lftp", r"\b", r"\s-u[ =]?[^\s,]+,", ""),
    ("smbclient rpcclient", r"\b", r"\s-U[ =]?[^\s%]+%", ""),
    ("curl wget", r"\b", r"\s(?:-u|--user|--proxy-user)[ =]?[\"']?[^\s:\"']+:", ""),
    ("http https", "", r"\s(?:-a|--auth)[ =]?[^\s:]+:", r"\bhttps?\b[^:]"),
    ("sqlplus", r"\b", r"\s[\w$]+/(?=[^\s@/]+@)", ""),
    ("openssl", r"\b", r"\spass:", ""),
    ("kubectl", r"\b", r"\s--from-literal[ =][\"']?[\w.-]+=", ""),
)
_LOGINS: Final = "wandb vault huggingface-cli hf modelscope railway gh"


def _client(programs: str, more: str, before: str, hint: str) -> Rule:
    names = programs.split()
    either = "|".join(re.escape(name) for name in names)
    form = rf"(\b(?:{either}){more}{_ON}{before}){FRESH}{_WORD}"
    # Small letters in a program's name; the case of an option matters (-p, -P).
    return Rule(tuple(names), re.compile(form), rf"\1{MASK}", (hint,) if hint else tuple(names))


COMMANDS: Final = (
    # An option and its value in the next word: `--api-key x`, ["--api-key", "x"], NUL-separated.
    Rule(
        ("-",),
        re.compile(
            rf"(?i)({_OPTION}(?:{NAMES}|(?:[\w-]+-)?(?:pass|pw|pwd|auth|creds)){_TO_OPTION})({VALUE})"
        ),
        quotes_kept,
        (*NAME_HINT, r"-(?:pass|pwd?|auth|creds)\b"),
    ),
    *(_client(*each) for each in _CLIENTS),
    Rule(
        ("login",),
        re.compile(
            rf"(\b(?:{_LOGINS.replace(' ', '|')})\s+(?:auth\s+)?login\b{_ON}\s){FRESH}"
            r"(?=[\w.-]*\d)[\w.-]{16,}"
        ),
        rf"\1{MASK}",
        ("login",),
    ),
    # What is said into a program: `echo x | sudo -S`, `chpasswd <<< u:x`.
    Rule(
        ("|",),
        re.compile(
            rf"(\b(?:echo|printf)\s+(?:-\w+\s+)?)({VALUE})(?=[^\r\n|]{{0,80}}\|\s*"
            r"(?:sudo\b|chpasswd|passwd|[^\r\n|]{1,120}?(?:-stdin\b|--with-token)))"
        ),
        quotes_kept,
        ("echo", "printf"),
    ),
    Rule(
        ("<<<",),
        re.compile(rf"(\b(?:sudo|chpasswd|passwd|login)\b[^\r\n|]{{0,120}}?<<<\s*)({VALUE})"),
        quotes_kept,
        ("<<<",),
    ),
)  # fmt: skip
