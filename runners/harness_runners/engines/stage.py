"""One pipeline stage of a transformers model: built on the meta device, foreign parts cut out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness_runners.engines.kv_cache import StageCache
from harness_runners.engines.positions import Positions


class ForeignPart(nn.Module):  # type: ignore[misc]
    """Stands where another stage's module would be, so that names and indices stay true."""

    def forward(self, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Pass the input on."""
        return hidden


def build_stage(
    folder: Path, dtype: torch.dtype, layers: Sequence[int], first: bool, last: bool
) -> nn.Module:
    """The causal language model of a directory with only `layers`, all on the meta device.

    The embedding stays on the first stage, the final norm and the head on the last.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with torch.device("meta"):
        make: Any = AutoModelForCausalLM.from_config
        model = make(config, dtype=dtype, attn_implementation="sdpa")
    body = model.model
    for index in range(len(body.layers)):
        if index not in layers:
            body.layers[index] = ForeignPart()
    if not first:
        body.embed_tokens = ForeignPart()
    if last:
        # A tied head becomes a tensor of its own: tensor parallelism cuts it, never the embedding.
        model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight), False)
    else:
        body.norm = ForeignPart()
        model.lm_head = ForeignPart()
    return model.eval().requires_grad_(False)


def layer_windows(config: Any, count: int) -> list[int | None]:
    """Sliding window of every layer; None: it attends to everything before."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return [window] * count
    return [window if kind == "sliding_attention" else None for kind in kinds]


@dataclass
class Stage:
    """A loaded stage. `forward` is pure in its tensors: nothing in it asks the device back."""

    model: nn.Module
    layers: Sequence[int]
    windows: Sequence[int | None]
    is_first: bool
    is_last: bool

    def forward(
        self, source: torch.Tensor, positions: Positions, cache: StageCache, before_layer: Any
    ) -> torch.Tensor:
        """Tokens [b, q] (first stage) or hidden states [b, q, h] -> hidden states, or on the
        last stage float32 logits [b, vocabulary] of the last position."""
        body = self.model.model
        hidden = body.embed_tokens(source) if self.is_first else source
        angles = body.rotary_emb(hidden, position_ids=positions.ids)
        for index in self.layers:
            with before_layer(index):
                hidden = body.layers[index](
                    hidden,
                    attention_mask=positions.mask(self.windows[index]),
                    position_ids=positions.ids,
                    past_key_values=cache,
                    use_cache=True,
                    position_embeddings=angles,
                )
        if not self.is_last:
            return hidden
        # Prompts are padded on the left, so the last position is every prompt's last token.
        return self.model.lm_head(body.norm(hidden[:, -1:]))[:, 0].float()
