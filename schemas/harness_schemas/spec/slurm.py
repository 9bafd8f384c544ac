"""The section `slurm` of a specification: what is asked of the cluster."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness_schemas.units import parse_duration_ns

_SLURM_TIME = re.compile(r"(?:\d+-)?\d{1,3}(?::\d{2}){0,2}")
_ARRAY = re.compile(r"(?P<ranges>\d+(?:-\d+(?::\d+)?)?(?:,\d+(?:-\d+(?::\d+)?)?)*)(?:%\d+)?")
MOST_ARRAY_TASKS = 100_000
OURS = ("output", "error", "open-mode", "signal", "parsable", "wait", "export", "array", "wrap")
"""Options of sbatch that the harness sets or that the specification has a key for."""

Word = Annotated[str, Field(pattern=r"^[^\s'\"`$\\]+$")]


class SlurmSpec(BaseModel):
    """What is asked of the cluster; keys that are left out are the cluster's defaults."""

    model_config = ConfigDict(extra="forbid", validate_default=True)

    partition: Word | None = Field(None, description="Partition.")
    account: Word | None = Field(None, description="Account that pays.")
    nodes: int = Field(1, ge=1, description="Nodes.")
    ntasks_per_node: int | None = Field(
        None, ge=1, description="Ranks on a node; default: ranks divided by nodes."
    )
    gpus_per_node: int | None = Field(
        None, ge=0, description="GPUs on a node; default: a rank one where device is cuda, else 0."
    )
    cpus_per_task: int | None = Field(None, ge=1, description="CPUs of a rank.")
    mem: Word | None = Field(None, description="Memory of a node, as in 64G; 0: all of it.")
    time: str | None = Field(None, description="Time limit: 90min, 2h, or as Slurm has it.")
    constraint: str | None = Field(None, description="Features of nodes, as in a100&nvlink.")
    qos: Word | None = Field(None, description="Quality of service.")
    reservation: Word | None = Field(None, description="Reservation.")
    modules: list[Word] = Field(
        default_factory=list, description="Environment modules to load, in order."
    )
    prologue: list[str] = Field(
        default_factory=list, description="Lines of shell that run on the first node, before all."
    )
    container: str | None = Field(
        None,
        description="Apptainer image in which the ranks run, with any launcher; it must hold the "
        "harness (slurm/apptainer).",
    )
    binds: list[str] = Field(
        default_factory=list, description="Further folders that the container sees, as in /a:/b."
    )
    array: str | None = Field(
        None, description="Run as a job array, every task a run of its own, as in 0-3%2."
    )
    requeue: bool = Field(
        False, description="Start again after a preemption or the failure of a node."
    )
    warn: str = Field("60s", description="Ranks flush their records so long before the time limit.")
    tp_across_nodes: bool = Field(
        False, description="Let a stage span nodes: its all-reduces then cross the network."
    )
    directives: list[str] = Field(
        default_factory=list, description="Further options of sbatch, as in --exclusive."
    )

    @field_validator("time")
    @classmethod
    def _time(cls, value: str | None) -> str | None:
        if value is not None and not _SLURM_TIME.fullmatch(value):
            parse_duration_ns(value)
        return value

    @field_validator("warn")
    @classmethod
    def _warn(cls, value: str) -> str:
        parse_duration_ns(value)
        return value

    @field_validator("array")
    @classmethod
    def _array(cls, value: str | None) -> str | None:
        if value is not None:
            array_tasks(value)
        return value

    @field_validator("directives")
    @classmethod
    def _directives(cls, value: list[str]) -> list[str]:
        for text in value:
            if not re.fullmatch(r"--[a-z][a-z0-9-]*(=[^\n]+)?", text):
                raise ValueError(f"{text!r} is no option like --exclusive or --mail-type=END")
            name = text[2:].partition("=")[0]
            if name in OURS:
                raise ValueError(f"--{name} is the harness's own, or has a key of its own")
        return value

    @field_validator("prologue")
    @classmethod
    def _prologue(cls, value: list[str]) -> list[str]:
        for text in value:
            if text.lstrip().startswith("#SBATCH"):
                raise ValueError(f"{text!r} is a directive: name it in `directives`")
        return value

    @property
    def slurm_time(self) -> str | None:
        """The time limit as sbatch reads it; durations are rounded up to whole minutes."""
        if self.time is None or (_SLURM_TIME.fullmatch(self.time) and ":" in self.time):
            return self.time
        if "-" in self.time:
            return self.time
        # A bare number is minutes, as everywhere in Slurm.
        minutes = -(-parse_duration_ns(self.time, "min") // 60_000_000_000)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


def array_tasks(text: str) -> list[int]:
    """The task ids of an array such as `0-3%2` or `1,5-9:2`, ascending.

    Raises:
        ValueError: not an array's list of tasks.
    """
    match = _ARRAY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no array such as 0-3%2 or 1,5-9:2")
    tasks: set[int] = set()
    for part in match["ranges"].split(","):
        first, _, rest = part.partition("-")
        last, _, step = rest.partition(":")
        chosen = range(int(first), int(last or first) + 1, int(step or 1) or 1)
        if not chosen or len(tasks) + len(chosen) > MOST_ARRAY_TASKS:
            raise ValueError(f"{text!r}: {part} is empty or too long")
        tasks.update(chosen)
    return sorted(tasks)
