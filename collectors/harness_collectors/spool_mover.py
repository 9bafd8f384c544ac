"""Brings what ranks record on a node's own disk to the run folder: once a node, beside them.

It runs where the samplers run, so it outlives ranks that are killed, and ends with the job.
Files only grow (docs/spool.md), so each pass appends what is new; the live page, 4 KiB, is
replaced. Passes are spans of the run, of category io.
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
        last = self._pass(whole=True)
        if last.problem:
            os.write(2, f"harness agent: spools stay in {self.source}: {last.problem}\n".encode())
        else:
            shutil.rmtree(self.source, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.source.parent.rmdir()

    def _pass(self, whole: bool) -> Moved:
        """Bring what is new; of spans only where `whole`, or where none were brought before."""
        start, moved = time.time_ns(), Moved()
        for file in sorted(self.source.glob("*")):
            target = self.target / file.name
            if file.suffix == ".spans" and not whole and target.exists():
                continue
            try:
                brought = bring(file, target)
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


def bring(file: Path, target: Path) -> int:
    """Append what a spool file has and its copy has not; returns the bytes brought.

    Only whole records of spans are taken: their writer may cut the last one off again.

    Raises:
        OSError: one of them cannot be read or written.
    """
    if file.suffix == ".live":
        return _replace_page(file, target)
    size = file.stat().st_size
    if file.suffix == ".spans":
        size -= max(0, size - spool.HEADER_BYTES) % spool.RECORD_BYTES
    with target.open("ab") as sink, file.open("rb") as source:
        have = sink.tell()
        source.seek(have)
        left = max(0, size - have)
        while left and (data := source.read(min(PIECE, left))):
            sink.write(data)
            left -= len(data)
        sink.flush()
        return max(0, size - have) - left


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
