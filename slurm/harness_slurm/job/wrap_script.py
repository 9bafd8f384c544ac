"""The script submitted instead of somebody's own: theirs, unchanged, with marks around it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path


def render_wrap(
    run_dir: Path,
    script: Path,
    directives: Sequence[str],
    env: Mapping[str, str],
    samplers: Sequence[str],
    collectors: Sequence[str],
) -> str:
    """The text of the script. Pure.

    `directives` are the `#SBATCH` lines of theirs, which is then run from `script`. `env` is set
    after Slurm has made the job's environment, so `--export` of theirs means what it always did.
    What of it names the run folder follows an array's task into its own. `samplers` is the argv
    of the agent, without `--run-dir`.
    """
    lines = ["#!/bin/bash", *directives]
    lines += ["# Written by `harness run -- sbatch`: runs the script below, unchanged."]
    lines += [f"harness_run={shlex.quote(str(run_dir))}"]
    lines += [f"harness_script={shlex.quote(str(script))}"]
    lines += [f"harness_samplers=({shlex.join(samplers)})"]
    lines += [f"harness_collectors={shlex.quote(' '.join(collectors))}"]
    lines += ["set_environment() {"]
    lines += [f"    export {name}={_follow(value, run_dir)}" for name, value in sorted(env.items())]
    lines += ["    :", "}", ""]
    body = resources.files("harness_slurm.job").joinpath("wrapped.sh").read_text()
    return "\n".join(lines) + body


def _follow(value: str, run_dir: Path) -> str:
    """A value in the shell's words, the run folder in it as the variable that names it."""
    parts = value.split(str(run_dir))
    return '"$harness_run"'.join(shlex.quote(part) if part else "" for part in parts) or "''"
