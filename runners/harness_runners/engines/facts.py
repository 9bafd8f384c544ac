"""What a step costs a rank at least, counted on the model as it was cut (table `ranks`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from harness_runners.engines.weights import weights_bytes

EMBEDDING = "embed_tokens.weight"


def work_facts(model: nn.Module, layers: Sequence[int]) -> dict[str, int]:
    """Bytes held and read, and FLOPs, of a rank's stage of a Llama-like model.

    A decode step reads every weight but the embedding, of which it looks up a row a token; a
    head tied to it reads it whole. FLOPs: 2 a matrix element and token; attention 4 x head
    width for one query, head and key (twice a product with keys, twice with values).
    """
    names = dict(model.named_parameters())
    read = [weight for name, weight in names.items() if not name.endswith(EMBEDDING)]
    head: Any = getattr(model.lm_head, "weight", None)
    if head is not None and all(head is not weight for weight in read):
        read.append(head)
    matrices = sum(weight.numel() for weight in read if weight.dim() == 2)
    attention: Any = [model.model.layers[index].self_attn for index in layers]
    queries = sum(part.q_proj.weight.shape[0] for part in attention)
    keys = sum(part.k_proj.weight.shape[0] for part in attention)
    return {
        "weights_bytes": weights_bytes(model),
        "step_weight_bytes": sum(weight.numel() * weight.element_size() for weight in read),
        "kv_bytes_per_token": 2 * keys * attention[0].k_proj.weight.element_size(),
        "flops_per_token": 2 * matrices,
        "attention_flops_per_kv_token": 4 * queries,
    }
