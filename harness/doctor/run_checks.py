"""Checks of how a run lay on its hosts, out of its database: processors, network, environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.doctor.check import Check, ok, warning
from harness.doctor.gather import cpu_list


@dataclass(frozen=True)
class RankPlace:
    """Where a rank ran: `cpus` are those it was allowed; empty: not known."""

    rank: int
    host: str | None
    cpus: frozenset[int] = frozenset()


@dataclass(frozen=True)
class RunFacts:
    """What a run's database says of its surroundings."""

    places: tuple[RankPlace, ...] = ()
    transports: frozenset[str] = frozenset()
    """Of NCCL's edges: P2P, SHM, NET/IB, NET/Socket, ..."""
    planned_ranks: int | None = None
    wrapped: bool = False


def run_checks(facts: RunFacts) -> Iterator[Check]:
    """Processors of ranks, NCCL's network, whether the environment reached the ranks."""
    yield from _processors(facts)
    if facts.transports:
        yield _network(facts)
    yield _reached(facts)


def _processors(facts: RunFacts) -> Iterator[Check]:
    by_host: dict[str | None, list[RankPlace]] = {}
    for place in facts.places:
        if place.cpus:
            by_host.setdefault(place.host, []).append(place)
    for host, places in by_host.items():
        name = f"processors on {host or 'the host'}"
        union = frozenset().union(*(place.cpus for place in places))
        if len(union) < len(places):
            found = f"{len(places)} ranks share {len(union)} CPUs"
            cost = "ranks preempt each other: waits and unresolved time that the work does not have"
            yield warning(name, found, cost, "`--cpus-per-task`, --cpu-bind=cores, or fewer ranks")
            continue
        crowded = _crowded(places)
        if crowded:
            cost = "their launches preempt each other though other CPUs are free"
            mend = "srun --cpu-bind=cores, or bind local rank r to its own CPUs"
            yield warning(name, f"ranks {crowded} are bound to the same CPU", cost, mend)
        else:
            yield ok(name, f"{len(places)} ranks, {len(union)} CPUs")


def _crowded(places: list[RankPlace]) -> str:
    """Ranks that are bound to one CPU and share it."""
    owners: dict[frozenset[int], list[int]] = {}
    for place in places:
        if len(place.cpus) == 1:
            owners.setdefault(place.cpus, []).append(place.rank)
    return ", ".join(str(rank) for ranks in owners.values() if len(ranks) > 1 for rank in ranks)


def _network(facts: RunFacts) -> Check:
    name = "nccl transports"
    listed = ", ".join(sorted(facts.transports))
    sockets = any(each.startswith("NET/Socket") for each in facts.transports)
    if not sockets:
        return ok(name, listed)
    cost = "transfers between hosts went over TCP: where there is InfiniBand, several times as long"
    mend = (
        "`harness doctor` on the node says whether it has active InfiniBand ports and what keeps "
        "NCCL from them (NCCL_IB_DISABLE, /dev/infiniband, libibverbs); NCCL_DEBUG_SUBSYS=INIT,NET"
    )
    return warning(name, listed, cost, mend)


def _reached(facts: RunFacts) -> Check:
    name = "environment of the ranks"
    if facts.places:
        return ok(name, f"{len(facts.places)} ranks recorded")
    cost = "no spans: the run's database holds what samplers and logs say only"
    mend = (
        "srun --export=ALL and no --cleanenv, so that HARNESS_* reach the ranks; a wrapped program "
        "records where it calls harness.probe.start()"
    )
    if facts.planned_ranks or facts.wrapped:
        return warning(name, "no rank recorded anything", cost, mend)
    return ok(name, "evidence of others: not asked")


def read_run_facts(database: Path, wrapped: bool = False) -> RunFacts:
    """The facts of a database; what it does not say is not known."""
    import json

    from harness_analysis.store import open_database

    with open_database(database) as con:
        ranks = con.execute(
            "SELECT rank, host, cpus FROM ranks WHERE pid IS NOT NULL ORDER BY rank"
        ).fetchall()
        edges = con.execute("SELECT transports FROM nccl_comms WHERE transports IS NOT NULL")
        found: set[str] = set()
        for (text,) in edges.fetchall():
            data = json.loads(text)
            found |= {str(key) for key in data} if isinstance(data, dict) else set()
        (size,) = con.execute("SELECT max(world_size) FROM runs").fetchone() or (None,)
    places = tuple(RankPlace(rank, host, cpu_list(cpus or "")) for rank, host, cpus in ranks)
    return RunFacts(places, frozenset(found), size, wrapped)
