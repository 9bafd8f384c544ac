"""Which part of every weight a rank holds: the tensors of a layer, and how tensor parallelism
cuts them.

As DeepSpeed 0.19 AutoTP cuts (module_inject/tp_shard.py), which the runner uses: attention by
key/value heads, the MLP and the output head in grains of 64 with the tail on the last rank, the
embedding and the norms whole on every rank of their stage. Where there are more ranks than
key/value heads AutoTP leaves some without attention and the runner refuses; the plan then
assumes that heads are replicated, as other engines do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness_runners.model.shape import Shape

GRAIN = 64
DTYPE_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "fp8": 1.0}


@dataclass(frozen=True)
class Tensor:
    """`size` along the dimension that is cut, times `others` elements.

    `cut`: heads, kv, inner, expert (even), head (the output head's input), none.
    `stored`: plain, linear or expert, which says the bits a weight. `copies`: experts.
    """

    name: str
    size: int
    others: int
    cut: str = "none"
    stored: str = "plain"
    copies: int = 1


def layer_tensors(shape: Shape) -> Iterator[Tensor]:
    """Weights of one decoder layer."""
    query, key_value = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield Tensor("q_proj", query, shape.hidden, "heads", "linear")
    yield Tensor("k_proj", key_value, shape.hidden, "kv", "linear")
    yield Tensor("v_proj", key_value, shape.hidden, "kv", "linear")
    yield Tensor("o_proj", query, shape.hidden, "heads", "linear")
    if shape.qkv_bias:
        yield Tensor("q_bias", query, 1, "heads")
        yield Tensor("kv_bias", key_value, 2, "kv")
    if shape.output_bias:
        yield Tensor("o_bias", shape.hidden, 1)
    if shape.qk_norm:
        yield Tensor("qk_norm", shape.head_dim, 2)
    if shape.sinks:
        yield Tensor("sinks", shape.heads, 1, "heads")
    yield Tensor("norms", shape.hidden, 2)
    yield from _mlp(shape)


def _mlp(shape: Shape) -> Iterator[Tensor]:
    matrices = 3 if shape.gated else 2
    if not shape.experts:
        yield Tensor("mlp", shape.inner, matrices * shape.hidden, "inner", "linear")
        return
    yield Tensor("router", shape.experts, shape.hidden)
    width = matrices * shape.hidden
    yield Tensor("experts", shape.inner, width, "expert", "expert", shape.experts)
    if shape.expert_bias:
        yield Tensor("router_bias", shape.experts, 1)
        yield Tensor("gate_up_bias", shape.inner, 2, "expert", copies=shape.experts)
        yield Tensor("down_bias", shape.hidden, 1, copies=shape.experts)
    if shape.shared_inner:
        yield Tensor("shared_expert", shape.shared_inner, width, "inner", "linear")


def held(tensor: Tensor, shape: Shape, tp: int, tp_rank: int) -> int:
    """Elements of a tensor that one of `tp` ranks holds."""
    size = _share(tensor, shape, tp, tp_rank)
    return size * tensor.others * tensor.copies


def _share(tensor: Tensor, shape: Shape, tp: int, tp_rank: int) -> int:
    if tensor.cut == "none" or tp == 1:
        return tensor.size
    if tensor.cut in ("heads", "kv"):
        return (
            tensor.size
            // _heads(tensor, shape)
            * heads_held(shape, tp, tp_rank, key_value=tensor.cut == "kv")
        )
    grain = 1 if tensor.cut == "expert" or tensor.size < GRAIN else GRAIN
    return even_share(tensor.size, tp, tp_rank, grain)


def _heads(tensor: Tensor, shape: Shape) -> int:
    return shape.kv_heads if tensor.cut == "kv" else shape.heads


def heads_held(shape: Shape, tp: int, tp_rank: int, key_value: bool) -> int:
    """Attention heads of a rank; key/value heads are replicated where there are too few."""
    if tp <= shape.kv_heads:
        kv = even_share(shape.kv_heads, tp, tp_rank)
        return kv if key_value else kv * (shape.heads // shape.kv_heads)
    return 1 if key_value else even_share(shape.heads, tp, tp_rank)


def even_share(size: int, parts: int, part: int, grain: int = 1) -> int:
    """`size` over `parts` in whole grains, the first parts one more, the tail on the last."""
    grains, tail = divmod(size, grain)
    share = (grains // parts + (part < grains % parts)) * grain
    return share + (tail if part == parts - 1 else 0)


def stored_bytes(tensor: Tensor, elements: float, shape: Shape, dtype_bytes: float) -> float:
    """Bytes of so many of a tensor's elements as they are kept in memory."""
    bits = {"linear": shape.linear_bits, "expert": shape.expert_bits}.get(tensor.stored)
    return elements * (bits / 8 if bits else dtype_bytes)


@dataclass(frozen=True)
class Slice:
    """Weights of one rank, in bytes; `params` and `active` count elements.

    `read`: a decode step of `rows` tokens must read them (no embedding, touched experts only).
    """

    layer: float
    embedding: float
    head: float
    params: int
    active: float
    layers: int

    @property
    def bytes(self) -> int:
        """All of them."""
        return round(self.layers * self.layer + self.embedding + self.head)


def weights_slice(
    shape: Shape,
    dtype_bytes: float,
    tp: int,
    tp_rank: int,
    layers: int,
    first: bool,
    last: bool,
) -> Slice:
    """What a rank of a stage holds; `active`: matrix elements that one token passes through."""
    tensors = [(tensor, held(tensor, shape, tp, tp_rank)) for tensor in layer_tensors(shape)]
    layer = sum(stored_bytes(tensor, count, shape, dtype_bytes) for tensor, count in tensors)
    active = float(layers * sum(_active(tensor, count, shape) for tensor, count in tensors))
    params = layers * sum(count for _, count in tensors)
    embedding = head = 0.0
    table = shape.vocab * shape.hidden
    if first:
        embedding, params = table * dtype_bytes, params + table
    if last:
        cut = Tensor("lm_head", shape.hidden, shape.vocab, "head")
        # A tied head is a view of the embedding only where one rank holds both whole.
        shared = shape.tied and first and tp == 1
        elements = held(cut, shape, tp, tp_rank)
        head = ((0 if shared else elements) + shape.hidden) * dtype_bytes
        params += (0 if shared else elements) + shape.hidden
        active += elements
    return Slice(layer, embedding, head, params, active, layers)


def _active(tensor: Tensor, count: int, shape: Shape) -> float:
    """Elements that a token is multiplied with; norms and biases are left out."""
    if tensor.others < shape.hidden and tensor.name != "router":
        return 0.0
    return count * shape.active_experts / shape.experts if tensor.copies > 1 else float(count)


def read_bytes(
    shape: Shape, dtype_bytes: float, tp: int, tp_rank: int, rows: int, piece: Slice
) -> float:
    """Bytes of weights that a decode step of `rows` tokens reads on a rank.

    The embedding is only looked up. Of E experts, k a token, rows tokens touch
    E (1 - (1 - k/E)^rows) where routing is even.
    """
    layer = 0.0
    for tensor in layer_tensors(shape):
        share = 1.0
        if tensor.copies > 1:
            share = 1 - (1 - shape.active_experts / shape.experts) ** rows
        count = held(tensor, shape, tp, tp_rank) * share
        layer += stored_bytes(tensor, count, shape, dtype_bytes)
    shared_head = piece.embedding if shape.tied and piece.head and tp == 1 else 0.0
    return piece.layers * layer + piece.head + shared_head
