from __future__ import annotations

import hashlib
import json
from typing import get_args

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from harness_runners.model import synthetic
from harness_runners.model.checkpoint import read_checkpoint
from harness_runners.plan import ModelPlan
from harness_runners.prepare import prepare_model
from harness_runners.shipped import load_shipped
from harness_schemas.spec import FILED_SHAPES, SyntheticShape


def made(folder, shape="tiny-llama", layers=2, seed=0):
    config = synthetic.synthetic_config(shape, layers)
    plan = ModelPlan(str(folder), synthetic=shape, config=config, seed=seed)
    assert prepare_model(plan)
    return plan


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "llama"
    made(folder)
    return folder


def digest(folder):
    files = sorted(folder.glob("*"))
    return [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]


def test_every_shape_of_the_specification_can_be_made():
    assert set(synthetic.SHAPES) == set(get_args(SyntheticShape))
    assert set(FILED_SHAPES) < set(synthetic.SHAPES)


def test_the_same_seed_writes_the_same_bytes(llama, tmp_path):
    made(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(llama)
    made(tmp_path / "other", seed=1)
    assert digest(tmp_path / "other") != digest(llama)


def test_it_is_made_once_and_leaves_nothing_behind(llama):
    plan = ModelPlan(str(llama), synthetic="tiny-llama", config={}, seed=0)
    assert not prepare_model(plan)
    assert [path.name for path in llama.parent.iterdir()] == ["llama"]


def test_it_is_a_sharded_checkpoint_of_the_shapes_transformers_expects(llama):
    config = json.loads((llama / "config.json").read_text())
    entries = read_checkpoint(llama)
    assert {name: entry.shape for name, entry in entries.items()} == synthetic.tensor_shapes(config)
    assert 2 <= len({entry.file for entry in entries.values()}) <= synthetic.SHARDS


def test_a_layer_does_not_depend_on_how_many_there_are(llama, tmp_path):
    made(tmp_path / "deep", layers=3)
    name = "model.layers.1.mlp.up_proj.weight"
    shallow, deep = (
        load_file(read_checkpoint(folder)[name].file)[name] for folder in (llama, tmp_path / "deep")
    )
    assert np.array_equal(shallow, deep)


def test_dimensions_divide_by_one_two_and_four():
    for name in FILED_SHAPES:
        shape = synthetic.SHAPES[name]
        for key in ("num_attention_heads", "num_key_value_heads"):
            assert shape[key] % 4 == 0, name
        for key in ("hidden_size", "intermediate_size"):
            assert shape[key] % (4 * 64) == 0, name


def test_the_tokenizer_gives_every_text_back_and_starts_with_bos(llama):
    tokenizer = Tokenizer.from_file(str(llama / "tokenizer.json"))
    config = json.loads((llama / "config.json").read_text())
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    for prompt in load_shipped("short"):
        ids = tokenizer.encode(prompt.prompt).ids
        assert ids[0] == config["bos_token_id"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == prompt.prompt


@pytest.mark.parametrize(("variant", "low", "high"), [("2k", 1500, 2048), ("4k", 3300, 4096)])
def test_the_long_variants_are_as_long_as_they_say(llama, variant, low, high):
    tokenizer = Tokenizer.from_file(str(llama / "tokenizer.json"))
    lengths = [len(tokenizer.encode(prompt.prompt).ids) for prompt in load_shipped(variant)]
    assert low <= min(lengths)
    assert max(lengths) <= high


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-mistral", "tiny-qwen2"])
def test_greedy_completions_hold_at_least_half_distinct_tokens(tmp_path, shape):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / shape
    made(folder, shape, layers=None)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    texts = [prompt.prompt for prompt in load_shipped("short")[:8]]
    tokens = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        output = model.generate(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            max_new_tokens=32,
            min_new_tokens=32,
            do_sample=False,
        )
    for row in output[:, tokens["input_ids"].shape[1] :].tolist():
        assert len(set(row)) >= 16
