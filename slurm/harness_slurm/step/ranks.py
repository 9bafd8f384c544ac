"""What a task of a Slurm step is told in SLURM_*, in the words of torch.distributed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness_schemas.errors import LaunchError
from harness_slurm.step.nodelist import expand_counts, expand_nodes

FIRST_PORT, PORTS = 20_000, 12_000
"""Rendezvous ports: below Linux's own range for outgoing connections (from 32768)."""
STEP_STRIDE = 1_009
"""A prime: steps of one job and jobs of neighbouring ids get ports of their own."""


@dataclass(frozen=True)
class TaskFacts:
    """A task's place: rank of world_size, local rank, node; and the step's nodes in order."""

    rank: int
    local_rank: int
    node: int
    world_size: int
    hosts: tuple[str, ...]
    tasks_per_node: tuple[int, ...]
    job_id: int
    step_id: int

    @classmethod
    def read(cls, env: Mapping[str, str]) -> TaskFacts:
        """Read SLURM_*; the step's own values come before the job's.

        Raises:
            LaunchError: this is no task of a Slurm step, or a value is broken.
        """
        try:
            return cls(
                rank=int(env["SLURM_PROCID"]),
                local_rank=int(env["SLURM_LOCALID"]),
                node=int(env["SLURM_NODEID"]),
                world_size=int(_either(env, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
                hosts=tuple(expand_nodes(_either(env, "SLURM_STEP_NODELIST", "SLURM_NODELIST"))),
                tasks_per_node=tuple(
                    expand_counts(_either(env, "SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))
                ),
                job_id=int(env["SLURM_JOB_ID"]),
                step_id=int(_either(env, "SLURM_STEP_ID", "SLURM_STEPID")),
            )
        except KeyError as error:
            raise LaunchError(
                f"no task of a Slurm step: {error.args[0]} is not set", "start it with srun"
            ) from None
        except ValueError as error:
            raise LaunchError(f"Slurm's environment cannot be read: {error}") from None

    @property
    def port(self) -> int:
        """A port that all tasks work out alike, and other steps differently."""
        return FIRST_PORT + (self.job_id + STEP_STRIDE * self.step_id) % PORTS

    def environment(self, port: int | None = None) -> dict[str, str]:
        """The variables that torch.distributed reads."""
        local = self.tasks_per_node[self.node] if self.node < len(self.tasks_per_node) else 1
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(local),
            "GROUP_RANK": str(self.node),
            "MASTER_ADDR": self.hosts[0] if self.hosts else "127.0.0.1",
            "MASTER_PORT": str(port or self.port),
        }


def _either(env: Mapping[str, str], first: str, second: str) -> str:
    return env[first] if env.get(first) else env[second]
