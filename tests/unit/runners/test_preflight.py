from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness_runners import plan, prompts
from harness_runners import preflight as preflight_module
from harness_runners.files import cache
from harness_runners.preflight import preflight
from harness_runners.prompts import Request
from harness_schemas.rundir import RunDir
from harness_schemas.spec import RunSpec
from harness_schemas.spi import RankHookSpec


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))


def spec(**changes):
    return RunSpec(**{"model": {"synthetic": "tiny-llama"}, "device": "cpu", **changes})


def model_folder(folder, **changes):
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "vocab_size": 16,
        "max_position_embeddings": 40,
        **changes,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"x": np.ones(4, np.float32)}, str(folder / "model.safetensors"))
    return folder


def test_a_good_specification_has_no_problem():
    assert preflight(spec(parallel={"tp": 4, "pp": 2})) == []


def test_everything_wrong_is_said_at_once(tmp_path):
    folder = model_folder(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-3])
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "ok"}\nno\n{"prompt": 3}\n')
    problems = preflight(
        spec(
            model={"path": str(folder)},
            parallel={"tp": 2, "pp": 3, "layers": [1, 1, 2]},
            prompts={"source": str(bad), "variant": None},
            generation={"mode": "graph"},
        )
    )
    said = [f"{path}: {problem}" for path, problem in problems]
    for part in (
        "generation.mode: graph replays CUDA graphs, and the device is cpu",
        "holds no tokenizer",
        "model.safetensors is truncated",
        "parallel.pp: 3 stages, but the model has 2 layers",
        "parallel.layers: they add up to 4, the model has 2",
        "parallel.tp: 3 key/value heads cannot be divided among 2 ranks",
        "prompts.source: bad.jsonl line 2: not JSON",
        "prompts.source: bad.jsonl line 3: needs a text `prompt`",
    ):
        assert any(part in line for line in said), part
    assert len(said) == 8


def test_more_ranks_than_key_value_heads_is_one_clear_sentence():
    problems = preflight(spec(parallel={"tp": 8}))
    assert problems == [
        (
            "parallel.tp",
            "8 ranks share a layer, but the model has 4 key/value heads: some ranks would hold "
            "none; use tp 4 or less and more stages",
        )
    ]


def test_a_missing_model_and_a_missing_prompt_file(tmp_path):
    problems = preflight(
        spec(model={"path": str(tmp_path / "no")}, prompts={"source": str(tmp_path / "no.jsonl")})
    )
    assert [path for path, _ in problems] == ["model.path", "prompts.source"]
    assert "is no folder" in problems[0][1]


def test_packages_that_ranks_need_are_missed_before_the_launch(monkeypatch):
    monkeypatch.setattr(preflight_module, "RANK_PACKAGES", ("torch", "no_such_package"))
    problem = "no_such_package not installed here; pip install 'inference-harness[run]'"
    assert preflight(spec()) == [("runner", problem)]


def test_cuda_without_a_driver(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [path for path, _ in preflight(spec(device="cuda"))] == ["device"]


def test_a_bin_checkpoint_is_fine_until_its_index_is_not(tmp_path):
    folder = model_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert preflight(spec(model={"path": str(folder)})) == []
    index = {"weight_map": {"a": "pytorch_model-1.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    problems = preflight(spec(model={"path": str(folder)}))
    assert "names pytorch_model-1.bin, which is not there" in problems[0][1]


def test_prompts_known_to_be_too_long_are_refused_with_the_numbers(tmp_path):
    folder = model_folder(tmp_path / "model")
    source = tmp_path / "p.jsonl"
    source.write_text('{"id": "long", "prompt": "word"}\n')
    given = spec(
        model={"path": str(folder)},
        prompts={"source": str(source)},
        generation={"new_tokens": 8},
    )
    assert preflight(given) == []
    texts = prompts.read_prompts(plan.plan_prompts(given))
    file = prompts.token_file(cache.cache_dir(), folder, texts)
    prompts.write_tokens(file, [Request("long", (1,) * 33)])
    problem = "prompt 'long' has 33 tokens; with 8 new ones it needs 41 of the model's 40 positions"
    assert preflight(given) == [("prompts", problem)]


def test_a_plan_survives_its_file(tmp_path):
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    given = spec(
        parallel={"tp": 2, "pp": 2, "layers": [3, 5]},
        inject={"rank": 2, "delay": "250us", "every": "layer"},
        check={"reference": False},
    )
    made = plan.make_plan(given, run, (RankHookSpec("mod:Hook", {"every": 5}),), strict=True)
    assert plan.RunPlan.read(made.write()) == made
    assert plan.RunPlan.from_json(made.to_json()) == made
    assert (made.world_size, made.layers, made.check_prompts) == (4, (3, 5), 0)
    assert made.inject.delay_ns == 250_000
    assert made.hooks[0].options == {"every": 5}


def test_layers_are_split_by_bytes_unless_they_are_given(tmp_path):
    made = plan.make_plan(spec(parallel={"pp": 3}), RunDir(tmp_path))
    assert made.layers == (2, 4, 2)


def test_preflight_and_plan_are_fast_and_import_no_torch():
    code = (
        "import sys, time; t = time.perf_counter()\n"
        "from harness_schemas.spec import RunSpec\n"
        "from harness_runners.preflight import preflight\n"
        "assert preflight(RunSpec(model={'synthetic': 'tiny-llama'}, device='cpu')) == []\n"
        "heavy = {'torch', 'transformers', 'deepspeed', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.5
