"""run.json as it is written before a run has ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from harness.setup.provenance import provenance

VERSION = 1


def first_record(
    name: str, status: str = "running", argv: Sequence[str] = (), **facts: Any
) -> dict[str, Any]:
    """What every kind of run says of itself, and `facts`: run_id, spec, command, ...

    `argv`: the command that is wrapped, for its provenance.
    """
    return {
        "version": VERSION,
        "name": name,
        "status": status,
        "verdict": None,
        "started_ns": time.time_ns(),
        "provenance": provenance(argv),
        "collection": [],
        **facts,
    }
