"""Progress on stderr, read from the spool of rank 0: no second channel into the ranks."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

SECONDS_BETWEEN_LINES = 60.0
"""When stderr is no terminal, one line a minute is enough, besides each change of phase."""


class Narrator:
    """What the harness says while it works: lines on stderr, nothing on stdout."""

    def __init__(self, quiet: bool = False, stream: IO[str] | None = None) -> None:
        self.quiet = quiet
        self._stream = stream or sys.stderr
        self._open_line = False

    @property
    def interactive(self) -> bool:
        """Whether a line may be rewritten in place."""
        return not self.quiet and self._stream.isatty()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        self._close_line()
        self._write(f"{text}\n")

    def status(self, text: str) -> None:
        """A line that the next one replaces (terminals only)."""
        if self.interactive:
            self._write(f"\r\033[K{text[:100]}")
            self._open_line = True

    def _close_line(self) -> None:
        if self._open_line:
            self._write("\r\033[K")
            self._open_line = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def follow(meta: Path, narrator: Narrator) -> Iterator[None]:
    """Each `next` looks once at rank 0's meta file and narrates what changed."""
    position = 0
    rest = b""
    started = last_line = time.monotonic()
    phase, units = "", 0
    while True:
        data, position = _more(meta, position)
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            unit = _unit(line)
            if unit is None:
                continue
            units += 1
            warm = unit.get("warmup") or unit.get("phase") == "warmup"
            name = "warm-up" if warm else str(unit.get("phase"))
            now = time.monotonic()
            if name != phase and name not in ("postprocess", "prefill", "decode"):
                narrator.say(f"  {now - started:6.1f} s  {name}")
                last_line = now
            elif phase in ("load", "preprocess", "warm-up") and name == "prefill":
                narrator.say(f"  {now - started:6.1f} s  generate")
                last_line = now
            phase = name
            narrator.status(_describe(unit, now - started))
            if now - last_line > SECONDS_BETWEEN_LINES:
                narrator.say(f"  {_describe(unit, now - started).strip()}")
                last_line = now
        yield


def _describe(unit: dict[str, object], seconds: float) -> str:
    parts = [f"  {seconds:6.1f} s  {unit.get('phase')}"]
    for name in ("repeat", "batch", "step"):
        if unit.get(name) is not None:
            parts.append(f"{name} {unit[name]}")
    return " ".join(parts)


def _more(path: Path, position: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as stream:
            stream.seek(position)
            data = stream.read(1 << 20)
    except OSError:
        return b"", position
    return data, position + len(data)


def _unit(line: bytes) -> dict[str, object] | None:
    if b'"t":"unit"' not in line[:16]:
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
