"""What samplers share: readings, the file they go to, and the thread that takes them.

A sampler's folder `artifacts/<collector>/<host>/` holds `samples.jsonl`, appended to and handed
to the operating system at least once a second, and at the end `state.json`. The first line of
`samples.jsonl` is a header; then come, in any order,

    {"series": [id, metric, unit, rank, device]}   before any value of that series
    {"anchor": [mono_ns, wall_ns, width_ns]}       one reading of both clocks
    {"m": mono_ns, "w": wall_ns, "v": [[id, value], ...]}   one sample

so that a file cut at any byte is usable up to its last whole line. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from harness_schemas.rundir import RunDir, write_json
from harness_schemas.units import parse_duration_ns

SAMPLES_FORMAT: Final = "harness-samples"
STATE_FORMAT: Final = "harness-sampler-state"
VERSION: Final = 1
SAMPLES_FILE: Final = "samples.jsonl"
STATE_FILE: Final = "state.json"

DEFAULT_INTERVAL: Final = "1s"
SHORTEST_INTERVAL_NS: Final = 100_000_000
FLUSH_NS: Final = 1_000_000_000
ANCHOR_NS: Final = 10_000_000_000
STOP_SECONDS: Final = 5.0


class Reading(NamedTuple):
    """One value; rank and device None: the host."""

    metric: str
    unit: str
    value: float
    rank: int | None = None
    device: int | None = None


class Unavailable(Exception):
    """This host cannot be sampled; a sentence why, and what to do."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class Source(Protocol):
    """Where readings come from. Opened, read and closed by one and the same thread."""

    def describe(self) -> Mapping[str, Any]:
        """What is and is not supported here; goes to `collection.detail`."""

    def problems(self) -> list[str]:
        """What went wrong so far, a sentence each; empty: all is well."""

    def read(self) -> Iterable[Reading]:
        """The values now. May raise: the sample is then lost and counted."""

    def finish(self) -> None:
        """The next `read` is the last."""

    def close(self) -> None:
        """Let go; called once, also after errors."""


def interval_option(given: Mapping[str, Any]) -> dict[str, Any]:
    """The option `interval` of a sampler, checked; other names are refused.

    Raises:
        ValueError: a sentence per mistake, joined by newlines.
    """
    problems = [f"no option {name!r}" for name in sorted(set(given) - {"interval"})]
    options = {"interval": DEFAULT_INTERVAL, **given}
    try:
        if parse_duration_ns(options["interval"]) < SHORTEST_INTERVAL_NS:
            problems.append(f"interval {options['interval']} is shorter than 100ms")
    except ValueError as error:
        problems.append(f"interval: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return options


def boot_id() -> str:
    """Identity of this host's CLOCK_MONOTONIC, by the same rule as the recorder's."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def read_anchor() -> tuple[int, int, int]:
    """(monotonic, wall, width): the tightest of five readings of both clocks, in ns."""
    best = (0, 0, -1)
    for _ in range(5):
        before = time.monotonic_ns()
        wall = time.time_ns()
        width = time.monotonic_ns() - before
        if best[2] < 0 or width < best[2]:
            best = (before + width // 2, wall, width)
    return best


class SampleFile:
    """Appends samples; what the disk refuses is counted, never raised."""

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._fd = os.open(folder / SAMPLES_FILE, flags, 0o644)
        self._lines: list[str] = []
        self._series: dict[tuple[Any, ...], int] = {}
        self._flushed_ns = self._anchored_ns = time.monotonic_ns()
        self.samples = 0
        self.dropped = 0
        self._add({"format": SAMPLES_FORMAT, "version": VERSION, **header})
        self._add({"anchor": read_anchor()})
        self.flush()

    def write(self, readings: Iterable[Reading]) -> None:
        """Append one sample, taken now."""
        now, wall = time.monotonic_ns(), time.time_ns()
        values = [[self._id(reading), reading.value] for reading in readings]
        self._add({"m": now, "w": wall, "v": values})
        self.samples += 1
        if now - self._anchored_ns >= ANCHOR_NS:
            self._anchored_ns = now
            self._add({"anchor": read_anchor()})
        if now - self._flushed_ns >= FLUSH_NS or len(self._lines) > 1000:
            self.flush()

    def _id(self, reading: Reading) -> int:
        key = (reading.metric, reading.unit, reading.rank, reading.device)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = len(self._series)
            self._add({"series": [found, *key]})
        return found

    def _add(self, line: Mapping[str, Any]) -> None:
        self._lines.append(json.dumps(line, separators=(",", ":"), default=str))

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._flushed_ns = time.monotonic_ns()
        lines, self._lines = self._lines, []
        if not lines:
            return
        data = ("\n".join(lines) + "\n").encode()
        try:
            sent = os.write(self._fd, data)
            if sent < len(data):  # a full disk: end the torn line, so that the next one is whole
                self.dropped += data[sent:].count(b"\n")
                os.write(self._fd, b"\n")
        except OSError:
            self.dropped += len(lines)

    def close(self) -> None:
        """Flush and close; idempotent."""
        if self._fd >= 0:
            self._add({"anchor": read_anchor()})
            self.flush()
            os.close(self._fd)
            self._fd = -1


class PeriodicSampler:
    """Reads a source at a fixed interval in a thread of its own, until stopped."""

    def __init__(
        self,
        collector: str,
        run_dir: Path,
        host: str,
        interval: str | float,
        open_source: Callable[[], Source],
    ) -> None:
        self.collector = collector
        self.host = host
        self.folder = RunDir(run_dir).collector_dir(collector, host)
        self._pause_file = RunDir(run_dir).pause_file(collector)
        self.interval_ns = max(parse_duration_ns(interval), SHORTEST_INTERVAL_NS)
        self._open = open_source
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._state: dict[str, Any] = {"state": "failed", "reason": "it never ran"}
        self._errors = 0
        self._late = 0

    def start(self) -> None:
        """Begin; called once."""
        self._thread = threading.Thread(target=self._run, name=self.collector, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End and flush, within five seconds; idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=STOP_SECONDS)

    def _run(self) -> None:
        try:
            self._sample()
        except Unavailable as missing:
            self._state = {"state": "skipped", "reason": join(missing.reason, missing.hint)}
        except Exception as error:  # noqa: BLE001 (a sampler never harms the run)
            self._state = {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(Exception):
            self._write_state()

    def _sample(self) -> None:
        source = self._open()
        file: SampleFile | None = None
        try:
            file = SampleFile(self.folder, self._header(source))
            self._loop(source, file)
        finally:
            with contextlib.suppress(Exception):
                source.close()
            if file is not None:
                file.close()
        self._state = self._verdict(source, file)

    def _header(self, source: Source) -> dict[str, Any]:
        return {
            "collector": self.collector,
            "host": self.host,
            "pid": os.getpid(),
            "boot_id": boot_id(),
            "interval_ns": self.interval_ns,
            "detail": dict(source.describe()),
        }

    def _loop(self, source: Source, file: SampleFile) -> None:
        due = time.monotonic_ns()
        last = False
        while True:
            try:
                if last or not self._pause_file.exists():
                    file.write(list(source.read()))
            except Exception:  # noqa: BLE001 (one sample lost, counted; the next may succeed)
                self._errors += 1
            if last:
                return
            due += self.interval_ns
            left = due - time.monotonic_ns()
            if left < 0:  # a slow source: skip what was missed rather than hurry after it
                self._late += 1
                due -= left
                left = 0
            last = self._stopping.wait(left / 1e9)
            if last:  # one more sample, so that counters have their final value
                source.finish()

    def _verdict(self, source: Source, file: SampleFile) -> dict[str, Any]:
        problems = list(source.problems())
        if self._errors:
            problems.append(f"{self._errors} samples could not be taken")
        if file.dropped:
            problems.append(f"{file.dropped} lines could not be written")
        return {
            "state": "degraded" if problems else "ok",
            "reason": "; ".join(problems),
            "samples": file.samples,
            "errors": self._errors,
            "late": self._late,
            "dropped": file.dropped,
            "detail": dict(source.describe()),
        }

    def _write_state(self) -> None:
        mono, wall, width = read_anchor()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(
            self.folder / STATE_FILE,
            {
                "format": STATE_FORMAT,
                "version": VERSION,
                "collector": self.collector,
                "host": self.host,
                "boot_id": boot_id(),
                "ended": [mono, wall, width],
                **self._state,
            },
        )


def join(reason: str, hint: str) -> str:
    """A reason and what to do, as one line."""
    return f"{reason}; {hint}" if hint else reason


def recognise(collector: str, head: bytes) -> bool:
    """Whether a file that begins with `head` is a sampler's file of this collector."""
    first = head[:8192]
    ours = SAMPLES_FORMAT.encode() in first or STATE_FORMAT.encode() in first
    return (
        ours
        and re.search(rb'"collector":\s*"%s"' % re.escape(collector).encode(), first) is not None
    )
