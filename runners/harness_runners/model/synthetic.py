"""Synthetic models: named Llama-family shapes with seeded weights, written as a model directory.

Everything that reads a real checkpoint reads these as well. Weights are scaled so that greedy
decoding wanders instead of repeating itself: with the usual initialisation (std 0.02) 32 tokens
hold 1 to 8 distinct ones, and such a completion cannot tell a right engine from a wrong one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness_runners.model.checkpoint import INDEX

GENERATOR_VERSION = 2
"""Part of the cache key: raise it whenever the weights of a seed change."""

SHARDS = 4

_COMMON: dict[str, Any] = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8192,
    "attention_dropout": 0.0,
    "use_cache": True,
    "initializer_range": 0.02,
    "torch_dtype": "float32",
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
_TINY = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
}
_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "mlp_bias": False,
}
_MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "sliding_window": 32,
}
_QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "use_sliding_window": False,
    "tie_word_embeddings": True,
}


def _large(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, head_dim: int, vocab: int
) -> dict[str, Any]:
    """A published Llama shape; too large for files here, so its weights are made at random."""
    return {
        **_COMMON,
        **_LLAMA,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "openllama-3b": _large(3200, 8640, 26, 32, 32, 100, 32000),
    "llama-3b": _large(3072, 8192, 28, 24, 8, 128, 128256),
    "llama-8b": _large(4096, 14336, 32, 32, 8, 128, 128256),
    "llama-70b": _large(8192, 28672, 80, 64, 8, 128, 128256),
    "tiny-llama": {**_COMMON, **_TINY, **_LLAMA},
    "tiny-mistral": {**_COMMON, **_TINY, **_MISTRAL},
    "tiny-qwen2": {**_COMMON, **_TINY, **_QWEN2},
    "small-llama": {
        **_COMMON,
        **_TINY,
        **_LLAMA,
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 64,
    },
}


def synthetic_config(shape: str, layers: int | None = None) -> dict[str, Any]:
    """config.json of a named shape; the tokenizer adds the vocabulary's size later."""
    config = dict(SHAPES[shape])
    if layers is not None:
        config["num_hidden_layers"] = layers
    return config


def write_weights(folder: Path, config: Mapping[str, Any], seed: int, shards: int = SHARDS) -> None:
    """Write seeded float32 weights as `shards` safetensors files with an index."""
    from safetensors.numpy import save_file

    weight_map: dict[str, str] = {}
    total = 0
    parts = _divide(list(tensor_shapes(config).items()), shards)
    for number, names in enumerate(parts, start=1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        tensors = {name: _draw(name, shape, config, seed) for name, shape in names}
        save_file(tensors, str(folder / file), metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, file))
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=1))


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a Llama, Mistral or Qwen2 checkpoint, as transformers names them."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        shapes.update((f"model.layers.{layer}.{name}", s) for name, s in _layer_shapes(config))
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _layer_shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    query = config["num_attention_heads"] * config["head_dim"]
    key_value = config["num_key_value_heads"] * config["head_dim"]
    for name, rows in (("q", query), ("k", key_value), ("v", key_value)):
        yield f"self_attn.{name}_proj.weight", (rows, hidden)
        if config["model_type"] == "qwen2":
            yield f"self_attn.{name}_proj.bias", (rows,)
    yield "self_attn.o_proj.weight", (hidden, query)
    yield "mlp.gate_proj.weight", (inner, hidden)
    yield "mlp.up_proj.weight", (inner, hidden)
    yield "mlp.down_proj.weight", (hidden, inner)
    yield "input_layernorm.weight", (hidden,)
    yield "post_attention_layernorm.weight", (hidden,)


def _draw(name: str, shape: tuple[int, ...], config: Mapping[str, Any], seed: int) -> np.ndarray:
    """One tensor, from its own stream: adding a layer changes no other layer."""
    stream = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    values = stream.standard_normal(shape, dtype=np.float32)
    if name.endswith("norm.weight"):
        level = 10.0 if name == "model.norm.weight" and config["tie_word_embeddings"] else 1.0
        return (level * (1.0 + 0.1 * values)).astype(np.float32)
    return (values * np.float32(_scale(name, shape, config))).astype(np.float32)


def _scale(name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> float:
    """Standard deviation of a tensor's elements, for inputs of unit variance.

    Queries and keys are large, so that attention picks positions instead of averaging them.
    Biases are small: what they add is the same for every token. A tied embedding is small
    against the layers' output, or the head would repeat its input (the last norm makes up).
    """
    fan_in = float(shape[-1])
    if name.endswith(".bias"):
        return 0.1
    if name == "model.embed_tokens.weight":
        return float(0.3 * fan_in**-0.5) if config["tie_word_embeddings"] else 1.0
    gains = {"q_proj": 1.4, "k_proj": 1.4, "o_proj": 1.5, "down_proj": 1.5, "lm_head": 3.0}
    gain = next((value for part, value in gains.items() if part in name), 1.0)
    return float(gain * fan_in**-0.5)


def _divide(
    items: list[tuple[str, tuple[int, ...]]], parts: int
) -> list[list[tuple[str, tuple[int, ...]]]]:
    """Cut the list into at most `parts` runs of about equal element counts, none empty."""
    ends = np.cumsum([int(np.prod(shape)) for _, shape in items])
    owners = np.minimum((ends - 1) * parts // ends[-1], parts - 1)
    runs = [
        [item for item, owner in zip(items, owners, strict=True) if owner == part]
        for part in range(parts)
    ]
    return [run for run in runs if run]
