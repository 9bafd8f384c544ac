"""Which splits of a model fit a card, how many requests each holds, and which one to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness_runners.capacity.hardware import Card, Links
from harness_runners.capacity.memory import Workload, largest_batch, worst_rank
from harness_runners.capacity.split import Layout, make_layout, refused_by_runner
from harness_runners.capacity.steptime import decode_floor
from harness_runners.model.shape import Shape

CONTEXTS = (2048, 4096, 8192, 32768, 131072)
STAGES = (1, 2, 3, 4, 6, 8)


@dataclass(frozen=True)
class Fit:
    """A split on a card. `batches`: requests that fit, by context; 0: none. `needed`, `weights`:
    bytes of the worst rank for the workload asked for."""

    layout: Layout
    weights: int
    needed: int
    fits: bool
    batches: tuple[tuple[int, int], ...]
    step_ns: float
    tokens_per_s: float
    refused: str | None


def table(
    shape: Shape,
    work: Workload,
    card: Card,
    links: Links,
    contexts: Sequence[int],
    tps: Sequence[int] | None = None,
    pps: Sequence[int] | None = None,
) -> list[Fit]:
    """Every split of up to `ranks_per_node` ranks a stage and eight stages, fewest GPUs first."""
    found = []
    for tp in tps or tensor_degrees(shape, links.ranks_per_node):
        for pp in pps or [stages for stages in STAGES if stages <= shape.layers]:
            layout = make_layout(shape, tp, pp)
            found.append(_fit(shape, layout, work, card, links, contexts))
    return sorted(found, key=lambda fit: (fit.layout.ranks, fit.layout.pp))


def tensor_degrees(shape: Shape, most: int) -> list[int]:
    """Powers of two up to a node's GPUs that divide the attention heads."""
    return [tp for tp in (1, 2, 4, 8, 16) if tp <= most and shape.heads % tp == 0]


def _fit(
    shape: Shape,
    layout: Layout,
    work: Workload,
    card: Card,
    links: Links,
    contexts: Sequence[int],
) -> Fit:
    needed = worst_rank(shape, layout, work)
    floor = decode_floor(shape, layout, work, card, links)
    batches = tuple(
        (context, largest_batch(shape, layout, _of_context(work, context), card.memory_bytes))
        for context in contexts
    )
    return Fit(
        layout,
        needed.part("weights"),
        needed.bytes,
        needed.bytes <= card.memory_bytes,
        batches,
        floor.ns,
        floor.tokens_per_s,
        refused_by_runner(shape, layout.tp),
    )


def _of_context(work: Workload, context: int) -> Workload:
    """The same workload at another context; the whole batch is prefilled at once."""
    return replace(work, context=context, prompt=min(work.prompt, context), microbatches=1)


def contexts_for(shape: Shape, context: int) -> list[int]:
    """Contexts of the table's columns: usual ones within the model's, and the one asked for."""
    most = shape.max_positions or max(CONTEXTS)
    return sorted({context, *(length for length in CONTEXTS if length <= most)})


def suggest(fits: Sequence[Fit], links: Links) -> tuple[Fit, str] | None:
    """The split to take and why: fewest GPUs that fit, of those the lowest step floor.

    Tensor parallelism within a node, stages across nodes: all-reduces happen twice a layer, a
    hop between stages once a step.
    """
    possible = [fit for fit in fits if fit.fits]
    if not possible:
        return None
    ranks = min(fit.layout.ranks for fit in possible)
    best = min((fit for fit in possible if fit.layout.ranks == ranks), key=lambda fit: fit.step_ns)
    tp, pp, layers = best.layout.tp, best.layout.pp, sum(best.layout.layers)
    why = f"fewest GPUs that hold it ({ranks}), and of those splits the shortest step"
    if tp > 1 and ranks <= links.ranks_per_node:
        why += f"; all {2 * layers} all-reduces of a step stay within the node"
    elif pp > 1:
        why += f"; {2 * layers} all-reduces a step stay within nodes, only hops cross them"
    return best, why
