"""What a wrapped command said, where its stdout or stderr is a file: the end of it is kept.

A terminal or a pipe is the command's alone: what went through it cannot be read again.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness_schemas.redact import redact
from harness_schemas.rundir import RunDir

KEPT_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class Output:
    """A file, and how long it was before the command."""

    path: Path
    begin: int


def open_outputs() -> tuple[Output, ...]:
    """The files that stdout and stderr of this process are, and so those of its children."""
    found: dict[tuple[int, int], Output] = {}
    for number in (1, 2):
        try:
            state = os.fstat(number)
            path = Path(f"/proc/self/fd/{number}").readlink()
        except OSError:
            continue
        if stat.S_ISREG(state.st_mode):
            found.setdefault((state.st_dev, state.st_ino), Output(path, state.st_size))
    return tuple(found.values())


def keep_outputs(run: RunDir, outputs: tuple[Output, ...]) -> None:
    """Copy the end of what was written since into `logs/command.err`, secrets masked.

    Raises:
        OSError: the run's folder takes no more.
    """
    text = "".join(_written(output) for output in outputs)
    if text:
        run.command_log.write_text(redact(text), errors="replace")


def _written(output: Output) -> str:
    try:
        with output.path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            begin = output.begin if output.begin <= size else 0  # emptied since
            stream.seek(max(begin, size - KEPT_BYTES))
            data = stream.read()
    except OSError:
        return ""
    if size - begin > KEPT_BYTES:
        data = data.partition(b"\n")[2]  # half a line may hold half a secret
    return data.decode(errors="replace")
