"""Secrets that are known by their own shape, whatever stands around them.

Source: what the providers' pages, and keys in public examples, look like in 2026.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from harness_schemas.redact.rule import MASK, Rule

_ALNUM: Final = "[A-Za-z0-9]"
_WORD: Final = r"[\w-]"
_HEX: Final = "[0-9a-f]"
_UPPER: Final = "[A-Z0-9]"
_BASE64: Final = "[A-Za-z0-9+/=]"


_APART: Final = r"(?:(?<![A-Za-z0-9])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt])|(?<=\[\dm)|(?<=\[\d\dm))"
"""Before a word; what is written with letters there may be an escape, or a terminal's colour."""


@dataclass(frozen=True)
class _Token:
    """Keys that begin with one of some texts and go on with at least `least` of some signs.

    In the middle of a word, as in `kernelhf_...`, what begins so may be another word: there
    `glued` signs are asked for (None: never). An underscore before it is no part of a word,
    since names are put together with it. `only`: a condition on what follows the beginning.
    """

    beginnings: str
    signs: str
    least: int
    glued: int | None = None
    only: str = ""

    def rule(self) -> Rule:
        literals = self.beginnings.split()
        begin = "|".join(re.escape(each) for each in literals)
        body = rf"(?:{begin}){self.only}{self.signs}"
        form = rf"{_APART}{body}{{{self.least},}}"
        if self.glued is not None:
            form += rf"|{body}{{{self.glued},}}"
        words = tuple(each.lower() for each in literals)
        # In capitals too what is written in small letters: names of protocols are stored so.
        any_case = self.beginnings.islower() and "A-Z]" not in self.only
        flags = re.ASCII | re.IGNORECASE if any_case else re.ASCII
        hint = tuple(map(re.escape, literals))
        return Rule(words, re.compile(form, flags), MASK, hint)


_TOKENS: Final = (
    # Hubs of models, and those who serve them.
    _Token("hf_ api_org_", _ALNUM, 16, 30, r"(?=[A-Za-z]*\d|[A-Za-z0-9]{28})"),
    _Token("sk-ant- sk-proj- sk-svcacct- sk-admin- sk-or- sk-lf-", _WORD, 16, 20),
    _Token("sk-", _WORD, 16, only=r"(?=[\w-]*\d|[A-Za-z]{16})"),
    _Token("sk-", _ALNUM, 32, 40),
    _Token("nvapi-", _WORD, 16, 16),
    _Token("wandb_v1_ wandb_v2_", r"\w", 16, 30),
    _Token("r8_", _ALNUM, 37, 37),
    _Token("gsk_", _ALNUM, 20, 50),
    _Token("lsv2_", r"\w", 16, 30),
    _Token("pplx- xai-", _ALNUM, 30, 40),
    _Token("rpa_", _UPPER, 30, 40),
    _Token("pcsk_ tgp_v1_", _WORD, 30, 30),
    _Token("fw_", _ALNUM, 22, only=r"(?=[A-Za-z]*\d)(?=[a-z0-9]*[A-Z])(?=[A-Z0-9]*[a-z])"),
    _Token("csk- tvly- figd_ jina_", _WORD, 24, only=r"(?=[\w-]*\d)"),
    # Clouds.
    _Token("AKIA ASIA ABIA ACCA", _UPPER, 12, 16),
    _Token("ABSK", _BASE64, 60, 60),
    _Token("IQoJb3JpZ2lu FwoGZXIvYXdz FQoGZXIvYXdz", "[A-Za-z0-9+/=%]", 20, 20),
    _Token("AIza", _WORD, 30, 30),
    _Token("ya29.", r"[\w.-]", 16, 40),
    _Token("GOCSPX-", _WORD, 20, 20),
    _Token("GOOG1E", _UPPER, 20, 40),
    _Token("1//0", _WORD, 30),
    _Token("LTAI", _ALNUM, 12, 20),
    _Token("AKID AKLT ALTAK-", _ALNUM, 20, 30),
    _Token("AQVN", _WORD, 35, 35),
    _Token("dop_v1_ doo_v1_ dor_v1_", _ALNUM, 16, 16),
    _Token("dapi", _HEX, 32, 32),
    _Token("hvs. hvb. hvr.", _WORD, 20, 24),
    # Forges and registries.
    _Token("ghp_ gho_ ghu_ ghs_ ghr_", _ALNUM, 16, 36),
    _Token("github_pat_", r"\w", 16, 16),
    _Token("glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glagent- gloas-", _WORD, 16, 16),
    _Token("ATATT3 ATCTT3", r"[\w=-]", 50, 50),
    _Token("ATBB", _ALNUM, 24, 28),
    _Token("npm_", _ALNUM, 20, 36),
    _Token("pypi-", _WORD, 20, only=r"(?=AgE|[\w-]{0,40}\d)"),
    _Token("rubygems_ sbp_", _HEX, 40, 40),
    _Token("dckr_pat_ dckr_oat_", _WORD, 20, 20),
    _Token("pul-", _HEX, 40),
    # Messengers, payment, watching, networks.
    _Token("xoxa- xoxb- xoxc- xoxd- xoxe- xoxe. xoxp- xoxr- xoxs- xapp-", r"[\w.-]", 10, 16),
    _Token("sk_live_ sk_test_ rk_live_ rk_test_", _ALNUM, 10, 16),
    _Token("sk_", _HEX, 40),
    _Token("whsec_", _BASE64, 24, 30),
    _Token("shpat_ shpca_ shppa_ shpss_", _HEX, 32, 32),
    _Token("glsa_ glc_ sntrys_ sntryu_ lin_api_", r"[\w+/=]", 30, 30),
    _Token("PMAK- NRAK- HRKU-", _WORD, 20, 24),
    _Token("dp.pt. dp.st. dp.ct. dp.sa.", _ALNUM, 40, 40),
    _Token("tskey-", _WORD, 16, 20),
    _Token("AGE-SECRET-KEY-1", _UPPER, 30, 30),
    _Token("fm1_ fm2_", r"[\w+/=-]", 30),
    _Token("key-", _HEX, 32),
)

_OTHERS: Final = (
    # Web tokens; base 64 of other objects; base 64 of a key's `-----BEGIN`.
    ("eyj", rf"{_APART}eyJ[\w-]{{10,}}\.[\w-]{{10,}}(?:\.[\w-]*)*", "eyJ"),
    ("eyj", r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}(?:\.[\w-]*)*", "eyJ"),
    ("eyj", rf"{_APART}eyJ[\w+/=-]{{40,}}", "eyJ"),
    ("ls0tls1crudjti", rf"LS0tLS1CRUdJTi{_BASE64}+", "LS0tLS1CRUdJTi"),
    # SendGrid, Mapbox: three parts.
    ("sg.", rf"{_APART}SG\.[\w-]{{10,}}\.[\w-]{{10,}}", r"(?-i:SG\.)"),
    ("k.eyj", rf"{_APART}[sp]k\.eyJ[\w-]{{10,}}\.[\w-]{{10,}}", r"k\.eyJ"),
    # Azure: a client's secret, an account's key, a key of its models.
    ("q~", r"[\w~.-]{3}\dQ~[\w~.-]{31,40}", r"\dQ~"),
    ("==", r"[A-Za-z0-9+/]{86}==", "[a-z0-9+/]=="),
    ("jqqj99", r"[A-Za-z0-9]{20,}JQQJ99[A-Za-z0-9]{20,}", "JQQJ99"),
    # Telegram's bots, hooks of messengers, channels of Anaconda.
    (":aa", r"(?<!\d)\d{8,10}:AA[\w-]{30,}", r"\d:AA"),
    ("hooks.slack.com", r"(?<=hooks\.slack\.com/)[\w/]{8,}", r"hooks\.slack\.com/"),
    ("/api/webhooks/", r"(?<=/api/webhooks/)\d+/[\w-]{20,}", "/api/webhooks/"),
    ("webhook.office.com", r"(?<=webhook\.office\.com/)[\w/@-]{8,}", r"webhook\.office\.com/"),
    ("/t/", r"(?<=/t/)[a-z]{2}-[\w-]{16,}", "/t/[a-z]{2}-"),
    # What `crypt` makes of a password.
    (
        "$",
        r"\$(?:[1567]|2[abxy]|g?y|argon2\w+)\$[\w./=,-]{1,40}\$[\w./$=,-]{20,}",
        r"\$(?:[1567]|2[abxy]|g?y|argon2\w+)\$",
    ),
    (
        "private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z ]+-----|\Z)",
        "-----BEGIN",
    ),
    # One without its frame, and a line of one, as logs are read: of the lengths programs write.
    ("mii", rf"{_APART}MII[BCEFGJ]{_BASE64}{{40,}}", "MII[BCEFGJ]"),
    ("b3blbnnzac1r", rf"b3BlbnNzaC1r{_BASE64}{{20,}}", "b3BlbnNzaC1r"),
    (
        "",
        r"(?m)^(?=[A-Za-z0-9+/]{64})(?=[^a-z\n]*[a-z])(?=[^A-Z\n]*[A-Z])(?=[^0-9+/\n]*[0-9+/])"
        r"[A-Za-z0-9+/]{64}(?:[A-Za-z0-9+/]{6}){0,2}={0,2}(?=[ \t\r]*$)",
        "^[a-z0-9+/]{64}",
    ),
)

SHAPES: Final = (
    *(token.rule() for token in _TOKENS),
    *(Rule((word,), re.compile(form, re.ASCII), MASK, (hint,)) for word, form, hint in _OTHERS),
)
