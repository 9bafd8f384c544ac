"""nsys itself: where it is, which version, and the command that records a rank."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from harness_collectors.options import unknown_options

NSYS_ENV: Final = "HARNESS_NSYS"
OLDEST: Final = (2021, 3)
"""Before it, --capture-range-end and --cuda-graph-trace are not there."""
_NCCL_TRACE_FROM: Final = (2025, 6, 1)
_VERSION = re.compile(r"version (\d{4}(?:\.\d+)+)")
_USUAL_PLACES: Final = (
    "opt/nvidia/nsight-systems*/*/bin/nsys",
    "opt/nvidia/nsight-systems*/bin/nsys",
    "usr/local/cuda*/bin/nsys",
    "usr/local/cuda*/nsight-systems*/bin/nsys",
)

WINDOW_RANGE: Final = "harness-window"
"""The NVTX range that opens the window where there is no CUDA to start the profiler."""

# In the rank's own shell, which becomes nsys, which starts the rank: a node without nsys, or on
# which it does not start, runs the rank as it is and says so in the folder.
WRAP: Final = """\
nsys=$1 folder="$2/$(uname -n)" flags=$3; shift 3
rank=$(printf %05d "${RANK:-${SLURM_PROCID:-0}}")
mkdir -p "$folder"
why=
command -v "$nsys" >/dev/null 2>&1 || why="is not found"
[ "$why" ] || "$nsys" --version >/dev/null 2>&1 || why="does not start"
[ ! "$why" ] || {
  shift "$flags"
  echo "nsys $why on $(uname -n)" >"$folder/rank-$rank.missing"
  exec "$@"
}
exec "$nsys" profile --output="$folder/rank-$rank" "$@"
"""


WINDOW_OPTIONS: Final = ("steps", "first", "count", "every")
GRAPH_MODES: Final = ("node", "graph")
_DEFAULTS: Final[Mapping[str, Any]] = {
    "steps": [], "first": 3, "count": 3, "every": None, "window": True, "graph": "node",
}  # fmt: skip


def complete_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with what was not given.

    Raises:
        ValueError: a sentence a mistake.
    """
    wrong = unknown_options("nsys", given, _DEFAULTS)
    options = {**_DEFAULTS, **{name: given[name] for name in _DEFAULTS if name in given}}
    for name in ("first", "count", "every"):
        value = options[name]
        if not (name == "every" and value is None) and not _whole(value, 1):
            wrong.append(f"{name} is {value!r}, but must be a number from 1 on")
    steps = options["steps"]
    if not isinstance(steps, (list, tuple)) or not all(_whole(step, 0) for step in steps):
        wrong.append(f"steps is {steps!r}, but must be a list of numbers from 0 on")
    if not isinstance(options["window"], bool):
        wrong.append(f"window is {options['window']!r}, but must be true or false")
    if options["graph"] not in GRAPH_MODES:
        wrong.append(f"graph is {options['graph']!r}, but must be node or graph")
    if wrong:
        raise ValueError("\n".join(wrong))
    return options


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def find_nsys() -> str | None:
    """The nsys to use: of HARNESS_NSYS, else of PATH; None: neither."""
    return shutil.which(os.environ.get(NSYS_ENV) or "nsys")


def elsewhere(root: Path = Path("/")) -> Path | None:
    """An nsys that is installed, but not on PATH."""
    found = (path for place in _USUAL_PLACES for path in sorted(root.glob(place)))
    return next(found, None)


@lru_cache(maxsize=4)
def version_of(nsys: str) -> tuple[int, ...]:
    """Its version, as (2023, 4, 4, 54); empty where it does not say.

    Raises:
        OSError: it cannot be run.
    """
    try:
        done = subprocess.run(
            [nsys, "--version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return ()
    match = _VERSION.search(done.stdout.decode("utf-8", "replace"))
    return tuple(int(part) for part in match[1].split(".")) if match else ()


@lru_cache(maxsize=8)
def offers(nsys: str, command: str, option: str) -> bool:
    """Whether a command of this nsys has an option, by its own help."""
    try:
        done = subprocess.run(
            [nsys, command, "--help"], stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return option in done.stdout.decode("utf-8", "replace")


def profile_flags(
    version: tuple[int, ...], device: str, options: Mapping[str, Any]
) -> tuple[str, ...]:
    """Options of `nsys profile` for a version of it, without --output."""
    apis = ["nvtx", "osrt"]
    if device != "cpu":
        apis.insert(0, "cuda")
        if version >= _NCCL_TRACE_FROM:
            apis.append("nccl")
    flags = [f"--trace={','.join(apis)}", "--sample=none", "--cpuctxsw=none"]
    # Not to wait for a child that outlives the rank.
    flags += ["--force-overwrite=true", "--wait=primary"]
    if device != "cpu":
        flags.append(f"--cuda-graph-trace={options['graph']}")
    if options["window"]:
        again = options["every"] is not None or options["steps"]
        flags += [*_capture_range(device), f"--capture-range-end={'repeat' if again else 'stop'}"]
    return tuple(flags)


def _capture_range(device: str) -> list[str]:
    if device != "cpu":
        return ["--capture-range=cudaProfilerApi"]
    # Ranges that are no registered strings open a window only where nsys is told to look.
    return [
        "--capture-range=nvtx",
        f"--nvtx-capture={WINDOW_RANGE}@*",
        "--env-var=NSYS_NVTX_PROFILER_REGISTER_ONLY=0",
    ]


def argv_prefix(
    nsys: str, folder: Path, version: tuple[int, ...], device: str, options: Mapping[str, Any]
) -> tuple[str, ...]:
    """Words before a rank's command."""
    flags = profile_flags(version, device, options)
    return ("sh", "-c", WRAP, "nsys-wrap", nsys, str(folder), str(len(flags)), *flags)
