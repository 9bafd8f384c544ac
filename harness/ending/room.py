"""Room in a run's folder: a full disk, or a quota, explains an end and must not hide it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.ending.outcome import End
from harness.progress import Narrator
from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir

_PROBE_BYTES = 1 << 16


def keep(run: RunDir, data: dict[str, Any], narrator: Narrator) -> None:
    """Write run.json, or say that it cannot be written: the run and its exit code go on."""
    try:
        run.write(data)
    except HarnessError as error:
        narrator.say(f"  {error.message}")


def why_full(folder: Path) -> str | None:
    """What the system says to a small file in `folder`, as `No space left on device`."""
    probe = folder / f".room-{os.getpid()}"
    try:
        with probe.open("wb", buffering=0) as stream:
            stream.write(bytes(_PROBE_BYTES))
            os.fsync(stream.fileno())
        return None
    except OSError as error:
        return error.strerror or str(error)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def with_disk(end: End, run: RunDir) -> End:
    """A bad end with what the file system says: ranks could not write their last words."""
    if not end.exit_code or (why := why_full(run.path)) is None:
        return end
    return replace(end, kernel_lines=(*end.kernel_lines, f"{why}: {run.path}"))


def with_room(error: HarnessError, run: RunDir) -> HarnessError:
    """The error of a launch, with the full disk behind it where there is one."""
    why = why_full(run.path)
    if why is None:
        return error
    hint = "free some room there, or choose another place with --output"
    return HarnessError(f"{error.message}: {why}: {run.path}", hint, error.exit_code)
