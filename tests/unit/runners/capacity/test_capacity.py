"""Memory and step floors against numbers worked out by hand, and the algebra they must keep."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_runners.capacity import fit
from harness_runners.capacity.hardware import (
    Links,
    card_of_device,
    find_card,
    interpolate,
    read_floors,
)
from harness_runners.capacity.memory import (
    Workload,
    kv_bytes_per_token,
    largest_batch,
    plan_ranks,
    worst_rank,
)
from harness_runners.capacity.shards import held, layer_tensors, weights_slice
from harness_runners.capacity.split import Layout, make_layout, refused_by_runner
from harness_runners.capacity.steptime import decode_floor, prefill_floor
from harness_runners.model.shape import SHAPES, load_shape, shape_names, shape_of
from harness_runners.model.synthetic import SHAPES as SYNTHETIC
from harness_schemas.errors import UsageError

GIB, KIB = 1 << 30, 1 << 10
LLAMA = load_shape("llama-3.3-70b")
OSS = load_shape("gpt-oss-20b")
WORK = Workload(batch=1, context=4096, prompt=2048)

# Published parameter counts (in all, active), and the weights of the published checkpoints.
PUBLISHED = {
    "llama-3.3-70b": (70.554, None, 131.4, 320),
    "openllama-3b-v2": (3.426, None, 6.38, 325),
    "gpt-oss-20b": (20.915, 3.61, 12.8, 48),
    "gpt-oss-120b": (116.829, 5.13, 60.8, 72),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shipped_shapes_have_the_published_sizes(name):
    shape = load_shape(name)
    billions, active, weights, kv = PUBLISHED[name]
    whole = weights_slice(shape, 2.0, 1, 0, shape.layers, first=True, last=True)
    assert whole.params / 1e9 == pytest.approx(billions, abs=5e-4)
    if active:
        assert whole.active / 1e9 == pytest.approx(active, abs=5e-3)
    assert whole.bytes / GIB == pytest.approx(weights, abs=0.05)
    assert kv_bytes_per_token(shape, "bfloat16")[0] == kv * KIB
    assert set(shape_names()) == set(PUBLISHED)


def test_a_rank_of_the_seed_s_split_by_hand():
    # tp 2 x pp 3, 27 + 26 + 27 layers: of 816 MiB a layer and rank, an embedding of 2004 MiB.
    layout = make_layout(LLAMA, 2, 3, (27, 26, 27))
    first, middle, last = plan_ranks(LLAMA, layout, replace(WORK, context=2048))[::2]
    norms = 2 * 8192 * 2
    layer = 2 * (8192 * 64 * 128 + 8192 * 8 * 128 + 3 * 8192 * 28672 // 2) + norms
    assert first.part("weights") == 27 * layer + 128256 * 8192 * 2
    assert middle.part("weights") == 26 * layer
    assert last.part("weights") == 27 * layer + 128256 * 8192 + 8192 * 2
    assert first.part("KV cache") == 27 * 2048 * 2 * 4 * 128 * 2
    assert last.part("logits") == 128256 * 6
    assert first.part("logits") == 0


def test_key_value_heads_are_replicated_beyond_their_number():
    sizes = [
        sum(rank.part("KV cache") for rank in plan_ranks(LLAMA, make_layout(LLAMA, tp, 1), WORK))
        for tp in (4, 8, 16)
    ]
    assert sizes[0] == sizes[1] == 320 * KIB * 4096
    assert sizes[2] == 2 * sizes[0]


def test_activations_by_hand():
    # Of one layer: three times the hidden state and the widest of attention and MLP, and a mask.
    held = worst_rank(LLAMA, make_layout(LLAMA, 2, 1), WORK).part("activations")
    assert held == 2048 * (3 * 8192 + 3 * 28672 // 2) * 2 + 2048 * 4096


def test_sliding_layers_keep_their_window():
    assert kv_bytes_per_token(OSS, "bfloat16") == (48 * KIB, 24 * KIB)
    layout = make_layout(OSS, 1, 1)
    kept = worst_rank(OSS, layout, WORK).part("KV cache")
    assert kept == 24 * KIB * 4096 + 24 * KIB * 128
    everything = worst_rank(OSS, layout, replace(WORK, windowed=False)).part("KV cache")
    assert everything == 48 * KIB * 4096


def test_shards_are_those_that_deepspeed_makes():
    tp_shard = pytest.importorskip("deepspeed.module_inject.tp_shard")
    for tp, kv_heads in ((2, 8), (3, 8), (4, 4), (8, 8)):
        meta = tp_shard.AutoTPMeta(num_kv_heads=kv_heads, tp_grain_size=64)
        for inner in (704, 688, 8640, 60):
            config = {**json_of("llama-3.3-70b"), "intermediate_size": inner}
            shape = shape_of({**config, "num_key_value_heads": kv_heads}, "x")
            for tensor, name in (("mlp", "mlp.up_proj"), ("k_proj", "k_proj"), ("q_proj", "q")):
                (found,) = (item for item in layer_tensors(shape) if item.name == tensor)
                theirs = tp_shard.get_shard_size_list(found.size, tp, meta, name)
                ours = [held(found, shape, tp, rank) // found.others for rank in range(tp)]
                assert ours == theirs, (tensor, tp, inner)


def json_of(name):
    return json.loads((SHAPES / f"{name}.json").read_text())


shapes = st.builds(
    lambda base, kv, group, inner, layers, vocab: shape_of(
        {
            **json_of(base),
            "num_key_value_heads": kv,
            "num_attention_heads": kv * group,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "vocab_size": vocab,
        },
        "drawn",
    ),
    st.sampled_from(sorted(PUBLISHED)),
    st.sampled_from([4, 8, 12]),
    st.integers(1, 8),
    st.integers(1, 3000),
    st.integers(1, 24),
    st.integers(1, 50000),
)


@given(shapes, st.sampled_from([1, 2, 3, 4]))
def test_slices_of_every_tensor_add_up_to_the_tensor(shape, tp):
    for tensor in layer_tensors(shape):
        if tensor.cut != "none":
            whole = held(tensor, shape, 1, 0)
            assert sum(held(tensor, shape, tp, rank) for rank in range(tp)) == whole


@given(shapes, st.integers(1, 4), st.integers(1, 6))
def test_stages_hold_every_layer_once_and_the_heaviest_is_the_lightest_possible(shape, tp, pp):
    if pp > shape.layers:
        with pytest.raises(UsageError):
            make_layout(shape, tp, pp)
        return
    layout = make_layout(shape, tp, pp)
    assert sum(layout.layers) == shape.layers
    layers = [layer for stage in range(pp) for layer in layout.stage_layers(stage)]
    assert layers == list(range(shape.layers))
    layer = weights_slice(shape, 2.0, 1, 0, 1, first=False, last=False).layer
    ends = [shape.vocab * shape.hidden * 2.0 * ((k == 0) + (k == pp - 1)) for k in range(pp)]

    def heaviest(counts):
        return max(count * layer + end for count, end in zip(counts, ends, strict=True))

    for giver, taker in itertools.permutations(range(pp), 2):
        moved = list(layout.layers)
        moved[giver] -= 1
        moved[taker] += 1
        assert not moved[giver] or heaviest(moved) >= heaviest(layout.layers)


@given(
    shapes,
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 64),
    st.integers(2, 4096),
    st.integers(1, 8),
)
def test_memory_and_steps_grow_with_batch_and_context(shape, tp, batch, context, more):
    layout = make_layout(shape, tp, 1)
    card = find_card("h200")
    links = Links(card.peer_bandwidth, 8)
    small = Workload(batch, context, context // 2)
    for large in (replace(small, batch=batch + more), replace(small, context=context + more)):
        assert worst_rank(shape, layout, large).bytes >= worst_rank(shape, layout, small).bytes
        floors = [decode_floor(shape, layout, work, card, links).ns for work in (small, large)]
        assert floors[0] <= floors[1] * (1 + 1e-12)


def test_the_largest_batch_is_the_largest():
    layout, card = make_layout(LLAMA, 4, 1), find_card("h100-80g")
    most = largest_batch(LLAMA, layout, WORK, card.memory_bytes)
    needs = [
        worst_rank(LLAMA, layout, replace(WORK, batch=batch)).bytes for batch in (most, most + 1)
    ]
    assert needs[0] <= card.memory_bytes < needs[1]


def test_embedding_and_head_push_layers_to_the_middle():
    # A layer holds 0.79 M parameters, the embedding and the head 5.24 M each.
    tiny = {**SYNTHETIC["tiny-llama"], "num_hidden_layers": 8}
    assert make_layout(shape_of({**tiny, "vocab_size": 20480}, "x"), 1, 3).layers == (1, 6, 1)
    assert make_layout(shape_of({**tiny, "vocab_size": 16}, "x"), 1, 2).layers == (4, 4)
    assert Layout(1, (1, 6, 1)).stage_layers(1) == range(1, 7)


@pytest.mark.parametrize(
    ("tp", "layers", "communicators"),
    [(1, (80,), 0), (2, (80,), 2), (1, (40, 40), 3), (2, (40, 40), 4)],
)
def test_communicators_of_a_rank(tp, layers, communicators):
    # The world's; its stage's; the pipeline's and that of tokens fed back.
    assert Layout(tp, layers).communicators == communicators


@pytest.mark.parametrize(
    ("shape", "tp", "why"),
    [
        (LLAMA, 8, None),
        (LLAMA, 16, "refuses tp 16 for 8 key/value heads"),
        (LLAMA, 3, "heads divisible by 3"),
        (OSS, 1, "no mixture-of-experts models"),
    ],
)
def test_what_the_runner_would_refuse(shape, tp, why):
    found = refused_by_runner(shape, tp)
    assert found is None if why is None else why in found


def test_prefill_of_sliding_layers_looks_back_by_their_window():
    layout, card = make_layout(OSS, 1, 1), find_card("h100-80g")
    links = Links(card.peer_bandwidth, 8)
    whole = replace(OSS, windows=(None,) * OSS.layers)
    floors = [prefill_floor(shape, layout, WORK, card, links) for shape in (whole, OSS)]
    spared = sum(place - min(place, 128) for place in range(1, WORK.prompt + 1))
    pairs = 4.0 * OSS.heads * OSS.head_dim * OSS.layers / 2 * spared
    assert floors[0].flops - floors[1].flops == pytest.approx(pairs, rel=1e-9)


def test_a_step_s_floor_by_hand():
    # T4, 320 GB/s, OpenLLaMA-3B: 6.65 GB read a step without the embedding, no KV: 20.8 ms.
    shape, card = load_shape("openllama-3b-v2"), find_card("t4")
    links = Links(card.peer_bandwidth, 8)
    floor = decode_floor(shape, make_layout(shape, 1, 1), Workload(1, 1, 1), card, links)
    read = (3_426_473_600 - 32000 * 3200) * 2
    assert floor.stages[0].weight_bytes == read
    assert floor.ns == pytest.approx((read + 325 * KIB) / 320e9 * 1e9)
    assert floor.limit == "memory bandwidth"
    # Llama-3.3-70B at tp 8: 160 all-reduces of 16 KiB at 60 us are 9.6 ms.
    rows = [{"op": "all_reduce", "implementation": "nccl", "bytes": 1024, "group_size": 8}]
    links = Links(
        4.5e11,
        8,
        read_floors([{**rows[0], "p50_us": 60}, {**rows[0], "bytes": 1 << 20, "p50_us": 60}]),
    )
    floor = decode_floor(LLAMA, make_layout(LLAMA, 8, 1), WORK, find_card("h100-80g"), links)
    stage = floor.stages[0]
    assert (stage.reduces, stage.reduce_bytes, stage.reduce.basis) == (160, 16 * KIB, "measured")
    assert stage.reduces * stage.reduce.ns == pytest.approx(9.6e6)


def test_two_stages_with_one_batch_take_turns_and_with_two_overlap():
    card = find_card("h200")
    links, layout = Links(card.peer_bandwidth, 8), make_layout(LLAMA, 1, 2)
    work = replace(WORK, batch=2)
    one = decode_floor(LLAMA, layout, work, card, links)
    assert one.ns == pytest.approx(sum(s.ns for s in one.stages) + sum(h.ns for h in one.hops))
    two = decode_floor(LLAMA, layout, replace(work, microbatches=2), card, links)
    assert two.ns == pytest.approx(
        max(
            2 * max(s.ns for s in two.stages),
            sum(s.ns for s in two.stages) + sum(h.ns for h in two.hops),
        )
    )
    assert (one.hop_bytes, two.hop_bytes) == (32 * KIB, 16 * KIB)


def test_prefill_counts_half_the_square():
    shape, card = load_shape("openllama-3b-v2"), find_card("h200")
    found = prefill_floor(
        shape, make_layout(shape, 1, 1), Workload(1, 1001, 1000), card, Links(1e9, 8)
    )
    matrices = 26 * (4 * 3200 * 3200 + 3 * 3200 * 8640)
    attention = 4 * 26 * 32 * 100 * 1000 * 1001 / 2
    assert found.flops == pytest.approx(2 * 1000 * matrices + 2 * 32000 * 3200 + attention)


def test_floors_lie_between_their_neighbours():
    points = ((1024.0, 10.0), (4096.0, 40.0))
    assert interpolate(points, 2048) == pytest.approx(20.0)
    assert interpolate(points, 10) == 10.0
    assert interpolate(points, 8192) == 80.0


def test_the_suggestion_takes_the_fewest_gpus_and_stays_in_the_node():
    card = find_card("h100-80g")
    links = Links(card.peer_bandwidth, 8)
    best, why = fit.suggest(fit.table(LLAMA, WORK, card, links, [4096]), links)
    assert (best.layout.tp, best.layout.pp) == (2, 1)
    assert "160 all-reduces of a step stay within the node" in why
    assert (
        fit.suggest(fit.table(LLAMA, WORK, find_card("t4"), links, [4096], pps=[1]), links) is None
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100-80g"),
        ("Tesla T4", "t4"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
    ],
)
def test_a_card_is_known_by_its_driver_s_name(name, key):
    found = card_of_device(name)
    assert found is not None and found.key == key
    assert card_of_device("NVIDIA H100 NVL") is None


def test_what_cannot_be_planned_is_said(tmp_path):
    with pytest.raises(UsageError, match="no shape"):
        load_shape("no-such-model")
    with pytest.raises(UsageError, match="latent"):
        shape_of({**json_of("llama-3.3-70b"), "kv_lora_rank": 512}, "x")
    with pytest.raises(UsageError, match="hidden_size"):
        shape_of({"num_attention_heads": 4}, "x")
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(UsageError, match="not JSON"):
        load_shape(str(tmp_path))
