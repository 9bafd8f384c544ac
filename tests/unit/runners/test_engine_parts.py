"""The engine's parts by themselves, in one process and without DeepSpeed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from harness_runners.engines.kv_cache import StageCache  # noqa: E402
from harness_runners.engines.microbatch import divide, pad_left  # noqa: E402
from harness_runners.engines.positions import Positions  # noqa: E402
from harness_runners.engines.sampling import Sampler  # noqa: E402
from harness_runners.engines.stage import build_stage, layer_windows  # noqa: E402
from harness_runners.engines.weights import TIED, skipped_by_owner  # noqa: E402

CPU = torch.device("cpu")


@given(st.integers(1, 40), st.integers(1, 10))
def test_micro_batches_hold_every_row_once(count, parts):
    runs = divide(count, parts)
    assert [row for run in runs for row in run] == list(range(count))
    assert len(runs) == min(parts, count)
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_rows_are_padded_on_the_left(rows):
    padded, pads = pad_left(rows, fill=99)
    assert len({len(row) for row in padded}) == 1
    for row, before, whole in zip(rows, pads, padded, strict=True):
        assert whole == [99] * before + row


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.integers(6, 9),
    st.integers(0, 4),
    st.sampled_from([None, 1, 2, 4]),
)
def test_masks_are_those_of_the_definition(pads, prompt, step, window):
    """A query sees its own row's tokens up to itself, within the window; nothing of padding."""
    slots = torch.arange(prompt) if step == 0 else torch.tensor([prompt + step - 1])
    total = prompt + 4
    positions = Positions(slots, torch.tensor(pads), total)
    mask = positions.mask(window)
    assert mask.shape == (len(pads), 1, len(slots), total)
    for row, pad in enumerate(pads):
        for index, query in enumerate(slots.tolist()):
            for key in range(total):
                near = window is None or query - key < window
                expected = (pad <= key <= query and near) or key == query
                assert bool(mask[row, 0, index, key]) == expected
            assert int(positions.ids[row, index]) == max(0, query - pad)


def test_a_window_is_that_of_transformers():
    from transformers import MistralConfig
    from transformers.masking_utils import create_sliding_window_causal_mask

    config = MistralConfig(sliding_window=3, hidden_size=8, num_attention_heads=1)
    config._attn_implementation = "eager"
    inputs = torch.zeros(1, 7, 8)
    theirs = create_sliding_window_causal_mask(
        config=config,
        inputs_embeds=inputs,
        attention_mask=torch.ones(1, 7, dtype=torch.long),
        past_key_values=None,
        position_ids=torch.arange(7)[None],
    )
    ours = Positions(torch.arange(7), torch.zeros(1, dtype=torch.long), 7).mask(3)
    assert torch.equal(theirs == 0, ours)


def test_the_cache_returns_fixed_shapes_and_keeps_what_was_written():
    cache = StageCache(
        [4, 5], rows=3, kv_heads=2, slots=8, head_dim=4, dtype=torch.float32, device=CPU
    )
    cache.resize(rows=2, slots=6)
    prompt = torch.randn(2, 2, 4, 4)
    cache.write_at(torch.arange(4))
    cache.update(prompt, prompt + 1, 5)
    cache.write_at(torch.tensor([4]))
    token = torch.randn(2, 2, 1, 4)
    keys, values = cache.update(token, token + 1, 5)
    assert keys.shape == values.shape == (2, 2, 6, 4)
    assert torch.equal(keys[:, :, :5], torch.cat([prompt, token], dim=2))
    assert torch.equal(values[:, :, :5], torch.cat([prompt, token], dim=2) + 1)
    untouched, _ = cache.update(token, token, 4)
    assert not untouched[:, :, :4].any()


def scores(*tokens, vocabulary=10):
    result = torch.zeros(len(tokens), vocabulary)
    result[range(len(tokens)), tokens] = 1.0
    return result


def test_a_row_that_has_ended_emits_the_filler_until_all_have():
    sampler = Sampler(2, 4, eos=(7, 8), fill=7, device=CPU)
    for step, logits in enumerate([scores(3, 8), scores(7, 4), scores(5, 5)]):
        sampler.sample(logits)
        assert int(sampler.all_ended()) == (step >= 1)
    assert sampler.tokens.tolist() == [[3, 7, 7, 7], [8, 7, 7, 7]]
    assert sampler.last_token().tolist() == [[7], [7]]


def test_without_eos_nothing_ends():
    sampler = Sampler(1, 2, eos=(), fill=0, device=CPU)
    sampler.sample(scores(0))
    assert not int(sampler.all_ended())


def test_a_stage_that_is_told_the_tokens_knows_the_end_as_well():
    sampler = Sampler(2, 4, eos=(7,), fill=7, device=CPU)
    sampler.told(torch.tensor([7, 1]))
    assert not int(sampler.all_ended())
    sampler.told(torch.tensor([7, 7]))
    assert int(sampler.all_ended())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from harness_runners.model.synthetic import synthetic_config
    from harness_runners.plan import ModelPlan
    from harness_runners.prepare import make_synthetic

    folder = tmp_path_factory.mktemp("models") / "qwen"
    config = synthetic_config("tiny-qwen2", layers=4)
    make_synthetic(folder, ModelPlan(str(folder), synthetic="tiny-qwen2", config=config))
    return folder


def test_a_stage_keeps_names_and_only_its_own_parts_on_meta(folder):
    middle = build_stage(folder, torch.float32, range(1, 3), first=False, last=False)
    names = {name for name, _ in middle.named_parameters()}
    assert {name.split(".")[2] for name in names} == {"1", "2"}
    assert all(parameter.is_meta for parameter in middle.parameters())
    last = build_stage(folder, torch.bfloat16, range(3, 4), first=False, last=True)
    names = {name: parameter.dtype for name, parameter in last.named_parameters()}
    assert "lm_head.weight" in names
    assert "model.norm.weight" in names
    assert "model.embed_tokens.weight" not in names
    assert set(names.values()) == {torch.bfloat16}


def test_a_tied_head_is_a_tensor_of_its_own(folder):
    whole = build_stage(folder, torch.float32, range(4), first=True, last=True)
    assert whole.lm_head.weight is not whole.model.embed_tokens.weight
    assert TIED["lm_head.weight"] == "model.embed_tokens.weight"


def test_windows_by_layer():
    from transformers import LlamaConfig, MistralConfig, Qwen2Config

    assert layer_windows(LlamaConfig(), 2) == [None, None]
    assert layer_windows(MistralConfig(sliding_window=16), 2) == [16, 16]
    assert layer_windows(MistralConfig(sliding_window=None), 1) == [None]
    mixed = Qwen2Config(
        num_hidden_layers=4, use_sliding_window=True, sliding_window=8, max_window_layers=2
    )
    assert layer_windows(mixed, 4) == [None, None, 8, 8]


def test_skipped_tensors_are_counted_by_their_owner():
    names = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(5)]
    names += ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight", "junk"]
    left = [name for name in names if name not in (names[1], names[2])]
    assert skipped_by_owner(left, (1, 2, 2)) == {"stage 0": 2, "stage 2": 4, "nobody": 1}
