"""The floor of a step: what memory bandwidth, arithmetic and messages cost at least.

    stage = max(bytes read / bandwidth, FLOPs / peak) + 2 all-reduces a layer
    step  = max(sum of stages + hops, micro-batches x slowest stage)

A floor: launches, attention kernels below bandwidth and late ranks come on top. FLOPs are
2 x matrix elements a token passes through, and 4 x layers x heads x head_dim x context for
attention (half of the square when a prompt is prefilled causally).
"""

from __future__ import annotations

from dataclasses import dataclass

from harness_runners.capacity.hardware import Card, Links, Time
from harness_runners.capacity.memory import Workload
from harness_runners.capacity.shards import DTYPE_BYTES, heads_held, read_bytes, weights_slice
from harness_runners.capacity.split import Layout
from harness_runners.model.shape import Shape


@dataclass(frozen=True)
class StageFloor:
    """One stage's step of one micro-batch, its slowest rank. Times in ns, work in bytes, FLOPs."""

    stage: int
    weight_bytes: float
    kv_bytes: float
    flops: float
    memory_ns: float
    compute_ns: float
    reduces: int
    reduce_bytes: int
    reduce: Time
    head_reduce: Time | None

    @property
    def comm_ns(self) -> float:
        """All-reduces of the layers, and of the output head."""
        head = self.head_reduce.ns if self.head_reduce else 0.0
        return self.reduces * self.reduce.ns + head

    @property
    def ns(self) -> float:
        """The stage's part of a step."""
        return max(self.memory_ns, self.compute_ns) + self.comm_ns


@dataclass(frozen=True)
class StepFloor:
    """A whole step. `tokens_per_s` is an upper bound."""

    stages: tuple[StageFloor, ...]
    hop_bytes: int
    hops: tuple[Time, ...]
    microbatches: int
    batch: int

    @property
    def ns(self) -> float:
        """From one token of a sequence to its next."""
        once = sum(stage.ns for stage in self.stages) + sum(hop.ns for hop in self.hops)
        return max(once, self.microbatches * max(stage.ns for stage in self.stages))

    @property
    def tokens_per_s(self) -> float:
        """Upper bound of the throughput."""
        return self.batch / self.ns * 1e9

    @property
    def limit(self) -> str:
        """What the floor mostly is: memory, compute, all-reduces or hops."""
        parts = {
            "memory bandwidth": sum(
                s.memory_ns for s in self.stages if s.memory_ns >= s.compute_ns
            ),
            "arithmetic": sum(s.compute_ns for s in self.stages if s.compute_ns > s.memory_ns),
            "all-reduces": sum(s.comm_ns for s in self.stages),
            "hops": sum(hop.ns for hop in self.hops),
        }
        return max(parts, key=lambda name: parts[name])


def decode_floor(
    shape: Shape, layout: Layout, work: Workload, card: Card, links: Links
) -> StepFloor:
    """A decode step when `context` tokens are held."""
    stages = tuple(_stage(shape, layout, work, card, links, stage) for stage in range(layout.pp))
    hop_bytes = round(work.rows * shape.hidden * DTYPE_BYTES[work.dtype])
    sizes = [hop_bytes] * (layout.pp - 1) + [8 * work.rows] * (layout.pp > 1)
    hops = tuple(
        links.message(size, within_node=_same_node(layout, links, index))
        for index, size in enumerate(sizes)
    )
    return StepFloor(stages, hop_bytes, hops, min(work.microbatches, work.batch), work.batch)


def _same_node(layout: Layout, links: Links, stage: int) -> bool:
    """Whether a stage and its successor (the last one's is the first) lie on one node."""
    following = (stage + 1) % layout.pp
    nodes = [s * layout.tp // links.ranks_per_node for s in (stage, following)]
    return nodes[0] == nodes[1]


def _stage(
    shape: Shape, layout: Layout, work: Workload, card: Card, links: Links, stage: int
) -> StageFloor:
    """A stage's step; its first TP rank holds the most."""
    size, tp, rows = DTYPE_BYTES[work.dtype], layout.tp, work.rows
    first, last = stage == 0, stage == layout.pp - 1
    piece = weights_slice(shape, size, tp, 0, layout.layers[stage], first, last)
    weights = read_bytes(shape, size, tp, 0, rows, piece)
    seen = [_seen(shape.windows[layer], work) for layer in layout.stage_layers(stage)]
    kv_heads, heads = heads_held(shape, tp, 0, True), heads_held(shape, tp, 0, False)
    kv = rows * sum(seen) * 2 * kv_heads * shape.head_dim * DTYPE_BYTES[work.kv_dtype]
    flops = rows * (2 * piece.active + 4 * heads * shape.head_dim * sum(seen))
    message = round(rows * shape.hidden * size)
    reduce = links.all_reduce(message, tp) if tp > 1 else Time(0.0, "none")
    head = links.all_reduce(rows * shape.vocab * size, tp) if tp > 1 and last else None
    return StageFloor(
        stage,
        weights,
        kv,
        flops,
        (weights + kv) / card.bandwidth * 1e9,
        flops / card.flops * 1e9,
        2 * layout.layers[stage] if tp > 1 else 0,
        message,
        reduce,
        head,
    )


def _seen(window: int | None, work: Workload) -> int:
    """Tokens that a layer's attention reads; the runner reads all slots and masks."""
    return min(window, work.context) if window is not None and work.windowed else work.context


@dataclass(frozen=True)
class PrefillFloor:
    """Prefill of the whole batch: FLOPs over all GPUs, and the time of the stages in turn."""

    flops: float
    compute_ns: float
    comm_ns: float
    basis: str

    @property
    def ns(self) -> float:
        """Until the first token, at least."""
        return self.compute_ns + self.comm_ns


def prefill_floor(
    shape: Shape, layout: Layout, work: Workload, card: Card, links: Links
) -> PrefillFloor:
    """Prefill of `prompt` tokens of every request, the stages one after the other."""
    tokens, size = work.batch * work.prompt, DTYPE_BYTES[work.dtype]
    whole = weights_slice(shape, size, 1, 0, shape.layers, first=True, last=True)
    head = shape.vocab * shape.hidden
    flops = 2.0 * tokens * (whole.active - head) + 2.0 * work.batch * head
    for window in shape.windows:
        pairs = work.prompt * (work.prompt + 1) / 2
        if window is not None and window < work.prompt:
            pairs -= (work.prompt - window) * (work.prompt - window + 1) / 2
        flops += 4.0 * work.batch * shape.heads * shape.head_dim * pairs
    reduce = links.all_reduce(tokens * shape.hidden * size, layout.tp) if layout.tp > 1 else None
    hops = [
        links.message(tokens * shape.hidden * size, _same_node(layout, links, stage))
        for stage in range(layout.pp - 1)
    ]
    comm = 2 * shape.layers * (reduce.ns if reduce else 0.0) + sum(hop.ns for hop in hops)
    basis = reduce.basis if reduce else hops[0].basis if hops else "none"
    return PrefillFloor(flops, flops / layout.tp / card.flops * 1e9, comm, basis)
