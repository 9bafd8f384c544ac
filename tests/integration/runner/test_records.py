"""What ranks write down while they generate: units, layers, communication, requests."""

from __future__ import annotations

import collections
import itertools
import json

import pytest
from integration.runner import jobs as runner_jobs
from integration.runner.jobs import job, make_model, make_plan, replaced
from unit.probe import spool

from harness_runners.capacity.shards import heads_held, read_bytes, weights_slice
from harness_runners.model.shape import load_shape
from harness_runners.plan import InjectPlan

pytestmark = pytest.mark.integration

KINDS = {1: "span", 2: "unit", 3: "collective", 4: "p2p", 5: "io"}
DELAY_NS = 15_000_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("records")
    llama = make_model(root / "models" / "llama", "tiny-llama")
    plans = {
        "2x2": make_plan(
            root / "2x2", llama, tp=2, layers=(1, 3), microbatches=2, warmup=1, new_tokens=12
        )
    }
    for every in ("step", "layer"):
        plan = make_plan(root / every, llama, tp=2, prompts=1, new_tokens=6)
        plans[every] = replaced(plan, inject=InjectPlan(1, DELAY_NS, every), check_prompts=0)
        plans[every].write()
    runner_jobs.run_jobs(root, [job(plan) for plan in plans.values()])
    return plans


class Rank:
    """A rank's spool with names instead of ids."""

    def __init__(self, plan, rank):
        found = spool.read(plan.run.spans, rank)
        self.meta = collections.defaultdict(list)
        for row in found.meta:
            self.meta[row["t"]].append(row)
        self.units = {row["id"]: row for row in self.meta["unit"]}
        self.groups = {row["id"]: row for row in self.meta["group"]}
        names = {row["id"]: row for row in self.meta["desc"]}
        self.records = collections.defaultdict(list)
        for record in found.records:
            record.name = names[record.head & 0xFFFFFFFF]["name"]
            record.layer = names[record.head & 0xFFFFFFFF].get("layer")
            record.unit = self.units.get(record.unit_id)
            record.peer = (record.group_peer & 0xFFFFFFFF) - 1
            record.group = self.groups.get(record.group_peer >> 32)
            self.records[KINDS[(record.head >> 40) & 0xFF]].append(record)


@pytest.fixture(scope="module")
def ranks(runs):
    return [Rank(runs["2x2"], rank) for rank in range(4)]


def test_units_never_overlap_and_leave_next_to_nothing_out(ranks):
    for rank in ranks:
        units = sorted(rank.records["unit"], key=lambda unit: unit.start_ns)
        gaps = [after.start_ns - before.end_ns for before, after in itertools.pairwise(units)]
        assert min(gaps) >= 0
        assert sum(gaps) < 0.02 * (units[-1].end_ns - units[0].start_ns)
        phases = [unit.unit["phase"] for unit in units if unit.unit["phase"] != "decode"]
        assert phases[:4] == ["startup", "preprocess", "load", "warmup"]
        assert phases[4:] == ["prefill", "prefill", "postprocess"] * 3 + ["postprocess"]


def test_every_step_of_every_micro_batch_is_a_unit_on_every_rank(ranks):
    expected = {
        (repeat, microbatch, step)
        for repeat in (-1, 0, 1)
        for microbatch in (0, 1)
        for step in range(12)
    }
    for rank in ranks:
        steps = [row for row in rank.meta["unit"] if row["phase"] in ("prefill", "decode")]
        keys = [(row["repeat"], row["microbatch"], row["step"]) for row in steps]
        assert len(keys) == len(set(keys))
        assert set(keys) == expected
        assert {row["warmup"] for row in steps if row["repeat"] == -1} == {True}
        assert {row["perturbed_by"] for row in steps if row["repeat"] == 1} == {"correctness"}
        assert {row["perturbed_by"] for row in steps if row["repeat"] < 1} == {None}


def test_every_layer_of_the_stage_is_a_span_of_every_step(ranks):
    for index, rank in enumerate(ranks):
        own = [0] if index < 2 else [1, 2, 3]
        counts = collections.Counter(
            (record.unit_id, record.layer)
            for record in rank.records["span"]
            if record.name == "layer"
        )
        assert {layer for _, layer in counts} == set(own)
        assert set(counts.values()) == {1}
        assert len(counts) == 72 * len(own)


def test_tensor_parallel_ranks_reduce_together(ranks):
    """Two all-reduces a layer, and the head's on the last stage; nothing extra on either rank."""
    for pair, layers in (((0, 1), 1), ((2, 3), 3)):
        sides = []
        for index in pair:
            reductions = [
                record
                for record in ranks[index].records["collective"]
                if record.name == "all_reduce" and record.group["name"].startswith("tp-")
            ]
            assert len(reductions) == 72 * (2 * layers + (pair[0] == 2))
            assert {tuple(record.group["ranks"]) for record in reductions} == {pair}
            sides.append(
                [(r.ordinal, r.bytes, r.unit["phase"], r.unit["step"]) for r in reductions]
            )
        assert sides[0] == sides[1]


def test_groups_have_the_same_identity_on_all_ranks(ranks):
    names = collections.defaultdict(set)
    for rank in ranks:
        for row in rank.meta["group"]:
            names[row["name"]].add((tuple(row["ranks"]), row["ordinal"]))
    assert {name: len(found) for name, found in names.items() if len(found) > 1} == {}
    identities = [found for group in names.values() for found in group]
    assert len(identities) == len(set(identities))
    assert names["pipe-1"] == {((1, 3), 0)}
    assert names["feedback-1"] == {((1, 3), 1)}


def test_point_to_point_calls_match_in_order_bytes_and_step(ranks):
    sent, received = {}, {}
    for index, rank in enumerate(ranks):
        for record in rank.records["p2p"]:
            unit = record.unit
            fact = (record.bytes, unit["repeat"], unit["microbatch"], unit["step"])
            if record.name == "send":
                sent[index, record.peer, record.ordinal] = fact
            else:
                received[record.peer, index, record.ordinal] = fact
    assert set(sent) == set(received)
    assert {key[:2] for key in sent} == {(0, 2), (2, 0), (1, 3), (3, 1)}
    for key, (size, repeat, microbatch, step) in sent.items():
        feeds_back = key[0] > key[1]
        # A token sampled in step k is what step k + 1 begins with.
        assert received[key] == (size, repeat, microbatch, step + feeds_back)
    # Micro-batches of one and two rows: 256 float32 a row and decode step, 8 bytes a token, and
    # 8 for the question whether all sequences have ended.
    activations = {fact[0] for key, fact in sent.items() if key[:2] == (0, 2) and fact[3] > 0}
    assert activations == {8, 1024, 2048}
    assert {fact[0] for key, fact in sent.items() if key[:2] == (2, 0)} == {8, 16}


def test_communication_lies_inside_units(ranks):
    for rank in ranks:
        for record in rank.records["collective"] + rank.records["p2p"]:
            assert record.unit is not None


def test_facts_of_every_rank(ranks):
    for index, rank in enumerate(ranks):
        facts = {key: value for row in rank.meta["fact"] for key, value in row.items()}
        assert (facts["stage"], facts["tp_rank"]) == divmod(index, 2)
        assert (facts["first_layer"], facts["last_layer"]) == ((0, 0) if index < 2 else (1, 3))
        assert facts["device"] == "cpu"
        assert facts["weights_bytes"] > 4e6
        assert facts["cpus"]
        other = "stage 1" if index < 2 else "stage 0"
        assert set(facts["skipped_tensors"]) == {other}


def test_what_a_rank_holds_and_does_is_what_was_planned(runs, ranks):
    plan = runs["2x2"]
    shape = load_shape(plan.model.folder)
    for index, rank in enumerate(ranks):
        facts = {key: value for row in rank.meta["fact"] for key, value in row.items()}
        stage, tp_rank = divmod(index, 2)
        piece = weights_slice(shape, 4.0, 2, tp_rank, plan.layers[stage], stage == 0, stage == 1)
        assert facts["weights_bytes"] == piece.bytes
        assert facts["step_weight_bytes"] == read_bytes(shape, 4.0, 2, tp_rank, 1, piece)
        assert facts["flops_per_token"] == 2 * piece.active
        heads = [heads_held(shape, 2, tp_rank, key_value) for key_value in (True, False)]
        per_head = plan.layers[stage] * shape.head_dim
        assert facts["kv_bytes_per_token"] == 2 * heads[0] * per_head * 4
        assert facts["attention_flops_per_kv_token"] == 4 * heads[1] * per_head


def test_requests_and_tokens_are_written_once_in_the_world(ranks):
    for index, rank in enumerate(ranks):
        assert len(rank.meta["step"]) == 72
        assert bool(rank.meta["tokens"]) == bool(rank.meta["request"]) == (index == 2)
    requests = ranks[2].meta["request"]
    assert [(row["id"], row["repeat"]) for row in requests] == [
        (f"p{number}", repeat) for repeat in (-1, 0, 1) for number in range(3)
    ]
    for row in requests:
        assert row["arrival_ns"] <= row["start_ns"] < row["first_token_ns"] < row["end_ns"]
        assert row["output_tokens"] == 12
    emitted = collections.Counter()
    for row in ranks[2].meta["tokens"]:
        emitted[ranks[2].units[row["unit"]]["repeat"]] += sum(row["n"])
    assert emitted == {-1: 36, 0: 36, 1: 36}


def test_file_reads_say_what_storage_gave(ranks):
    for rank in ranks:
        attrs = {row["id"]: row["attrs"] for row in rank.meta["attrs"]}
        weights = [
            attrs[record.extra]
            for record in rank.records["io"]
            if attrs[record.extra]["path"].endswith(".safetensors")
            and attrs[record.extra].get("part") != "header"
        ]
        assert weights
        for fact in weights:
            assert fact["storage_bytes"] is None or fact["storage_bytes"] >= 0


def test_telemetry_has_the_phases_and_the_requests(runs):
    names = collections.Counter()
    for line in (runs["2x2"].run.spans / "rank-00002.otel.jsonl").read_text().splitlines():
        for span in json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            names[span["name"]] += 1
    assert names["request"] == 9
    assert names["prefill"] == names["decode"] == 3
    assert names["rank 2"] == names["load"] == names["startup"] == 1


@pytest.mark.parametrize(("every", "count"), [("step", 1), ("layer", 4)])
def test_an_injected_delay_comes_back_as_the_peers_waiting(runs, every, count):
    """Rank 1 is late, so rank 0 enters the all-reduces before it, by the delay in all."""
    starts = []
    for rank in range(2):
        starts.append({})
        for record in Rank(runs[every], rank).records["collective"]:
            if record.name == "all_reduce" and record.unit["phase"] == "decode":
                starts[rank][record.ordinal] = (record.unit["step"], record.start_ns)
    waits = [collections.Counter(), collections.Counter()]
    for ordinal, (step, start) in starts[0].items():
        late = starts[1][ordinal][1] - start
        waits[late < 0][step] += abs(late)
    first, second = (sorted(waits[rank][step] for step in range(1, 6))[2] for rank in range(2))
    assert first > 0.9 * count * DELAY_NS
    assert second < first / 2
