"""The sbatch script of a specification: a pure function, so what is submitted can be read first."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness_schemas.errors import SpecError
from harness_schemas.spec import RunSpec
from harness_schemas.spec.slurm import SlurmSpec
from harness_schemas.units import parse_duration_ns

TASK_FOLDER = "task-{}"
"""Folder of an array's task within the run folder; a run folder itself."""


@dataclass(frozen=True)
class Shape:
    """How many nodes, ranks on each, and GPUs on each."""

    nodes: int
    ntasks_per_node: int
    gpus_per_node: int


def job_shape(spec: RunSpec) -> Shape:
    """Nodes, ranks and GPUs on each, completed and checked.

    Raises:
        SpecError: the ranks do not fit, or a stage would span nodes unasked.
    """
    slurm, world, tp = spec.slurm, spec.world_size, spec.parallel.tp
    problems = []
    each = slurm.ntasks_per_node or -(-world // slurm.nodes)
    if slurm.ntasks_per_node is None and not slurm.tp_across_nodes:
        each = -(-each // tp) * tp  # whole stages
    if each * slurm.nodes < world:
        problems.append(
            (
                "slurm.ntasks_per_node",
                f"{slurm.nodes} nodes of {each} hold fewer than tp x pp = {world} ranks",
            )
        )
    elif not slurm.tp_across_nodes and (each // tp) * slurm.nodes < spec.parallel.pp:
        problems.append(
            (
                "slurm.ntasks_per_node",
                f"{each} ranks a node hold no whole stages of tp {tp}: all-reduces would cross the "
                "network; choose a multiple of tp, or say slurm.tp_across_nodes = true",
            )
        )
    # A device that only the node knows (`auto`) is a GPU where GPUs are asked for.
    gpus = slurm.gpus_per_node
    if gpus is None:
        gpus = each if spec.device == "cuda" else 0
    if gpus and spec.device != "cpu" and each > gpus:
        problems.append(("slurm.gpus_per_node", f"{each} ranks a node would share {gpus} GPUs"))
    if problems:
        raise SpecError(spec.name, problems)
    return Shape(slurm.nodes, each, gpus)


def render_script(
    spec: RunSpec, run_dir: Path, command: Sequence[str], env: Mapping[str, str]
) -> str:
    """The script that runs `command` on the job's first node.

    `env` is exported before it. Raises SpecError as `job_shape` does.
    """
    logs = run_dir / (f"{TASK_FOLDER.format('%a')}/logs" if spec.slurm.array else "logs")
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH {text}" for text in _directives(spec, job_shape(spec), logs)]
    lines += ["", f"# Written by harness for the run in {run_dir}"]
    if spec.slurm.modules:
        lines += ["", *(f"module load {shlex.quote(name)}" for name in spec.slurm.modules)]
    lines += ["", *spec.slurm.prologue] if spec.slurm.prologue else []
    lines += ["", *(f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items()))]
    # exec: the signal ahead of the time limit goes to the script's own process.
    lines += ["", f"exec {shlex.join(command)}"]
    return "\n".join(lines) + "\n"


def _directives(spec: RunSpec, shape: Shape, logs: Path) -> list[str]:
    slurm = spec.slurm
    warn = -(-parse_duration_ns(slurm.warn) // 1_000_000_000)
    values: list[tuple[str, object]] = [
        ("job-name", spec.name),
        ("partition", slurm.partition),
        ("account", slurm.account),
        ("qos", slurm.qos),
        ("reservation", slurm.reservation),
        ("constraint", slurm.constraint),
        ("nodes", shape.nodes),
        ("ntasks-per-node", shape.ntasks_per_node),
        ("cpus-per-task", slurm.cpus_per_task),
        ("gpus-per-node", shape.gpus_per_node or None),
        ("mem", slurm.mem),
        ("time", slurm.slurm_time),
        ("array", slurm.array),
        ("output", logs / "launcher.out"),
        ("error", logs / "launcher.err"),
        ("open-mode", "append"),
        ("signal", f"B:USR2@{warn}"),
    ]
    found = [_directive(name, value) for name, value in values if value is not None]
    found.append("--requeue" if slurm.requeue else "--no-requeue")
    for text in slurm.directives:
        name, equals, value = text.removeprefix("--").partition("=")
        found.append(_directive(name, value) if equals else text)
    return found


def _directive(name: str, value: object) -> str:
    # sbatch splits its lines at spaces; it knows quotes and backslashes, but no variables.
    text = str(value)
    if re.fullmatch(r"[\w.,:/@%+=-]*", text):
        return f"--{name}={text}"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'--{name}="{escaped}"'


def describe_slurm(slurm: SlurmSpec) -> str:
    """Where the job goes, in few words for the narration."""
    parts = [("partition", slurm.partition), ("account", slurm.account), ("qos", slurm.qos)]
    return ", ".join(f"{name} {value}" for name, value in parts if value)
