"""What a model's config.json says that the plan needs: sizes, heads, context, end of sequence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_schemas.errors import UsageError

FAMILIES = ("llama", "mistral", "qwen2")
"""Model types whose decoder layers the engine drives (transformers' `model_type`)."""


@dataclass(frozen=True)
class ModelShape:
    """Dimensions of a decoder-only model of the Llama family. Counts are of parameters."""

    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    max_positions: int
    tied: bool

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read a Hugging Face config; raises KeyError for a key that every such model has."""
        heads = int(config["num_attention_heads"])
        hidden = int(config["hidden_size"])
        return cls(
            model_type=str(config.get("model_type", "")),
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            intermediate=int(config["intermediate_size"]),
            vocab=int(config["vocab_size"]),
            max_positions=int(config["max_position_embeddings"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    @property
    def layer_parameters(self) -> int:
        """Weights of one decoder layer: projections, gated MLP, two norms (biases left out)."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Weights of the token embedding; of the output head as well (a stage may hold both)."""
        return self.vocab * self.hidden


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json.

    Raises:
        UsageError: there is none, or it is not JSON.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path} does not hold an object")
    return config


def read_shape(folder: Path) -> ModelShape:
    """The shape of a model directory.

    Raises:
        UsageError: config.json is missing, broken, or of a family the engine does not drive.
    """
    config = read_config(folder)
    if config.get("model_type") not in FAMILIES:
        raise UsageError(
            f"{folder} holds a model of type {config.get('model_type')!r}; "
            f"the engine runs {', '.join(FAMILIES)}"
        )
    try:
        return ModelShape.from_config(config)
    except KeyError as error:
        raise UsageError(f"{folder / 'config.json'} has no {error.args[0]}") from None


def eos_tokens(folder: Path) -> tuple[int, ...]:
    """End-of-sequence ids: of generation_config.json where it names any, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        try:
            value = json.loads((folder / name).read_text()).get("eos_token_id")
        except (OSError, ValueError):
            continue
        if value is not None:
            return tuple(value) if isinstance(value, list) else (int(value),)
    return ()


def split_layers(shape: ModelShape, stages: int) -> tuple[int, ...]:
    """Layers of each stage, at least one, so that the heaviest stage is as light as can be."""
    return balanced(shape.layers, stages, shape.layer_parameters, shape.embedding_parameters)


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


def layer_range(counts: Sequence[int], stage: int) -> range:
    """The global indices of a stage's layers."""
    first = sum(counts[:stage])
    return range(first, first + counts[stage])
