"""What a job leaves in its run folder: that it began, how it ended, and its earlier attempts.

These marks, not the controller, say how a run stands. `job/begin.json` and `job/end.json` are
those of the current attempt; an attempt that was requeued is set aside in `attempts/<number>`,
a run folder of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness_schemas.rundir import RunDir, write_json

PARTS = ("spans", "logs", "artifacts", "completions")
"""What an attempt writes, besides its marks."""
SHARED = ("logs/launcher.out", "logs/launcher.err", "job/job.json", "job/script.sh")
"""What all attempts have in common; an earlier one gets a copy."""
BEGIN, END, JOB = "begin.json", "end.json", "job.json"


@dataclass(frozen=True)
class Begin:
    """An attempt has begun: on which host, as which job, and where its output goes."""

    attempt: int
    job_id: str
    host: str
    stdout: str | None = None
    stderr: str | None = None
    began_ns: int = 0


@dataclass(frozen=True)
class Ended:
    """An attempt has ended with this code. `stopped`: Slurm told it to end."""

    exit_code: int
    stopped: bool = False
    ended_ns: int = 0


@dataclass(frozen=True)
class JobRecord:
    """What the submitter noted of a job, so that another process can take over (`--attach`)."""

    job_id: str
    kind: str
    """`spec`: a specification's. `wrap`: somebody's own script."""
    cluster: str | None = None
    tasks: tuple[int, ...] = ()
    submitted_ns: int = 0

    def write(self, run: RunDir) -> None:
        """Leave it in the run's folder."""
        folder(run).mkdir(exist_ok=True)
        write_json(folder(run) / JOB, asdict(self))

    @classmethod
    def read(cls, run: RunDir) -> JobRecord | None:
        """The record of a run; None where it was not submitted."""
        data = _read(folder(run) / JOB)
        try:
            return cls(**{**data, "tasks": tuple(data["tasks"])}) if data else None
        except (TypeError, KeyError):
            return None

    def runs(self, run: RunDir) -> dict[str, RunDir]:
        """The run folder of each of its Slurm jobs: itself, or one a task of the array."""
        if not self.tasks:
            return {self.job_id: run}
        return {f"{self.job_id}_{task}": task_run(run, task) for task in self.tasks}


def folder(run: RunDir) -> Path:
    """Where the marks lie."""
    return run.path / "job"


def task_run(run: RunDir, task: int) -> RunDir:
    """The run folder of an array's task."""
    return RunDir(run.path / f"task-{task}")


def write_begin(run: RunDir, job_id: str, attempt: int) -> None:
    """Mark that this process begins an attempt."""
    folder(run).mkdir(exist_ok=True)
    begin = Begin(attempt, job_id, socket.gethostname(), _target(1), _target(2), time.time_ns())
    write_json(folder(run) / BEGIN, asdict(begin))


def write_end(run: RunDir, exit_code: int, stopped: bool) -> None:
    """Mark that the attempt has ended."""
    write_json(folder(run) / END, asdict(Ended(exit_code, stopped, time.time_ns())))


def read_begin(run: RunDir) -> Begin | None:
    """The current attempt's beginning; None where it has not begun."""
    data = _read(folder(run) / BEGIN)
    try:
        return Begin(**data) if data else None
    except TypeError:
        return None


def read_end(run: RunDir) -> Ended | None:
    """The current attempt's end; None where it goes on, or was killed."""
    data = _read(folder(run) / END)
    try:
        return Ended(**data) if data else None
    except TypeError:
        return None


def set_aside(run: RunDir, restart: int) -> None:
    """Make room for run number `restart` of a requeued job: the one before keeps its files."""
    before = run.path / "attempts" / str(restart - 1)
    if restart < 1 or before.exists():
        return
    before.mkdir(parents=True)
    for name in (*PARTS, "job"):
        with contextlib.suppress(OSError):
            (run.path / name).rename(before / name)
        (run.path / name).mkdir(exist_ok=True)
    for name in SHARED:
        with contextlib.suppress(OSError):
            # Moved back, not copied back: Slurm has opened the output for this attempt already.
            (before / name).rename(run.path / name)
            (before / name).write_bytes((run.path / name).read_bytes())
    with contextlib.suppress(OSError):
        (before / "run.json").write_bytes(run.run_json.read_bytes())


def attempts(run: RunDir) -> list[RunDir]:
    """Earlier attempts, oldest first."""
    found = (path for path in (run.path / "attempts").glob("[0-9]*") if path.name.isdigit())
    return [RunDir(path) for path in sorted(found, key=lambda path: int(path.name))]


def _target(fd: int) -> str | None:
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 (no link of the file system's)
    except OSError:
        return None
    return path if path.startswith("/") and not path.startswith("/dev") else None


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
