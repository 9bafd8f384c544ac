"""A model's dimensions out of any Hugging Face config.json, or of a shape shipped here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_schemas.errors import UsageError

SHAPES = Path(__file__).with_name("shapes")
"""Facts of published models; keys as in their config.json."""

KNOWN = frozenset({"llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe"}) | {
    "phi3",
    "gemma",
    "gemma2",
    "olmo",
    "olmo2",
    "gpt_oss",
}
"""Model types whose layers these formulas describe; others are taken as Llama-like."""
UNGATED = frozenset(
    ["gpt2", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "starcoder2", "gpt_bigcode"]
)
"""Families whose MLP has two matrices instead of three."""
QKV_BIAS = frozenset({"qwen2", "qwen2_moe", "gpt_oss"})
ALIASES = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "n_layers"),
    "num_attention_heads": ("n_head", "n_heads"),
    "max_position_embeddings": ("n_positions", "max_seq_len", "max_sequence_length", "seq_length"),
    "num_local_experts": ("num_experts", "n_routed_experts"),
}
MXFP4_BITS = 4.25
"""Four bits a weight and an eight-bit scale for 32 of them (OCP Microscaling, MXFP4)."""
SLIDING_EVERY_SECOND = frozenset({"gpt_oss", "gemma2"})
"""Where `layer_types` is absent: layers 0, 2, 4 ... slide (transformers' default)."""


@dataclass(frozen=True)
class Shape:
    """Dimensions of a decoder-only model. `windows`: sliding window of each layer, None: full.

    `linear_bits` and `expert_bits`: bits a weight as stored; None: those of the data type.
    `inner` is the width of one expert's MLP where there are experts.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    max_positions: int | None
    tied: bool
    gated: bool
    qkv_bias: bool
    output_bias: bool
    qk_norm: bool
    sinks: bool
    experts: int
    active_experts: int
    expert_bias: bool
    shared_inner: int
    windows: tuple[int | None, ...]
    dtype: str
    linear_bits: float | None
    expert_bits: float | None
    notes: tuple[str, ...] = ()


def load_shape(source: str) -> Shape:
    """A shipped shape by name, a config.json, or a folder that holds one.

    Raises:
        UsageError: neither; or a model whose memory these formulas cannot tell.
    """
    shipped = SHAPES / f"{source.lower()}.json"
    path = Path(source)
    if path.is_dir():
        path = path / "config.json"
    file = path if path.is_file() else shipped
    if not file.is_file():
        names = ", ".join(shape_names())
        raise UsageError(f"{source!r} is no config.json and no shape", f"shipped: {names}")
    config = read_config(file)
    name = shipped.stem if file is shipped else str(config.get("_name_or_path") or path.parent.name)
    return shape_of(config, name or file.name)


def shape_names() -> list[str]:
    """Names of the shipped shapes."""
    return sorted(path.stem for path in SHAPES.glob("*.json"))


def read_config(path: Path) -> dict[str, Any]:
    """A config.json.

    Raises:
        UsageError: there is none, or it is not JSON.
    """
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path} does not hold an object")
    return config


def shape_of(config: Mapping[str, Any], name: str) -> Shape:
    """The shape in a Hugging Face config (of its text part where it has several).

    Raises:
        UsageError: a key that every decoder has is missing or no number; latent attention.
    """
    text = config.get("text_config")
    outer = config
    if isinstance(text, Mapping):
        config = text
    kind = str(config.get("model_type") or outer.get("model_type") or "")
    if config.get("kv_lora_rank"):
        raise UsageError(f"{name} keeps latent keys and values ({kind}): not planned here")
    heads, hidden = (
        _number(config, "num_attention_heads", name),
        _number(config, "hidden_size", name),
    )
    layers = _number(config, "num_hidden_layers", name)
    experts = int(_find(config, "num_local_experts") or 0)
    quantised = outer.get("quantization_config") or config.get("quantization_config") or {}
    linear_bits, expert_bits = _stored_bits(quantised)
    notes = () if kind in KNOWN | UNGATED else (f"model type {kind!r} is taken as Llama-like",)
    bias = bool(config.get("attention_bias", kind in QKV_BIAS))
    return Shape(
        name=name,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or config.get("num_kv_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        inner=_inner(config, hidden, experts, name),
        vocab=_number(config, "vocab_size", name),
        max_positions=_find(config, "max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", outer.get("tie_word_embeddings", False))),
        gated=kind not in UNGATED,
        qkv_bias=bias or kind in QKV_BIAS,
        output_bias=bias and kind not in ("qwen2", "qwen2_moe"),
        qk_norm=kind in ("qwen3", "qwen3_moe"),
        sinks=kind == "gpt_oss",
        experts=experts,
        active_experts=int(config.get("num_experts_per_tok") or 0) if experts else 0,
        expert_bias=kind == "gpt_oss",
        shared_inner=int(config.get("shared_expert_intermediate_size") or 0) if experts else 0,
        windows=_windows(config, kind, layers),
        dtype=str(
            outer.get("torch_dtype") or outer.get("dtype") or config.get("dtype") or "bfloat16"
        ),
        linear_bits=linear_bits,
        expert_bits=expert_bits,
        notes=notes,
    )


def _find(config: Mapping[str, Any], key: str) -> int | None:
    for candidate in (key, *ALIASES.get(key, ())):
        value = config.get(candidate)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _number(config: Mapping[str, Any], key: str, name: str) -> int:
    value = _find(config, key)
    if value is None or value < 1:
        raise UsageError(f"the config of {name} has no {key}")
    return value


def _inner(config: Mapping[str, Any], hidden: int, experts: int, name: str) -> int:
    """Width of the MLP, or of one expert's."""
    if experts and isinstance(config.get("moe_intermediate_size"), int):
        return int(config["moe_intermediate_size"])
    if "intermediate_size" in config:
        return _number(config, "intermediate_size", name)
    return int(config.get("n_inner") or config.get("ffn_dim") or 4 * hidden)


def _windows(config: Mapping[str, Any], kind: str, layers: int) -> tuple[int | None, ...]:
    window = config.get("sliding_window")
    if not isinstance(window, int) or config.get("use_sliding_window") is False:
        return (None,) * layers
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers:
        return tuple(window if kind == "sliding_attention" else None for kind in kinds)
    if kind in SLIDING_EVERY_SECOND:
        return tuple(window if layer % 2 == 0 else None for layer in range(layers))
    return (window,) * layers


def _stored_bits(quantised: Any) -> tuple[float | None, float | None]:
    """Bits a weight of (linear layers, experts) by `quantization_config`."""
    if not isinstance(quantised, Mapping):
        return None, None
    method = str(quantised.get("quant_method") or "")
    if method == "mxfp4":
        return None, MXFP4_BITS
    if method in ("fp8", "fbgemm_fp8", "modelopt_fp8"):
        return 8.0, 8.0
    if method in ("gptq", "awq"):
        bits, group = float(quantised.get("bits") or 4), int(quantised.get("group_size") or 128)
        stored = bits + (16 + bits) / group if group > 0 else bits
        return stored, stored
    if quantised.get("load_in_4bit") or quantised.get("load_in_8bit"):
        bits = 4.5 if quantised.get("load_in_4bit") else 8.0
        return bits, bits
    return None, None
