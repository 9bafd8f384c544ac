"""Ranks from SLURM_*, and their places: a stage never spans nodes unless asked to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_schemas.errors import LaunchError, UsageError
from harness_slurm.step.placement import Allocation, Node, place_ranks
from harness_slurm.step.ranks import TaskFacts

STEP = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "7",
    "SLURM_NTASKS": "9",
    "SLURM_STEP_NODELIST": "fat[1-2],thin7",
    "SLURM_STEP_TASKS_PER_NODE": "4,2,1",
    "SLURM_TASKS_PER_NODE": "3(x3)",
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "2",
}


def test_a_task_of_uneven_heterogeneous_nodes():
    facts = TaskFacts.read(STEP)
    assert facts.environment() == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "7",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "fat1",
        "MASTER_PORT": str(20_000 + 4711 + 2 * 1009),
    }
    assert facts.environment(port=7)["MASTER_PORT"] == "7"


def test_outside_a_step_and_in_a_broken_one():
    with pytest.raises(LaunchError, match="SLURM_PROCID is not set"):
        TaskFacts.read({})
    with pytest.raises(LaunchError, match="cannot be read"):
        TaskFacts.read({**STEP, "SLURM_STEP_NODELIST": "n[1-"})


def test_ports_of_neighbouring_jobs_and_steps_differ():
    ports = {
        TaskFacts.read({**STEP, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).port
        for job in range(4700, 4720)
        for step in range(20)
    }
    assert len(ports) == 400 and all(20_000 <= port < 32_000 for port in ports)


def test_an_allocation_of_an_array_task_that_was_requeued():
    found = Allocation.read(
        {
            "SLURM_JOB_ID": "12",
            "SLURM_JOB_NODELIST": "n[1-3]",
            "SLURM_JOB_CPUS_PER_NODE": "8(x2),4",
            "SLURM_ARRAY_JOB_ID": "10",
            "SLURM_ARRAY_TASK_ID": "2",
            "SLURM_RESTART_COUNT": "1",
        },
        cpus_per_task=4,
    )
    assert found is not None and found.shown_id == "10_2" and found.restart == 1
    assert found.nodes == (Node("n1", 2), Node("n2", 2), Node("n3", 1))
    assert Allocation.read({}) is None


NODES = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(
    lambda slots: [Node(f"n{index}", count) for index, count in enumerate(slots)]
)


@given(NODES, st.integers(1, 4), st.integers(1, 6), st.booleans())
def test_stages_stay_within_nodes_or_are_refused(nodes, tp, stages, across):
    fits = sum(node.slots // tp for node in nodes) >= stages
    room = sum(node.slots for node in nodes) >= tp * stages
    try:
        hosts = place_ranks(nodes, tp, stages, across=across)
    except UsageError:
        assert not room or (not fits and not across)
        return
    assert len(hosts) == tp * stages
    for node in nodes:
        assert hosts.count(node.name) <= node.slots
    # Ranks of a node are neighbours, nodes come in the allocation's order.
    assert [name for name, _ in itertools.groupby(hosts)] == sorted(set(hosts))
    if fits:
        assert all(len(set(hosts[i : i + tp])) == 1 for i in range(0, len(hosts), tp))


def test_an_even_split_and_an_uneven_one():
    four = [Node("a", 4), Node("b", 4)]
    assert place_ranks(four, 2, 2) == ("a", "a", "b", "b")
    assert place_ranks(four, 2, 3) == ("a",) * 4 + ("b",) * 2
    assert place_ranks(four, 2, 2, per_node=4) == ("a", "a", "b", "b")
    assert place_ranks([Node("a", 2), Node("b", 6)], 2, 4) == ("a",) * 2 + ("b",) * 6
    with pytest.raises(UsageError, match=r"holds 3.*through the network"):
        place_ranks([Node("a", 3), Node("b", 3)], 2, 3)
    assert place_ranks([Node("a", 3), Node("b", 3)], 2, 3, across=True) == ("a",) * 3 + ("b",) * 3
