"""Progress on stderr, read from the live page of rank 0: no second channel into the ranks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from harness_schemas.live import UnitNow, read_page

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


def follow(page_file: Path, narrator: Narrator) -> Iterator[None]:
    """Each `next` looks once at rank 0's live page and narrates what changed."""
    started = last_line = time.monotonic()
    phase, known = "", 0
    while True:
        page = read_page(page_file)
        if page is not None and page.now is not None and page.unit != known:
            unit, known, now = page.now, page.unit, time.monotonic()
            name = "warm-up" if unit.warmup or unit.phase == "warmup" else unit.phase
            text = ""
            if name != phase and name not in ("postprocess", "prefill", "decode"):
                text = name
            elif phase in ("load", "preprocess", "warm-up") and name in ("prefill", "decode"):
                text = "generate"
            elif now - last_line > SECONDS_BETWEEN_LINES:
                text = _describe(unit)
            if text:
                narrator.say(f"  {now - started:6.1f} s  {text}")
                last_line = now
            phase = name
            narrator.status(f"  {now - started:6.1f} s  {_describe(unit)}")
        yield


def _describe(unit: UnitNow) -> str:
    parts = (("repeat", unit.repeat), ("batch", unit.batch), ("step", unit.step))
    return " ".join(
        [unit.phase, *(f"{name} {value}" for name, value in parts if value is not None)]
    )
