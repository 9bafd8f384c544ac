"""What the tests on a real Slurm share: `harness` as typed, counted commands, small scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness_analysis.store import open_database

COUNTED = ("squeue", "sacct", "scontrol", "sinfo", "scancel", "sstat")

COMMAND = f"{sys.executable} -m harness"

# A rank of somebody else's: spans and units, hardly any load, until it is told to end.
THEIR_RANK = """
import os, sys, time
from harness import probe
seconds = float(sys.argv[1])
probe.start()
began, step = time.monotonic(), 0
while time.monotonic() - began < seconds:
    step += 1
    with probe.unit("decode", step=step, batch=0):
        with probe.span("work"):
            time.sleep(0.05)
probe.stop()
"""


RANK = f"srun {sys.executable} rank.py"
SMALL = "#SBATCH --nodes=1 --ntasks=1 --mem=200\n"
"""One CPU and little memory, so that jobs run side by side; later directives override it."""


def script(folder: Path, name: str, body: str, options: str = "") -> str:
    """A job script of somebody's, with their rank program beside it."""
    (folder / "rank.py").write_text(THEIR_RANK)
    (folder / name).write_text(f"#!/bin/bash\n{SMALL}{options}{body}")
    return name


def start(*arguments: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """`harness ...`, going on beside the test."""
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], timeout: float = 120) -> tuple[int, str, str]:
    """Its exit code, what it printed and what it said."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def harness(*arguments: str, cwd: Path, **env: str) -> tuple[int, str, str]:
    """`harness ...` to its end."""
    return end(start(*arguments, cwd=cwd, **env))


def counting_path(folder: Path) -> tuple[dict[str, str], Path]:
    """A PATH on which every question to Slurm leaves a line `<time> <command> <arguments>`."""
    log = folder / "calls.log"
    programs = folder / "bin"
    programs.mkdir()
    for name in COUNTED:
        real = shutil.which(name)
        script = programs / name
        script.write_text(f'#!/bin/sh\necho "$(date +%s.%N) {name} $*" >>{log}\nexec {real} "$@"\n')
        script.chmod(0o755)
    log.touch()
    return {"PATH": f"{programs}:{os.environ['PATH']}"}, log


def calls(log: Path, name: str) -> list[float]:
    """When a command was called."""
    lines = (line.split(" ", 2) for line in log.read_text().splitlines())
    return [float(when) for when, command, *_ in lines if command == name]


def latest(folder: Path) -> Path:
    """The newest run."""
    return (folder / "runs" / "latest").resolve()


def wait_for(path: Path, seconds: float = 60, tick: Callable[[], object] = lambda: None) -> None:
    """Until a file is there; `tick` is called now and then."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        tick()
        time.sleep(0.2)


def job_of(run: Path) -> str:
    """The id under which a run was submitted."""
    return str(json.loads((run / "job" / "job.json").read_text())["job_id"])


def rows(run: Path, sql: str) -> list[tuple[object, ...]]:
    """Rows of a run's database."""
    with open_database(run / "run.duckdb") as con:
        return con.execute(sql).fetchall()
