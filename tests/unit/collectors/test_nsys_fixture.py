"""The committed fixture is what `nsys_exports.decode` writes, so that it can be read as text."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from unit.collectors.nsys_exports import decode

FIXTURE = Path(__file__).parents[2] / "fixtures" / "nsys" / "report.sqlite"


def content(path):
    with sqlite3.connect(path) as con:
        lines = list(con.iterdump())
    con.close()
    return lines


def test_the_fixture_is_of_our_own_making(tmp_path):
    assert content(FIXTURE) == content(decode().write(tmp_path / "report.sqlite"))
