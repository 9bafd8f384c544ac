"""A model directory's configuration: the shape that the engine runs, and the end of sequence."""

from __future__ import annotations

import json
from pathlib import Path

from harness_runners.model.shape import Shape, read_config, shape_of
from harness_schemas.errors import UsageError

FAMILIES = ("llama", "mistral", "qwen2")
"""Model types whose decoder layers the engine drives (transformers' `model_type`)."""
REQUIRED = (
    "num_attention_heads",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
)
"""What every config of these families says."""


def read_shape(folder: Path) -> Shape:
    """The shape of a model directory.

    Raises:
        UsageError: config.json is missing, broken, or of a family the engine does not drive.
    """
    config = read_config(folder / "config.json")
    if config.get("model_type") not in FAMILIES:
        raise UsageError(
            f"{folder} holds a model of type {config.get('model_type')!r}; "
            f"the engine runs {', '.join(FAMILIES)}"
        )
    for key in REQUIRED:
        if key not in config:
            raise UsageError(f"{folder / 'config.json'} has no {key}")
    return shape_of(config, folder.name)


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
