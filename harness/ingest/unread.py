"""What an ingest says of evidence that it could not read: a user should not have to ask for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

from harness.ingest.evidence import Unread
from harness.ingest.parts import relative_to
from harness.ingest.progress import Watch
from harness_schemas.errors import EvidenceError
from harness_schemas.redact import redact
from harness_schemas.spi import Batch

NAMED = 3
SAID = 5


def say_unread(unread: Iterable[Unread], root: Path, watch: Watch) -> None:
    """One line a reason: the first files by their place in `root`, and how many more."""
    by_reason: dict[str, list[str]] = {}
    for each in unread:
        alone = each.path.resolve() == root
        name = each.path.name if alone else relative_to(each.path, root)
        by_reason.setdefault(each.why, []).append(name)
    for why, names in by_reason.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        watch.say(f"  not read: {', '.join(names[:NAMED])}{more}: {why}")


class Failures:
    """Hears which readers failed, and says so when the ingest is over.

    `all_failed`: an error where every one did, so that no database of nothing is left, nor takes
    the place of a good one.
    """

    def __init__(self, watch: Watch, all_failed: bool) -> None:
        self._watch = watch
        self._strict = all_failed
        self._lines: list[str] = []

    def heard(self, batches: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        """The same batches; their failed rows of `collection` are kept in mind.

        Raises:
            EvidenceError: nothing was read.
        """
        read = 0
        with contextlib.closing(batches):
            for batch in batches:
                size, failed = len(batch.data), 0
                if batch.table == "collection" and "state" in batch.data.column_names:
                    rows = batch.data.to_pylist()
                    lines = [_line(row) for row in rows if row["state"] == "failed"]
                    failed = len(lines)
                    self._lines += lines
                read += size - failed
                yield batch
        if self._strict and self._lines and not read:
            self.say()
            raise EvidenceError("nothing could be read of the evidence", "the lines above say why")

    def say(self) -> None:
        """The first of them, and how many more."""
        for line in self._lines[:SAID]:
            self._watch.say(line)
        if len(self._lines) > SAID:
            more = len(self._lines) - SAID
            self._watch.say(f"  and {more} more: the table `collection` has all")


def _line(row: dict[str, Any]) -> str:
    reason = str(row.get("reason"))
    detail: Any = None
    with contextlib.suppress(TypeError, ValueError):
        detail = json.loads(row["detail"]) if row.get("detail") else None
    told = detail if isinstance(detail, dict) else {}
    files = [str(name) for name in (*told.get("files", ()), *filter(None, [told.get("file")]))]
    named = [name for name in files if name not in reason][:NAMED]
    return redact(
        f"  {row['collector']} failed: {': '.join(filter(None, [', '.join(named), reason]))}"
    )
