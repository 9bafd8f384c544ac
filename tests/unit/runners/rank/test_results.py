from __future__ import annotations

import json
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.probe.spool import rows

import harness_probe as probe
from harness_runners.check.logits_store import LogitsStore, Sample, read_samples
from harness_runners.engines import BatchJob, UnitRecord
from harness_runners.prompts import Request
from harness_runners.rank import results
from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir

EOS = (7, 8)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 12))
def test_a_completion_ends_with_its_first_eos_or_with_the_steps_that_ran(tokens, ran):
    length = results.completion_length(tokens, EOS, ran)
    assert 1 <= length <= len(tokens[:ran])
    assert not set(tokens[: length - 1]) & set(EOS)
    assert length == len(tokens[:ran]) or tokens[length - 1] in EOS


@pytest.fixture
def recording(tmp_path):
    probe.stop()
    probe.start(tmp_path / "spans", 0, 1, 0)

    def written(kind):
        probe.flush()
        return rows(tmp_path / "spans", kind)

    yield written
    probe.stop()


JOB = BatchJob(4, 1, [Request("a", (1, 2, 3)), Request("b", (1,))])
# One micro-batch a row; row b's sequence ended at step 0 (length 1).
UNITS = [
    UnitRecord(11, 0, 0, 0, 1, 100),
    UnitRecord(12, 1, 0, 1, 1, 150),
    UnitRecord(13, 0, 1, 0, 1, 200),
    UnitRecord(14, 1, 1, 1, 1, 250),
]


def test_steps_count_what_was_computed_and_what_was_emitted(recording):
    results.record_steps(JOB, UNITS, lengths=[2, 1], emits=True)
    names = ("unit", "batch_size", "padded_batch", "prefill_tokens", "decode_tokens", "kv_tokens")
    assert [tuple(row[name] for name in names) for row in recording("step")] == [
        (11, 1, 1, 3, 0, 3),
        (12, 1, 1, 1, 0, 1),
        (13, 1, 1, 0, 1, 4),
        (14, 0, 1, 0, 0, 2),
    ]
    tokens = [(row["unit"], row["first_row"], row["n"]) for row in recording("tokens")]
    assert tokens == [(11, 0, [1]), (12, 1, [1]), (13, 0, [1]), (14, 1, [0])]


def test_only_one_rank_emits_tokens(recording):
    results.record_steps(JOB, UNITS, lengths=[2, 1], emits=False)
    assert recording("tokens") == []
    assert len(recording("step")) == 4


def test_a_request_ends_with_its_last_token_not_with_the_batch(recording):
    times = [results.token_times(UNITS, row, length) for row, length in enumerate([2, 1])]
    assert times == [(100, 200), (150, 150)]
    results.record_requests(JOB, [2, 1], times, arrival_ns=10, start_ns=20)
    first, second = recording("request")
    assert (first["id"], first["batch"], first["repeat"], first["prompt_tokens"]) == ("a", 4, 1, 3)
    assert (first["arrival_ns"], first["start_ns"]) == (10, 20)
    assert (first["first_token_ns"], first["end_ns"], first["output_tokens"]) == (100, 200, 2)
    assert (second["first_token_ns"], second["end_ns"], second["output_tokens"]) == (150, 150, 1)


def words(tokens, skip_special_tokens):
    return " ".join(f"w{token}" for token in tokens)


def test_completions_hold_tokens_up_to_the_end(tmp_path):
    file = tmp_path / "rank-00002.jsonl"
    completions = results.Completions(file, types.SimpleNamespace(decode=words))
    completions.add(JOB, [[5, 7, 7], [7, 7, 7]], [2, 1])
    completions.add(JOB, [[5, 6, 7], [1, 2, 3]], [3, 3])
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows[0] == {
        "id": "a",
        "batch": 4,
        "repeat": 1,
        "prompt_tokens": 3,
        "tokens": [5, 7],
        "text": "w5 w7",
    }
    assert [row["tokens"] for row in rows] == [[5, 7], [7], [5, 6, 7], [1, 2, 3]]


def test_a_full_disk_is_one_sentence():
    completions = results.Completions(
        __import__("pathlib").Path("/dev/full"), types.SimpleNamespace(decode=words)
    )
    with pytest.raises(HarnessError, match="cannot write /dev/full: No space left"):
        completions.add(JOB, [[5], [6]], [1, 1])


def test_logits_survive_their_files(tmp_path):
    run = RunDir(tmp_path)
    store = LogitsStore(run)
    logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    store.add(Sample("a", (1, 2), (3, 4, 0), logits))
    store.add(Sample("b", (1,), (3,), logits[:1]))
    first, second = read_samples(run)
    assert (first.id, first.prompt, first.tokens) == ("a", (1, 2), (3, 4, 0))
    assert np.array_equal(first.logits, logits)
    assert second.logits.shape == (1, 5)
