"""Lines without a record: a bare banner, a watchdog's message, or a torn piece of a record."""

from __future__ import annotations

import re
from typing import Final

from harness_collectors.nccl_log.evidence import events
from harness_collectors.nccl_log.evidence.owner import Owners
from harness_collectors.nccl_log.evidence.state import MAX_EVENTS, Event, Evidence, LogFile
from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.grammar.lines import MIDDLE_MARK
from harness_collectors.nccl_log.grammar.words import mentions

_CUT_LEVEL: Final = re.compile(rb"\] NCCL ?(?:I|IN|INF|INFO|W|WA|WAR|WARN)?\s*$")


def read_foreign(evidence: Evidence, file: LogFile, owners: Owners, line: bytes, cut: bool) -> None:
    """Read what a line says that no process is known to have printed.

    `cut`: the file ends inside this line.
    """
    if b"NCCL" not in line and b"RCCL version " not in line:
        file.tails += mentions(line)
        prefix = lines.CUT_PREFIX.search(line[-400:])
        whole = prefix is not None and not owners.is_host(prefix[1].decode("ascii"))
        file.unreadable += not whole
        return
    if version := lines.version_said(line):
        if not cut:
            file.bare_versions[version] += 1
            file.records += 1
        return
    for event in events.watchdog(line):
        note_event(evidence, file, event)
    torn = _CUT_LEVEL.search(line[-40:]) is not None or MIDDLE_MARK in line
    file.unreadable += torn or b" opCount " in line


def note_event(evidence: Evidence, file: LogFile, event: Event) -> None:
    """Keep an event, of the first ones."""
    file.records += 1
    if len(evidence.events) < MAX_EVENTS:
        evidence.events.append(event)
    else:
        file.dropped += 1
