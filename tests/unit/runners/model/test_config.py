"""What a model directory says of itself, and what is refused in it."""

from __future__ import annotations

import json

import pytest

from harness_runners.capacity.shards import layer_tensors
from harness_runners.model.config import eos_tokens, read_shape
from harness_runners.model.shape import shape_of
from harness_runners.model.synthetic import SHAPES, synthetic_config, tensor_shapes
from harness_schemas.errors import UsageError


@pytest.mark.parametrize("name", SHAPES)
def test_a_layer_has_the_parameters_of_its_tensors(name):
    config = {**synthetic_config(name), "vocab_size": 4096}
    layer = sum(
        dims[0] * (dims[1] if len(dims) == 2 else 1)
        for tensor, dims in tensor_shapes(config).items()
        if tensor.startswith("model.layers.0.")
    )
    found = layer_tensors(shape_of(config, name))
    assert sum(tensor.size * tensor.others * tensor.copies for tensor in found) == layer


def test_head_dim_and_kv_heads_have_their_defaults(tmp_path):
    config = dict(SHAPES["tiny-llama"], vocab_size=10)
    for key in ("head_dim", "num_key_value_heads"):
        config.pop(key)
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = read_shape(tmp_path)
    assert (found.head_dim, found.kv_heads) == (32, 8)


def test_eos_of_the_generation_config_wins(tmp_path):
    assert eos_tokens(tmp_path) == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    assert eos_tokens(tmp_path) == (7,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert eos_tokens(tmp_path) == (7, 9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read"),
        ("{", "is not JSON"),
        ("[]", "does not hold an object"),
        ('{"model_type": "gpt_oss"}', "of type 'gpt_oss'; the engine runs llama"),
        ('{"model_type": "llama"}', "has no num_attention_heads"),
    ],
)
def test_a_broken_config_is_one_sentence(tmp_path, text, said):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError, match=r"config\.json|type") as caught:
        read_shape(tmp_path)
    assert said in caught.value.message
