from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_runners.model.shape import (
    ModelShape,
    eos_tokens,
    layer_range,
    read_shape,
    split_layers,
)
from harness_runners.model.synthetic import SHAPES, synthetic_config, tensor_shapes
from harness_schemas.errors import UsageError


def shape(layers=8, **changes):
    config = {**SHAPES["tiny-llama"], "num_hidden_layers": layers, "vocab_size": 4096, **changes}
    return ModelShape.from_config(config)


@pytest.mark.parametrize("name", SHAPES)
def test_parameter_counts_are_those_of_the_tensors(name):
    config = {**synthetic_config(name), "vocab_size": 4096}
    found = ModelShape.from_config(config)
    tensors = tensor_shapes(config)
    layer = sum(
        dims[0] * (dims[1] if len(dims) == 2 else 1)
        for tensor, dims in tensors.items()
        if tensor.startswith("model.layers.0.") and not tensor.endswith("bias")
    )
    assert found.layer_parameters == layer
    rows, columns = tensors["model.embed_tokens.weight"]
    assert found.embedding_parameters == rows * columns


@given(st.integers(1, 100), st.integers(1, 16), st.integers(1, 200_000), st.booleans())
def test_a_split_holds_every_layer_and_no_other_is_lighter(layers, stages, vocab, tied):
    stages = min(stages, layers)
    model = shape(layers, vocab_size=vocab, tie_word_embeddings=tied)
    counts = split_layers(model, stages)
    assert sum(counts) == layers
    assert min(counts) >= 1
    heaviest = max(weights(model, counts))
    for giver in range(stages):
        for taker in range(stages):
            if counts[giver] > 1 and giver != taker:
                moved = list(counts)
                moved[giver] -= 1
                moved[taker] += 1
                assert max(weights(model, moved)) >= heaviest


def weights(model, counts):
    total = [count * model.layer_parameters for count in counts]
    total[0] += model.embedding_parameters
    if len(counts) > 1 or not model.tied:
        total[-1] += model.embedding_parameters
    return total


def test_embedding_and_head_push_layers_to_the_middle():
    # A layer holds 0.79 M parameters, the embedding and the head 5.24 M each.
    assert split_layers(shape(8, vocab_size=20480), 3) == (1, 6, 1)
    assert split_layers(shape(8, vocab_size=16), 2) == (4, 4)


def test_layer_range_is_global():
    assert [list(layer_range((1, 3, 2), stage)) for stage in range(3)] == [[0], [1, 2, 3], [4, 5]]


def test_head_dim_and_kv_heads_have_their_defaults():
    config = dict(SHAPES["tiny-llama"], vocab_size=10)
    for key in ("head_dim", "num_key_value_heads"):
        config.pop(key)
    found = ModelShape.from_config(config)
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
