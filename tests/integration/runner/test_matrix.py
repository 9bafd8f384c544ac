"""The engine against plain transformers, over real ranks: layouts, models, and broken engines."""

from __future__ import annotations

import json
import shutil

import pytest
from integration.runner import jobs as runner_jobs
from integration.runner.jobs import NEW_TOKENS, completions, job, make_model, make_plan
from unit.probe import spool

from harness_runners.check import reference
from harness_runners.model.checkpoint import read_checkpoint

pytestmark = pytest.mark.integration

LAYOUTS = {
    "1x1": (1, (4,)),
    "2x1": (2, (4,)),
    "1x2": (1, (1, 3)),
    "2x2": (2, (2, 2)),
    "4x1": (4, (4,)),
    "1x3": (1, (1, 1, 2)),
}
MUTATIONS = ("no_rotation", "dropped_all_reduce", "swapped_layers", "shifted_cache")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All runs by name, done by one set of four processes."""
    root = tmp_path_factory.mktemp("matrix")
    models = root / "models"
    llama = make_model(models / "llama", "tiny-llama")
    plans = {}

    def add(name, model, **settings):
        plans[name] = make_plan(root / name, model, **settings)

    for name, (tp, layers) in LAYOUTS.items():
        add(f"{name} batch 3", llama, tp=tp, layers=layers)
        add(f"{name} batch 1", llama, tp=tp, layers=layers, batch_size=1)
    add("microbatches", llama, tp=2, layers=(2, 2), microbatches=3)
    add("microbatches 1x3", llama, layers=(1, 1, 2), microbatches=2)
    add("bfloat16", llama, tp=2, layers=(2, 2), dtype="bfloat16")
    mistral = make_model(models / "mistral", "tiny-mistral", sliding_window=16)
    add("mistral 2x2", mistral, tp=2, layers=(2, 2))
    qwen = make_model(models / "qwen", "tiny-qwen2")
    add("qwen2 1x1", qwen)
    add("qwen2 2x1", qwen, tp=2)
    add("qwen2 2x2", qwen, tp=2, layers=(2, 2))
    jobs = [job(plan) for plan in plans.values()]
    for name in MUTATIONS:
        plans[name] = make_plan(root / name, llama, tp=2)
        jobs.append(job(plans[name], name))
    runner_jobs.run_jobs(root, jobs)
    return plans


@pytest.fixture(scope="module")
def results(runs):
    return {name: reference.compare_run(plan) for name, plan in runs.items()}


FAITHFUL = [f"{layout} batch {size}" for layout in LAYOUTS for size in (3, 1)]
FAITHFUL += ["microbatches", "microbatches 1x3", "mistral 2x2"]
FAITHFUL += ["qwen2 1x1", "qwen2 2x1", "qwen2 2x2"]


@pytest.mark.parametrize("name", FAITHFUL)
def test_tokens_and_logits_are_those_of_transformers(results, name):
    result = results[name]
    assert result["verdict"] == "pass", result["why"]
    assert result["compared"] == 3 * NEW_TOKENS
    assert result["equal"] + result["ties"] == result["compared"]
    assert result["ties"] <= 0.01 * result["compared"]
    assert 0 < result["max_logit_diff"] < 1e-3


def test_bfloat16_differs_by_no_more_than_its_rounding(results):
    result = results["bfloat16"]
    assert result["verdict"] == "pass", result["why"]
    assert result["max_logit_diff"] > 1e-3


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_engine_fails_the_comparison(results, name):
    result = results[name]
    assert result["verdict"] == "fail"
    assert result["equal"] < result["compared"]
    assert "differ from the reference" in result["why"]


@pytest.mark.parametrize("name", FAITHFUL)
def test_completions_are_varied_enough_to_tell_right_from_wrong(runs, name):
    for tokens in completions(runs[name]).values():
        assert len(set(tokens)) >= len(tokens) / 2


def test_every_layout_and_batch_size_completes_alike(runs):
    expected = completions(runs["1x1 batch 1"])
    assert set(expected) == {("p0", 0), ("p1", 0), ("p2", 0)}
    for name in FAITHFUL[:14]:
        assert completions(runs[name]) == expected, name


@pytest.mark.parametrize("name", ["1x1 batch 3", "2x1 batch 3", "2x2 batch 3", "4x1 batch 3"])
def test_each_rank_reads_its_own_bytes_and_nothing_else(runs, name):
    plan = runs[name]
    entries = read_checkpoint(plan.run.path.parent / "models" / "llama")
    for rank in range(plan.world_size):
        read = bytes_read(plan, rank)
        assert sum(read.values()) == expected_bytes(entries, plan, rank)


def test_no_stage_opens_a_file_that_holds_nothing_of_its_own(runs):
    first, last = (set(bytes_read(runs["1x2 batch 3"], rank)) for rank in range(2))
    assert first != last
    assert first | last == set(bytes_read(runs["1x1 batch 3"], 0))


def bytes_read(plan, rank):
    """{file: bytes} of the safetensors reads that a rank recorded."""
    found = spool.read(plan.run.spans, rank)
    attrs = {row["id"]: row["attrs"] for row in found.meta if row["t"] == "attrs"}
    read = {}
    for record in found.records:
        is_io = (record.head >> 40) & 0xFF == 5
        fact = attrs.get(record.extra, {}) if is_io else {}
        path = fact.get("path", "")
        if path.endswith(".safetensors") and fact.get("part") != "header":
            read[path] = read.get(path, 0) + record.bytes
    return read


def expected_bytes(entries, plan, rank):
    """What a rank's slices weigh, counted by hand: 4 bytes an element."""
    stage, tp_rank = divmod(rank, plan.tp)
    first = sum(plan.layers[:stage])
    held = range(first, first + plan.layers[stage])
    mlp = shards(688, plan.tp)[tp_rank]
    total = 0
    for name, entry in entries.items():
        parts = name.split(".")
        if "layers" in parts:
            if int(parts[2]) not in held:
                continue
            rows, columns = entry.shape if len(entry.shape) == 2 else (entry.shape[0], 1)
            if "norm" in name:
                share = rows
            elif "mlp" in parts:
                share = mlp * (rows * columns // 688)
            else:
                share = rows * columns // plan.tp
        elif name == "model.embed_tokens.weight":
            share = entry.shape[0] * entry.shape[1] * (stage == 0)
        else:
            last = stage == len(plan.layers) - 1
            whole = entry.shape[0] * (entry.shape[1] // plan.tp if "lm_head" in name else 1)
            share = whole * last
        total += 4 * share
    return total


def shards(size, tp):
    """Shards of 64 columns dealt out in turn, the rest to the last rank."""
    grains, rest = divmod(size, 64)
    counts = [grains // tp + (rank < grains % tp) for rank in range(tp)]
    return [64 * count + (rest if rank == tp - 1 else 0) for rank, count in enumerate(counts)]


def test_sequences_end_at_eos(tmp_path, runs):
    """A model whose end-of-sequence ids are tokens that it is known to emit."""
    usual = completions(runs["1x1 batch 1"])
    stops = sorted({usual["p0", 0][2], usual["p1", 0][5], usual["p2", 0][3]})
    model = tmp_path / "model"
    shutil.copytree(runs["1x1 batch 1"].model.folder, model)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    layouts = [(1, (4,), 1), (2, (2, 2), 1), (1, (1, 1, 2), 2)]
    plans = [
        make_plan(tmp_path / f"run-{n}", model, tp, layers, microbatches=m)
        for n, (tp, layers, m) in enumerate(layouts)
    ]
    runner_jobs.run_jobs(tmp_path, [job(plan) for plan in plans])
    for plan in plans:
        found = completions(plan)
        for key, tokens in usual.items():
            end = next(index for index, token in enumerate(tokens) if token in stops)
            assert found[key] == tokens[: end + 1]
        last_step = max(
            row.get("step") or 0 for row in spool.read(plan.run.spans).meta if row["t"] == "unit"
        )
        assert last_step <= 8, "all sequences had ended, and the ranks went on"
