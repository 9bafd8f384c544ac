"""Logs of no format: what ranks, launchers, Slurm and the kernel wrote when something broke.

Only lines that may say why a run ended are kept, with the last lines of each file; the verdict
(`harness_analysis.verdict`) judges them. Files that another collector reads for its own ends are
read here too where they may hold the words of more than one program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness_collectors.failure_log.lines import (
    END_BYTES,
    Notable,
    is_text,
    notable_lines,
    speaks_of_failure,
)
from harness_collectors.options import no_options
from harness_collectors.reading.text_evidence import Tally, batch
from harness_collectors.reading.wrapped import SUFFIXES, is_program_s, is_wrapped
from harness_schemas.spi import Availability, Batch, CapturePlan, CaptureRequest, IngestContext

NAME: Final = "failure_log"
_NUMBERED: Final = re.compile(r"\.[oe]?\d+")
_GROUP_FILES: Final = ("memory.events", "memory.events.local", "memory.oom_control")
"""Of a control group: what the kernel counts there says how its processes ended."""
_SUFFIXES: Final = frozenset({"", ".log", ".err", ".out", ".txt", ".stderr", ".stdout", ".dmesg"})


class FailureLog:
    """Error text of ranks, launcher, Slurm and kernel."""

    name = NAME
    title = "error text of ranks, launcher, Slurm and kernel"
    sources = (NAME,)
    beside: tuple[str, ...] = ("nccl_log",)
    """Collectors whose files are read here as well: one log often holds several programs."""

    def check(self, device: str) -> Availability:
        """Always: the logs of ranks are written anyway."""
        return Availability(True)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """No options.

        Raises:
            ValueError: one was given.
        """
        return no_options(NAME, given)

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Nothing to do: `logs/` is there in any case."""
        return CapturePlan()

    def recognise(self, path: Path, head: bytes) -> bool:
        """Text, plain or in a shipper's JSON, of a failure near its beginning or end."""
        suffix = (Path(path.stem) if path.suffix == ".gz" else path).suffix.lower()
        numbered = _NUMBERED.fullmatch(suffix)  # slurm.out.4711, messages.1, PBS's infer.o4711
        if suffix in SUFFIXES:
            return is_program_s(path) and is_wrapped(head) and speaks_of_failure(path, head)
        if suffix not in _SUFFIXES and not numbered and not path.name.endswith(_GROUP_FILES):
            return False
        return is_text(head) and speaks_of_failure(path, head)

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of `log_lines`, and one row of `collection`."""
        tally = Tally(NAME)
        names: list[str] = []
        for path in sorted(set(files)):
            name = _name(path, context.root)
            try:
                found = notable_lines(path)
                tally.bytes += path.stat().st_size
            except (OSError, EOFError) as error:
                tally.unreadable += 1
                tally.reason = f"{name}: {error}"
                continue
            names.append(name)
            tally.records += len(found)
            if found:
                yield batch("log_lines", [_row(line, name) for line in found])
        if not tally.records and not tally.unreadable:
            tally.state, tally.reason = "ok", ""
        yield batch("collection", [tally.row({"files": names[:50], "end_bytes": END_BYTES})])


def _name(path: Path, root: Path) -> str:
    try:
        return path.resolve().relative_to(root.resolve()).as_posix() or path.name
    except ValueError:
        return path.name


def _row(line: Notable, name: str) -> dict[str, Any]:
    return {
        "rank": line.rank,
        "host": None,
        "kind": line.kind,
        "file": name,
        "line": line.number,
        "text": line.text,
        "source": NAME,
    }


COLLECTOR = FailureLog()
