"""What a run's database says of calls that never ended, as findings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness_analysis.findings.finding import Finding
from harness_analysis.hang.model import Diagnosis, PendingCall
from harness_analysis.hang.say import call_text, named
from harness_analysis.hang.tables import standing

if TYPE_CHECKING:
    import duckdb

MOST_CALLS = 8
_SUSPECT = re.compile(r"; suspect: ranks? (\d+)")


def hang_findings(con: duckdb.DuckDBPyConnection) -> list[Finding]:
    """Who kept the others when the ranks ended, then the calls in which they were."""
    found = standing(con)
    diagnosis, text = found if found is not None else (None, "")
    findings = list(_declared(con)) or list(_blame(diagnosis, text))
    calls = diagnosis.calls if diagnosis else ()
    findings += [_open_call(call) for call in calls[:MOST_CALLS]]
    if len(calls) > MOST_CALLS:
        more = f"{len(calls) - MOST_CALLS:,} more calls never ended"
        findings.append(Finding("notice", "stuck", f"{more} (`unsplit_reason` in collectives)"))
    return findings


def _declared(con: duckdb.DuckDBPyConnection) -> Iterator[Finding]:
    """A hang that the harness declared: its verdict rests on more, as how the processes stood."""
    row = con.execute("SELECT verdict, verdict_detail FROM runs").fetchone()
    if row is None or row[0] != "hang":
        return
    detail = row[1] or "the run hung"
    suspect = _SUSPECT.search(detail)
    text = detail.partition("; suspect: ")[0].removeprefix("launcher: ")
    yield Finding("problem", "hang", text, rank=int(suspect[1]) if suspect else None)


def _blame(found: Diagnosis | None, text: str) -> Iterator[Finding]:
    if found is not None and found.kind in ("missing", "cycle", "mismatch"):
        who = next(iter(found.culprits), None)
        yield Finding("problem", "hang", f"when the ranks ended, {text}", rank=who)


def _open_call(call: PendingCall) -> Finding:
    waiting = named(call.waiting)
    if call.op in ("send", "recv"):
        text = f"{waiting} was inside {call_text(call)} when it ended"
        return Finding("notice", "stuck", text, rank=call.peer)
    if not call.missing:
        was = "were" if len(call.waiting) > 1 else "was"
        text = f"{waiting} {was} inside {call_text(call)} at the end"
        return Finding("notice", "stuck", text)
    missing = named(sorted(call.missing))
    text = f"{waiting} waited in {call_text(call)} for {missing}, which never came"
    return Finding("notice", "stuck", text, rank=min(call.missing))
