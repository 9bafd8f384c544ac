"""How a model is cut: ranks that share a layer, stages, and the layers of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness_runners.capacity.shards import DTYPE_BYTES, weights_slice
from harness_runners.model.shape import Shape
from harness_schemas.errors import UsageError


@dataclass(frozen=True)
class Layout:
    """`tp` ranks share every layer of a stage; `layers`: of each stage."""

    tp: int
    layers: tuple[int, ...]

    @property
    def pp(self) -> int:
        """Stages."""
        return len(self.layers)

    @property
    def ranks(self) -> int:
        """GPUs."""
        return self.tp * self.pp

    @property
    def communicators(self) -> int:
        """NCCL communicators of a rank: world, its stage, the pipeline and its feedback."""
        if self.ranks == 1:
            return 0
        return 1 + (self.tp > 1) + 2 * (self.pp > 1)

    def stage_layers(self, stage: int) -> range:
        """Global indices of a stage's layers."""
        first = sum(self.layers[:stage])
        return range(first, first + self.layers[stage])


def make_layout(shape: Shape, tp: int, pp: int, layers: Sequence[int] | None = None) -> Layout:
    """Stages of which the heaviest is as light as can be, or `layers` as given.

    Raises:
        UsageError: more stages than layers, or `layers` that do not add up.
    """
    if layers is not None:
        if len(layers) != pp or sum(layers) != shape.layers:
            raise UsageError(f"layers {list(layers)} are not {shape.layers} over {pp} stages")
        return Layout(tp, tuple(layers))
    if pp > shape.layers:
        raise UsageError(f"{pp} stages, but {shape.name} has {shape.layers} layers")
    width = DTYPE_BYTES["bfloat16"]
    layer = weights_slice(shape, width, 1, 0, 1, first=False, last=False).layer
    embedding = shape.vocab * shape.hidden * width
    return Layout(tp, balanced(shape.layers, pp, layer, embedding))


def balanced(layers: int, stages: int, layer: float, embedding: float) -> tuple[int, ...]:
    """`layers` over `stages`, as a layer and an embedding weigh; a head weighs as an embedding.

    The first stage also holds the embedding, the last the head. Giving layer after layer to the
    stage that is lightest so far is optimal because all layers weigh the same.
    """
    weights = [layer] * stages
    weights[0] += embedding
    weights[-1] += embedding
    counts = [1] * stages
    for _ in range(layers - stages):
        # Of equally light stages the last: the first one also feeds the pipeline.
        lightest = min(range(stages), key=lambda stage: (weights[stage], -stage))
        counts[lightest] += 1
        weights[lightest] += layer
    return tuple(counts)


def refused_by_runner(shape: Shape, tp: int) -> str | None:
    """Why the runner of this project would not run this split; None: it would."""
    if shape.experts:
        return "the runner has no mixture-of-experts models"
    if tp > shape.kv_heads:
        return f"the runner refuses tp {tp} for {shape.kv_heads} key/value heads"
    if shape.heads % tp or shape.kv_heads % tp:
        return f"the runner needs {shape.heads} and {shape.kv_heads} heads divisible by {tp}"
    return None
