"""The committed fixture is what `exports.decode` writes, so that it can be read as text."""

from __future__ import annotations

import sqlite3

from support import ROOT
from unit.collectors.nsys.exports import decode

FIXTURE = ROOT / "tests" / "fixtures" / "nsys" / "report.sqlite"


def content(path):
    with sqlite3.connect(path) as con:
        lines = list(con.iterdump())
    con.close()
    return lines


def test_the_fixture_is_of_our_own_making(tmp_path):
    assert content(FIXTURE) == content(decode().write(tmp_path / "report.sqlite"))
