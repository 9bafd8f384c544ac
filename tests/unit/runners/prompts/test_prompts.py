from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_runners import prompts
from harness_runners.plan import PromptPlan
from harness_runners.prompts import Prompt, PromptErrors, Request, read_prompts
from harness_schemas.errors import HarnessError, UsageError


def written(folder, lines):
    file = folder / "prompts.jsonl"
    file.write_text(
        "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    )
    return str(file)


def test_variant_limit_and_ids(tmp_path):
    source = written(
        tmp_path,
        [
            {"id": "a", "prompt": "one", "variant": "short"},
            "\n",
            {"id": "b", "prompt": "two", "variant": "2k"},
            {"prompt": "three"},
            {"id": "d", "prompt": "four", "variant": "short"},
        ],
    )
    chosen = read_prompts(PromptPlan(source, "short"))
    assert chosen == [Prompt("a", "one"), Prompt("prompt-4", "three"), Prompt("d", "four")]
    assert len(read_prompts(PromptPlan(source, None, limit=2))) == 2


def test_every_bad_line_is_named_by_its_number(tmp_path):
    source = written(tmp_path, [{"prompt": "ok"}, "{\n", '"[]"\n', {"prompt": ""}, {"text": "no"}])
    with pytest.raises(PromptErrors) as caught:
        read_prompts(PromptPlan(source, None))
    numbers = [problem.split(":")[0] for problem in caught.value.problems]
    assert numbers == [f"prompts.jsonl line {number}" for number in (2, 3, 4, 5)]


def test_parquet_prompts(tmp_path):
    file = tmp_path / "p.parquet"
    pyarrow.parquet.write_table(pa.table({"id": ["x"], "prompt": ["why"]}), file)
    assert read_prompts(PromptPlan(str(file), None)) == [Prompt("x", "why")]


@pytest.mark.parametrize(
    ("name", "content"), [("p.parquet", b"no parquet"), ("p.jsonl", b"\xff\xfe"), ("q.jsonl", None)]
)
def test_files_that_cannot_be_read(tmp_path, name, content):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=name):
        read_prompts(PromptPlan(str(file), None))


def test_a_parquet_row_without_a_prompt_is_named(tmp_path):
    file = tmp_path / "p.parquet"
    pyarrow.parquet.write_table(pa.table({"prompt": ["why", None]}), file)
    with pytest.raises(PromptErrors, match=r"p\.parquet row 2: needs a text `prompt`"):
        read_prompts(PromptPlan(str(file), None))


def test_no_prompt_left_and_repeated_ids(tmp_path):
    with pytest.raises(UsageError, match="no prompt of the variant '4k'"):
        read_prompts(PromptPlan(written(tmp_path, [{"prompt": "a", "variant": "2k"}]), "4k"))
    twice = written(tmp_path, [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}])
    with pytest.raises(UsageError, match="several prompts have the id 'a'"):
        read_prompts(PromptPlan(twice, None))


def test_the_shipped_prompts():
    assert len(read_prompts(PromptPlan("shipped", "short"))) >= 20
    with pytest.raises(UsageError, match="no variant"):
        read_prompts(PromptPlan("shipped", "9k"))


def test_tokens_survive_the_cache(tmp_path):
    requests = [Request("a", (1, 2, 3)), Request("b", (4,))]
    file = tmp_path / "tokens" / "k.parquet"
    prompts.write_tokens(file, requests)
    assert prompts.read_tokens(file) == requests
    assert [path.name for path in file.parent.iterdir()] == ["k.parquet"]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "tokens").write_text("a file where the folder should be")
    with pytest.raises(HarnessError, match=r"cannot write .*k\.parquet"):
        prompts.write_tokens(tmp_path / "tokens" / "k.parquet", [Request("a", (1,))])


def test_the_cache_knows_tokenizer_and_prompts(tmp_path):
    texts = [Prompt("a", "x")]
    (tmp_path / "tokenizer.json").write_text("1")
    first = prompts.token_file(tmp_path, tmp_path, texts)
    assert prompts.token_file(tmp_path, tmp_path, texts) == first
    assert prompts.token_file(tmp_path, tmp_path, [Prompt("a", "y")]) != first
    (tmp_path / "tokenizer.json").write_text("2")
    assert prompts.token_file(tmp_path, tmp_path, texts) != first


def test_prompts_that_do_not_fit_are_named_with_the_numbers():
    requests = [Request("fits", (0,) * 90), Request("long", (0,) * 91)]
    assert prompts.too_long(requests, context=100, new_tokens=10) == [
        "prompt 'long' has 91 tokens; with 10 new ones it needs 101 of the model's 100 positions"
    ]


@given(st.integers(0, 50), st.integers(1, 9))
def test_batches_hold_everything_in_order(count, size):
    requests = [Request(str(index), (index,)) for index in range(count)]
    cut = list(prompts.batches(requests, size))
    assert [request for batch in cut for request in batch] == requests
    assert all(len(batch) == size for batch in cut[:-1])
