"""The shipped prompts: complete, distinct, short enough for the models they are meant for."""

import hashlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from harness_runners import shipped
from harness_runners.prompts_data import build
from harness_runners.shipped import VARIANTS, estimate_tokens, load_passages, load_shipped
from harness_schemas.errors import UsageError


def notes_of(prompt):
    return prompt.prompt.split("\n\n")[1:-1]


def test_every_question_comes_in_every_variant():
    ids = {name: [p.id.removesuffix(f"-{name}") for p in load_shipped(name)] for name in VARIANTS}
    assert len(ids["short"]) == 36
    assert ids["short"] == ids["2k"] == ids["4k"]
    assert load_shipped(None) == [p for name in VARIANTS for p in load_shipped(name)]


def test_ids_and_prompts_are_unique_over_all_variants():
    prompts = load_shipped(None)
    assert len({p.id for p in prompts}) == len({p.prompt for p in prompts}) == 3 * 36
    assert all(p.id.endswith(f"-{p.variant}") and p.id.startswith(p.topic) for p in prompts)


def test_ids_and_order_are_stable():
    """Runs of different versions are compared by these ids: changing them breaks old databases."""
    ids = [p.id for p in load_shipped("short")]
    assert ids[:3] == ["geography-1-short", "earth-science-2-short", "astronomy-3-short"]
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    assert digest.startswith("4a74bbe75b07eda8")


def test_the_first_twelve_prompts_cover_every_topic():
    topics = Counter(p.topic for p in load_shipped("short")[:12])
    assert len(topics) == 12
    assert set(topics) == {p.topic for p in load_passages()}


def test_short_prompts_have_unequal_lengths():
    """Batches of equal prompts would hide padding and position mistakes."""
    lengths = [len(p.prompt.split()) for p in load_shipped("short")]
    assert all(10 <= n <= 60 for n in lengths)
    for first in range(0, 36, 4):
        assert len(set(lengths[first : first + 4])) >= 3


@pytest.mark.parametrize(("variant", "least"), [("2k", 1750), ("4k", 3750)])
def test_long_prompts_fill_the_context_and_leave_room(variant, least):
    for prompt in load_shipped(variant):
        assert least <= estimate_tokens(prompt.prompt) <= shipped.MAX_TOKENS[variant]


@pytest.mark.parametrize("variant", ["2k", "4k"])
def test_long_prompts_are_whole_distinct_notes_then_the_short_question(variant):
    library = {f"{p.title}. {p.text}": p.topic for p in load_passages()}
    for short, long in zip(load_shipped("short"), load_shipped(variant), strict=True):
        notes = notes_of(long)
        assert len(set(notes)) == len(notes)
        assert library[notes[0]] == long.topic == short.topic
        assert {library[note] for note in notes} > {long.topic}
        assert long.prompt.endswith(f"\n\nQuestion: {short.prompt}\nAnswer:")


def test_no_two_questions_share_a_long_prefix():
    """A cache of prefixes in the engine must not turn prefill into a look-up."""
    for variant in ("2k", "4k"):
        beginnings = {p.prompt[: len(shipped._OPENING) + 40] for p in load_shipped(variant)}
        assert len(beginnings) == 36


def test_selections_differ():
    for variant in ("2k", "4k"):
        assert len({frozenset(notes_of(p)) for p in load_shipped(variant)}) >= 30


def test_same_prompts_in_another_process():
    """Hash seeds differ between processes: an order that came from a set would show here."""
    code = (
        "import hashlib; from harness_runners.shipped import load_shipped as l;"
        "import sys; sys.stdout.write(hashlib.sha256(repr(l(None)).encode()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout == hashlib.sha256(repr(load_shipped(None)).encode()).hexdigest()


def test_unknown_variant_is_a_usage_error():
    with pytest.raises(UsageError, match="no variant '8k'"):
        load_shipped("8k")


def test_the_data_follow_their_rules():
    assert list(build.find_mistakes(load_shipped("short"), load_passages())) == []
    assert len(load_passages()) >= 120


def test_the_check_finds_mistakes():
    question, passage = load_shipped("short")[0], load_passages()[0]
    bad = replace(question, id="x-2k", topic="alchemy", prompt="Why?")
    found = list(build.find_mistakes([bad], [passage, replace(passage, text="Too short.")]))
    assert len(found) == 5
    assert found[0] == f"passage id twice: {passage.id}"


def test_build_writes_what_is_loaded(tmp_path):
    build.main([str(tmp_path / "all.jsonl")])
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [shipped.ShippedPrompt(**row) for row in rows] == load_shipped(None)


def test_the_token_rule_on_known_pieces():
    assert estimate_tokens("the sugar") == 2
    assert estimate_tokens("photosynthesis") == 3
    assert estimate_tokens("Mediterranean") == 4
    assert estimate_tokens("in 1869, on\n") == 1 + 5 + 1 + 1 + 1
    assert estimate_tokens("") == 0


def count_tokens(trained_on, counted):
    """Count tokens as Llama's tokenizers cut text: spaces kept in words, digits one by one."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Metaspace(),
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.Punctuation(),
        ]
    )
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=8000, show_progress=False)
    tokenizer.train_from_iterator(trained_on, trainer)
    return sum(len(encoding.ids) for encoding in tokenizer.encode_batch(counted))


def test_the_estimate_lies_between_a_tokenizer_that_knows_the_text_and_one_that_does_not():
    """A 32k vocabulary of general text knows more words than half the notes, not all of them."""
    texts = [p.text for p in load_passages()]
    estimate = sum(map(estimate_tokens, texts))
    best = count_tokens(texts, texts)
    halves = texts[::2], texts[1::2]
    worst = count_tokens(halves[0], halves[1]) + count_tokens(halves[1], halves[0])
    assert 1.15 <= estimate / best <= 1.45
    assert 0.80 <= estimate / worst <= 1.00
