"""Which rank runs on which node: tensor parallelism within a node, the pipeline across nodes.

Rank = stage * tp + rank within the stage, so a stage is `tp` neighbouring ranks. A stage that
spans nodes sends every layer's all-reduce through the network; it is refused unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness_schemas.errors import UsageError
from harness_slurm.step.nodelist import expand_counts, expand_nodes


@dataclass(frozen=True)
class Node:
    """A node of an allocation and how many tasks it can hold."""

    name: str
    slots: int


@dataclass(frozen=True)
class Allocation:
    """The job that this process runs in: its id, its nodes, and which run of it this is."""

    job_id: str
    nodes: tuple[Node, ...]
    restart: int = 0
    array_job: str | None = None
    array_task: int | None = None
    nested: bool = False
    """Whether this process is itself a task of a step, as in a shell that srun gave."""

    @property
    def shown_id(self) -> str:
        """The id as Slurm shows it: 4711, or 4711_2 in an array."""
        return self.job_id if self.array_job is None else f"{self.array_job}_{self.array_task}"

    @classmethod
    def read(cls, env: Mapping[str, str], cpus_per_task: int = 1) -> Allocation | None:
        """The allocation that `env` describes; None outside one.

        Raises:
            UsageError: SLURM_* cannot be read.
        """
        job = env.get("SLURM_JOB_ID")
        if not job:
            return None
        try:
            names = expand_nodes(env.get("SLURM_JOB_NODELIST") or env["SLURM_NODELIST"])
            text = env.get("SLURM_JOB_CPUS_PER_NODE")
            cpus = expand_counts(text) if text else [cpus_per_task] * len(names)
            task = env.get("SLURM_ARRAY_TASK_ID")
            return cls(
                job,
                tuple(
                    Node(name, max(1, count // cpus_per_task))
                    for name, count in zip(names, cpus, strict=True)
                ),
                int(env.get("SLURM_RESTART_COUNT") or 0),
                env.get("SLURM_ARRAY_JOB_ID") if task else None,
                int(task) if task else None,
                "SLURM_PROCID" in env and env.get("SLURM_STEP_ID", "").isdigit(),
            )
        except (KeyError, ValueError) as error:
            raise UsageError(f"the environment of job {job} cannot be read: {error}") from None


def place_ranks(
    nodes: Sequence[Node], tp: int, stages: int, per_node: int | None = None, across: bool = False
) -> tuple[str, ...]:
    """The node of every rank. `per_node`: ranks a node at most, instead of its slots.

    Stages are spread evenly in the order of nodes where the nodes' slots allow it, else nodes
    are filled one after the other. A node may stay empty.

    Raises:
        UsageError: no room, or a stage would span nodes and `across` is false.
    """
    room = [min(node.slots, per_node) if per_node else node.slots for node in nodes]
    if sum(room) < tp * stages:
        raise UsageError(
            f"tp {tp} x pp {stages} needs {tp * stages} ranks, the allocation holds {sum(room)}",
            "ask for more nodes or tasks a node, or fewer cpus_per_task",
        )
    whole = [slots // tp for slots in room]
    if sum(whole) >= stages:
        counts = _spread(whole, stages)
        return tuple(
            node.name for node, count in zip(nodes, counts, strict=True) for _ in range(count * tp)
        )
    if not across:
        held = ", ".join(f"{node.name} holds {slots}" for node, slots in zip(nodes, room))  # noqa: B905
        raise UsageError(
            f"pp {stages} stages of tp {tp} ranks do not fit within nodes ({held[:200]}): a stage "
            "would send every layer's all-reduce through the network",
            "use tp that divides the ranks of a node, or say slurm.tp_across_nodes = true",
        )
    each = _spread(room, tp * stages)
    return tuple(node.name for node, count in zip(nodes, each, strict=True) for _ in range(count))


def _spread(room: Sequence[int], wanted: int) -> list[int]:
    """`wanted` things over places: evenly if every place has the room, else as they come."""
    share, rest = divmod(wanted, len(room))
    even = [share + (place < rest) for place in range(len(room))]
    if all(count <= space for count, space in zip(even, room, strict=True)):
        return even
    counts = []
    for space in room:
        counts.append(min(space, wanted))
        wanted -= counts[-1]
    return counts
