"""The shipped prompts: general-knowledge questions, alone or at the end of long factual notes.

Data is kept once (`prompts_data/questions.jsonl`, `prompts_data/passages.jsonl`); the long variants
are composed when they are asked for: same files, same prompts, on every machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import zip_longest
from typing import TypeVar

from harness_schemas.errors import UsageError

VARIANTS = ("short", "2k", "4k")
# Room in 2,048 and 4,096 for 64 new tokens, with a tokenizer that is 4 % worse than estimated.
MAX_TOKENS = {"2k": 1900, "4k": 3900}

_OPENING = "Read the following notes, then answer the question at the end.\n\n"
_PIECE = re.compile(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]|\n")
_LETTERS_PER_TOKEN = 6
_LETTERS_PER_TOKEN_OF_NAMES = 4
_NOTES_PER_TURN = 4  # three questions a topic start four notes apart in its eleven


@dataclass(frozen=True, slots=True)
class ShippedPrompt:
    """One prompt of the shipped set; `id` is unique over all variants and ends in the variant."""

    id: str
    variant: str
    topic: str
    prompt: str


@dataclass(frozen=True, slots=True)
class Passage:
    """One factual paragraph of the notes that long prompts are composed of."""

    id: str
    topic: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class _Note:
    """A passage as it stands in a prompt, with its estimated length in tokens."""

    text: str
    tokens: int


T = TypeVar("T")
_Shelves = dict[str, list[_Note]]  # by topic, in the order of the file


def load_shipped(variant: str | None = "short") -> list[ShippedPrompt]:
    """Return the shipped prompts of one variant (None: of all), in a fixed order.

    Raises UsageError where the set has no such variant.
    """
    if variant is None:
        return [prompt for name in VARIANTS for prompt in load_shipped(name)]
    if variant not in VARIANTS:
        raise UsageError(
            f"the shipped prompts have no variant {variant!r}",
            f"take one of {', '.join(VARIANTS)}, or name a file of your own",
        )
    questions = [ShippedPrompt(**row) for row in _rows("questions.jsonl")]
    if variant == "short":
        return questions
    shelves = _read_shelves()
    return [_compose(question, variant, shelves) for question in questions]


def load_passages() -> list[Passage]:
    """Return every paragraph of the notes, in the order of the file."""
    return [Passage(**row) for row in _rows("passages.jsonl")]


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a Llama-like BPE tokenizer of 32k entries makes of English text.

    Rule: a word of n letters is ceil(n / 6) tokens, a capitalised one ceil(n / 4) since names are
    split more finely, a number of n digits n + 1 (such tokenizers split digits and put a space
    before them), every other visible sign and every line break 1. It is meant to err upward; a
    test holds it between a tokenizer trained on the text and one trained on other text.
    """
    return sum(map(_piece_tokens, _PIECE.findall(text)))


def _piece_tokens(piece: str) -> int:
    if piece.isalpha():
        letters = _LETTERS_PER_TOKEN_OF_NAMES if piece[0].isupper() else _LETTERS_PER_TOKEN
        return -(-len(piece) // letters)
    return len(piece) + 1 if piece.isdigit() else 1


def _compose(question: ShippedPrompt, variant: str, shelves: _Shelves) -> ShippedPrompt:
    """Put as many notes before a question as fit below the variant's limit, its own field first."""
    ending = f"Question: {question.prompt}\nAnswer:"
    stem = question.id.removesuffix(question.variant)
    left = MAX_TOKENS[variant] - estimate_tokens(_OPENING + ending)
    chosen = []
    for note in _reading_order(stem, question.topic, shelves):
        if note.tokens <= left:
            chosen.append(note.text)
            left -= note.tokens
    text = "".join([_OPENING, *chosen, ending])
    return ShippedPrompt(stem + variant, variant, question.topic, text)


def _reading_order(stem: str, topic: str, shelves: _Shelves) -> Iterator[_Note]:
    """Yield all notes: the topic's own first, then one of each other topic in turn.

    Every question starts elsewhere, so that no two prompts share a long prefix.
    """
    start = _NOTES_PER_TURN * int(stem.rstrip("-").rpartition("-")[2])
    yield from _rotated(shelves[topic], start)
    topics = list(shelves)
    others = _rotated(topics, topics.index(topic))[1:]
    for column in zip_longest(*(_rotated(shelves[name], start) for name in others)):
        yield from filter(None, column)


def _rotated(items: list[T], by: int) -> list[T]:
    by %= len(items)
    return items[by:] + items[:by]


def _read_shelves() -> _Shelves:
    shelves: _Shelves = {}
    for passage in load_passages():
        text = f"{passage.title}. {passage.text}\n\n"
        shelves.setdefault(passage.topic, []).append(_Note(text, estimate_tokens(text)))
    return shelves


def _rows(name: str) -> Iterator[dict[str, str]]:
    data = files("harness_runners.prompts_data").joinpath(name).read_text(encoding="ascii")
    yield from map(json.loads, data.splitlines())
