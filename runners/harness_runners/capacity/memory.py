"""Memory of one rank: weights, KV cache, logits, activations, overhead, each with its formula."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness_runners.capacity.shards import DTYPE_BYTES, heads_held, weights_slice
from harness_runners.capacity.split import Layout
from harness_runners.model.shape import Shape
from harness_schemas.units import format_bytes

GIB = 1 << 30
MIB = 1 << 20
CONTEXT_BYTES = {"cuda": 600 * MIB, "cpu": 440 * MIB}
"""CUDA context with its libraries; on a CPU the process with torch. Estimates."""
COMMUNICATOR_BYTES = 300 * MIB
"""Buffers of one NCCL communicator. An estimate: it depends on channels and protocols."""
FRAGMENTATION = 0.04
"""What the allocator keeps beyond the tensors. An estimate."""


@dataclass(frozen=True)
class Workload:
    """What is generated. `prompt` tokens are prefilled at once; `context`: prompt and output.

    `windowed`: sliding layers keep only their window; the runner keeps everything.
    """

    batch: int
    context: int
    prompt: int
    microbatches: int = 1
    dtype: str = "bfloat16"
    kv_dtype: str = "bfloat16"
    windowed: bool = True
    device: str = "cuda"

    @property
    def rows(self) -> int:
        """Rows of the largest micro-batch."""
        return -(-self.batch // min(self.microbatches, self.batch))


@dataclass(frozen=True)
class Part:
    """One part of a rank's memory. `basis`: exact, or estimate."""

    name: str
    bytes: int
    formula: str
    basis: str = "exact"


@dataclass(frozen=True)
class RankMemory:
    """Memory of the rank `tp_rank` of `stage`."""

    stage: int
    tp_rank: int
    layers: int
    parts: tuple[Part, ...]

    @property
    def bytes(self) -> int:
        """All parts."""
        return sum(part.bytes for part in self.parts)

    def part(self, name: str) -> int:
        """Bytes of a part."""
        return next((part.bytes for part in self.parts if part.name == name), 0)


def plan_ranks(shape: Shape, layout: Layout, work: Workload) -> list[RankMemory]:
    """Memory of every rank, in the order of ranks."""
    return [
        plan_rank(shape, layout, work, stage, tp_rank)
        for stage in range(layout.pp)
        for tp_rank in range(layout.tp)
    ]


def worst_rank(shape: Shape, layout: Layout, work: Workload) -> RankMemory:
    """The rank that needs most: it decides whether the configuration fits.

    Within a stage the first ranks hold the larger shares and the last one the tail.
    """
    edges = sorted({0, layout.tp - 1})
    found = [
        plan_rank(shape, layout, work, stage, tp_rank)
        for stage in range(layout.pp)
        for tp_rank in edges
    ]
    return max(found, key=lambda rank: rank.bytes)


def plan_rank(shape: Shape, layout: Layout, work: Workload, stage: int, tp_rank: int) -> RankMemory:
    """Memory of one rank."""
    last = stage == layout.pp - 1
    parts = [
        _weights(shape, layout, work, stage, tp_rank),
        _kv_cache(shape, layout, work, stage, tp_rank),
        _activations(shape, layout, work, tp_rank),
    ]
    if last:
        parts.append(_logits(shape, work))
    return RankMemory(
        stage, tp_rank, layout.layers[stage], (*parts, *_overhead(layout, work, parts))
    )


def _weights(shape: Shape, layout: Layout, work: Workload, stage: int, tp_rank: int) -> Part:
    piece = weights_slice(
        shape,
        DTYPE_BYTES[work.dtype],
        layout.tp,
        tp_rank,
        layout.layers[stage],
        first=stage == 0,
        last=stage == layout.pp - 1,
    )
    terms = [f"{piece.layers} layers x {format_bytes(piece.layer)}"]
    if piece.embedding:
        terms.append(f"embedding {format_bytes(piece.embedding)}")
    if piece.head:
        terms.append(f"head and norm {format_bytes(piece.head)}")
    return Part("weights", piece.bytes, " + ".join(terms))


def kv_bytes_per_token(shape: Shape, kv_dtype: str) -> tuple[int, int]:
    """Bytes of keys and values a token, of all layers: (in all, of which windows bound)."""
    layer = 2 * shape.kv_heads * shape.head_dim * DTYPE_BYTES[kv_dtype]
    sliding = sum(window is not None for window in shape.windows)
    return round(shape.layers * layer), round(sliding * layer)


def _kv_cache(shape: Shape, layout: Layout, work: Workload, stage: int, tp_rank: int) -> Part:
    heads = heads_held(shape, layout.tp, tp_rank, key_value=True)
    token = 2 * heads * shape.head_dim * DTYPE_BYTES[work.kv_dtype]
    windows = [shape.windows[layer] for layer in layout.stage_layers(stage)]
    slots = sum(_slots(window, work) for window in windows)
    replicated = f" (replicated: {layout.tp} ranks)" if layout.tp > shape.kv_heads else ""
    formula = (
        f"batch {work.batch} x {_slot_terms(windows, work)} x 2 x {heads} KV heads{replicated}"
        f" x {shape.head_dim} x {DTYPE_BYTES[work.kv_dtype]:g} B"
    )
    return Part("KV cache", round(work.batch * slots * token), formula)


def _slots(window: int | None, work: Workload) -> int:
    bounded = window is not None and work.windowed
    return min(window or 0, work.context) if bounded else work.context


def _slot_terms(windows: list[int | None], work: Workload) -> str:
    counts: dict[int, int] = {}
    for window in windows:
        slots = _slots(window, work)
        counts[slots] = counts.get(slots, 0) + 1
    terms = [
        f"{count} layers x {slots:,} tokens"
        for slots, count in sorted(counts.items(), reverse=True)
    ]
    return terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"


def _activations(shape: Shape, layout: Layout, work: Workload, tp_rank: int) -> Part:
    """Live tensors of one layer during prefill: an estimate, real kernels keep fewer or more."""
    size = DTYPE_BYTES[work.dtype]
    heads = heads_held(shape, layout.tp, tp_rank, False) + heads_held(
        shape, layout.tp, tp_rank, True
    )
    inner = max(1, shape.active_experts) * -(-shape.inner // layout.tp) + shape.shared_inner
    wide = max(2 * heads * shape.head_dim, (3 if shape.gated else 2) * inner)
    tokens = work.rows * work.prompt
    mask = work.rows * work.prompt * work.context
    formula = (
        f"{work.rows} rows x {work.prompt:,} tokens x (3 x {shape.hidden} + {wide}) x {size:g} B"
        f" + mask {format_bytes(mask)}"
    )
    return Part(
        "activations", round(tokens * (3 * shape.hidden + wide) * size) + mask, formula, "estimate"
    )


def _logits(shape: Shape, work: Workload) -> Part:
    size = DTYPE_BYTES[work.dtype]
    formula = f"{work.rows} rows x {shape.vocab:,} x ({size:g} + 4) B, last position only"
    return Part("logits", round(work.rows * shape.vocab * (size + 4)), formula)


def _overhead(layout: Layout, work: Workload, parts: list[Part]) -> list[Part]:
    context = CONTEXT_BYTES[work.device]
    name = "CUDA context" if work.device == "cuda" else "process"
    found = [Part(name, context, "kept by driver and libraries", "estimate")]
    if work.device == "cuda":
        count = layout.communicators
        if count:
            formula = f"{count} communicators x {format_bytes(COMMUNICATOR_BYTES)}"
            found.append(Part("NCCL buffers", count * COMMUNICATOR_BYTES, formula, "estimate"))
        tensors = sum(part.bytes for part in parts)
        formula = f"{FRAGMENTATION:.0%} of the above tensors"
        found.append(Part("fragmentation", round(FRAGMENTATION * tensors), formula, "estimate"))
    return found


def largest_batch(
    shape: Shape, layout: Layout, work: Workload, available: int, most: int = 4096
) -> int:
    """Requests that fit at once; 0: not even one. Memory grows with the batch: bisection."""
    low, high = 0, 1
    while high <= most and _fits(shape, layout, replace(work, batch=high), available):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if middle <= most and _fits(shape, layout, replace(work, batch=middle), available):
            low = middle
        else:
            high = middle
    return low


def _fits(shape: Shape, layout: Layout, work: Workload, available: int) -> bool:
    return worst_rank(shape, layout, work).bytes <= available
