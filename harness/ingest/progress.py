"""What ingest says while it works: a bar on a terminal, one line elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import IO, TYPE_CHECKING

from harness_schemas.units import format_bytes

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Watch:
    """Hears how far an ingest is; this one keeps it to itself."""

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The ingest is over."""

    def begin(self, parts: int, size: int, jobs: int) -> None:
        """So many parts of so many bytes will be read by so many processes."""

    def advance(self, size: int) -> None:
        """So many more bytes are read."""

    def phase(self, name: str) -> None:
        """All rows are in; what is done with them now."""

    def say(self, line: str) -> None:
        """Something that a user should know of the evidence."""


class PartWatch:
    """Tells a watch about one part: what its reader says on the way, at most the part's bytes, and
    the rest when it is over."""

    def __init__(self, watch: Watch, size: int) -> None:
        self._watch = watch
        self._left = size

    def advance(self, size: int) -> None:
        """The reader has read so many more bytes, or some of them again."""
        told = max(0, min(size, self._left))
        self._left -= told
        self._watch.advance(told)

    def finish(self) -> None:
        """The part is over."""
        self.advance(self._left)


class LineWatch(Watch):
    """One line on stderr."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr

    def begin(self, parts: int, size: int, jobs: int) -> None:
        """Say it."""
        self.say(f"ingest: {_describe(parts, size, jobs)}")

    def say(self, line: str) -> None:
        """Write it."""
        self._stream.write(f"{line}\n")
        self._stream.flush()


class BarWatch(Watch):
    """A bar that is gone when the ingest is over."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, parts: int, size: int, jobs: int) -> None:
        """Draw it."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
        self._bar = Progress(
            *columns, TimeElapsedColumn(), console=Console(file=self._stream), transient=True
        )
        self._task = self._bar.add_task(f"read {_describe(parts, size, jobs)}", total=size)
        self._bar.start()

    def advance(self, size: int) -> None:
        """Move it."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, size)

    def phase(self, name: str) -> None:
        """Rename it."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=name)

    def say(self, line: str) -> None:
        """Write it; not while the bar is there."""
        self._stream.write(f"{line}\n")
        self._stream.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove it."""
        if self._bar is not None:
            self._bar.stop()


def watch_on(stream: IO[str] | None = None) -> Watch:
    """The watch that fits the stream (stderr)."""
    target = stream or sys.stderr
    return BarWatch(target) if target.isatty() else LineWatch(target)


def _describe(parts: int, size: int, jobs: int) -> str:
    processes = f", {jobs} processes" if jobs > 1 else ""
    return f"{parts} {'part' if parts == 1 else 'parts'}, {format_bytes(size)}{processes}"
