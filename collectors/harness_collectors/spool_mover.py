"""Brings what ranks record on a node's own disk to the run folder: once a node, beside them.

It runs where the samplers run, so it outlives ranks that are killed, and ends with the job.
Files only grow (docs/spool.md), so each pass appends what is new, of gzip streams whole flushes;
the live page, 4 KiB, is replaced. Passes are spans of the run, of category io.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_schemas import spool
from harness_schemas.rundir import RunDir
from harness_schemas.units import parse_duration_ns

TICK_SECONDS = 1.0
"""How often what is small is brought: rare lines and live pages, which `harness status` reads."""
LAST_SECONDS = 5.0
"""How long the end waits for ranks that still live: Slurm tells them and this to end at once."""
STOP_SECONDS = 60.0
PIECE = 16 << 20


@dataclass
class Moved:
    """What a pass brought."""

    files: int = 0
    num_bytes: int = 0
    problem: str = ""


class SpoolMover:
    """Moves one node's spools until it is told to stop (harness_schemas.spi.Sampler)."""

    def __init__(self, run_dir: Path, host: str, options: Mapping[str, Any]) -> None:
        self.source = Path(options["source"]) / host
        self.target = RunDir(run_dir).spans
        self.host = host
        self.every_s = parse_duration_ns(options["every"]) / 1e9
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; called once."""
        self._thread = threading.Thread(target=self._run, name="spool-mover", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Bring the rest, remove the node's copies, end; idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=STOP_SECONDS)

    def _run(self) -> None:
        due = time.monotonic() + self.every_s
        while not self._stopping.wait(min(TICK_SECONDS, self.every_s)):
            whole = time.monotonic() >= due
            due = time.monotonic() + self.every_s if whole else due
            self._pass(whole)
        deadline = time.monotonic() + LAST_SECONDS
        while any(ranks_alive(self.source)) and time.monotonic() < deadline:
            time.sleep(0.05)
        moved = self._pass(whole=True, last=True)
        if moved.problem:
            os.write(2, f"harness agent: spools stay in {self.source}: {moved.problem}\n".encode())
        else:
            shutil.rmtree(self.source, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.source.parent.rmdir()

    def _pass(self, whole: bool, last: bool = False) -> Moved:
        """Bring what is new; of streams only where `whole`, or where none were brought before."""
        start, moved = time.time_ns(), Moved()
        for file in sorted(self.source.glob("*")):
            target = self.target / file.name
            if file.suffix == ".gz" and not whole and target.exists():
                continue
            try:
                brought = bring(file, target, last)
            except OSError as error:
                moved.problem = f"{file.name}: {error.strerror or error}"
                continue
            moved.num_bytes += brought
            moved.files += brought > 0
        if moved.problem or (whole and moved.files):
            self._note(start, moved)
        return moved

    def _note(self, start_ns: int, moved: Moved) -> None:
        facts = {"category": "io", "op": "copy", "host": self.host, "error": moved.problem}
        counts = {"bytes": moved.num_bytes, "files": moved.files}
        line = otlp_line("bring spools", start_ns, time.time_ns(), {**facts, **counts})
        with (
            contextlib.suppress(OSError),
            (self.target / f"stage-{self.host}.otel.jsonl").open("a") as stream,
        ):
            stream.write(line)


def bring(file: Path, target: Path, last: bool = False) -> int:
    """Append what a spool file has and its copy has not; returns the bytes brought.

    Of a gzip stream only whole flushes are taken before the `last` time: what a full disk has cut
    a rank takes off again.

    Raises:
        OSError: one of them cannot be read or written.
    """
    if file.suffix == spool.LIVE:
        return _replace_page(file, target)
    by_flushes = file.suffix == ".gz" and not last
    size = file.stat().st_size
    with target.open("ab") as sink, file.open("rb") as source:
        begin = place = sink.tell()
        if size < place:  # what was brought was no whole flush after all
            sink.truncate(0)
            begin = place = 0
        while place < size:
            source.seek(place)
            data = source.read(min(PIECE, size - place))
            if by_flushes:
                data = _whole_flushes(data)
            if not data:
                break
            sink.write(data)
            place += len(data)
    return place - begin


def _whole_flushes(data: bytes) -> bytes:
    end = data.rfind(spool.SYNC)
    return data[: end + len(spool.SYNC)] if end >= 0 else b""


def _replace_page(file: Path, target: Path) -> int:
    data = file.read_bytes()
    with contextlib.suppress(OSError):
        if target.read_bytes() == data:
            return 0
    # In place: a reader finds a page at any time, as with the rank's own.
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        return os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


def ranks_alive(folder: Path) -> Iterator[int]:
    """Processes that write here and have not ended."""
    for path in folder.glob("rank-*.meta.jsonl"):
        try:
            with path.open("rb") as stream:
                pid = int(json.loads(stream.readline(65536))["pid"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state not in ("Z", "X"):
                yield pid


def otlp_line(name: str, start_ns: int, end_ns: int, attributes: Mapping[str, Any]) -> str:
    """A span of its own trace as a line of OTLP JSON; integers as strings, as the format asks."""
    pairs = [
        {
            "key": key,
            "value": {"intValue": str(value)} if type(value) is int else {"stringValue": value},
        }
        for key, value in attributes.items()
        if value != ""
    ]
    span = {
        "traceId": secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(end_ns),
        "attributes": pairs,
    }
    scope = {"scope": {"name": "harness"}, "spans": [span]}
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [scope]}]}) + "\n"


sampler = SpoolMover
