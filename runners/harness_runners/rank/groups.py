"""Who computes what with whom: a rank's place, and the process groups of its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import harness_probe as probe
from harness_runners.capacity.split import Layout
from harness_runners.plan import RunPlan


@dataclass(frozen=True)
class Place:
    """A rank's place in the tp x pp grid. TP ranks of a stage are neighbours."""

    rank: int
    tp: int
    pp: int

    @property
    def stage(self) -> int:
        """Pipeline stage."""
        return self.rank // self.tp

    @property
    def tp_rank(self) -> int:
        """Rank within the stage."""
        return self.rank % self.tp

    @property
    def is_first(self) -> bool:
        """Whether this stage embeds the tokens."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether this stage samples the tokens."""
        return self.stage == self.pp - 1

    def peer(self, stage: int) -> int:
        """The rank with the same TP rank in another stage (modulo the number of stages)."""
        return (stage % self.pp) * self.tp + self.tp_rank


@dataclass(frozen=True)
class Groups:
    """Process groups of this rank. Without a pipeline `pipe` and `feedback` are None.

    Activations and fed-back tokens have groups of their own: under NCCL each is a communicator
    with its own stream, so that a token never queues behind an activation.
    """

    world: Any
    tensor: Any
    pipe: Any
    feedback: Any


def layers_of(plan: RunPlan, place: Place) -> range:
    """Global indices of the decoder layers that this rank holds."""
    return Layout(plan.tp, plan.layers).stage_layers(place.stage)


def make_groups(place: Place) -> Groups:
    """Create all groups of the grid, on every rank in the same order, and register them."""
    import torch.distributed as dist

    world = dist.group.WORLD
    probe.group(list(range(place.tp * place.pp)), "world", id(world))
    tensor = [
        _new(f"tp-{stage}", range(stage * place.tp, (stage + 1) * place.tp), place.rank)
        for stage in range(place.pp)
    ]
    pipe, feedback = [], []
    if place.pp > 1:
        for tp_rank in range(place.tp):
            column = range(tp_rank, place.tp * place.pp, place.tp)
            pipe.append(_new(f"pipe-{tp_rank}", column, place.rank))
            feedback.append(_new(f"feedback-{tp_rank}", column, place.rank))
    return Groups(
        world,
        tensor[place.stage],
        pipe[place.tp_rank] if pipe else None,
        feedback[place.tp_rank] if feedback else None,
    )


def _new(name: str, ranks: Sequence[int], own_rank: int) -> Any:
    import torch.distributed as dist

    group = dist.new_group(list(ranks), group_desc=name)
    if own_rank in ranks:
        probe.group(list(ranks), name, id(group))
    return group
