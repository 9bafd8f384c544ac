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
from typing import TypeVar

from harness_schemas.errors import UsageError

VARIANTS = ("short", "2k", "4k")
# Below 2,048 and 4,096 by enough for 64 new tokens and for a tokenizer 4 % worse than estimated.
MAX_TOKENS = {"2k": 1900, "4k": 3900}

_OPENING = "Read the following notes, then answer the question at the end.\n\n"
_PIECE = re.compile(r"[A-Za-z]+|\d+|[^\sA-Za-z\d]|\n")
_LETTERS_PER_TOKEN = 7

T = TypeVar("T")


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

    def note(self) -> str:
        return f"{self.title}. {self.text}\n\n"


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
    shelves = _shelves(load_passages())
    return [_compose(question, variant, shelves) for question in questions]


def load_passages() -> list[Passage]:
    """Return every paragraph of the notes, in the order of the file."""
    return [Passage(**row) for row in _rows("passages.jsonl")]


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens a Llama-like BPE tokenizer of 32k entries makes of English text.

    Rule: a word of n letters is ceil(n / 7) tokens, a number of n digits n + 1 (such tokenizers
    split digits and put a space before them), every other visible sign and every line break 1.
    """
    return sum(map(_piece_tokens, _PIECE.findall(text)))


def _piece_tokens(piece: str) -> int:
    if piece.isalpha():
        return -(-len(piece) // _LETTERS_PER_TOKEN)
    return len(piece) + 1 if piece.isdigit() else 1


def _compose(
    question: ShippedPrompt, variant: str, shelves: dict[str, list[Passage]]
) -> ShippedPrompt:
    """Put as many notes before a question as fit below the variant's limit, its own field first."""
    ending = f"Question: {question.prompt}\nAnswer:"
    stem = question.id.removesuffix(question.variant)
    left = MAX_TOKENS[variant] - estimate_tokens(_OPENING + ending)
    notes = []
    for passage in _reading_order(stem, question.topic, shelves):
        cost = estimate_tokens(passage.note())
        if cost <= left:
            notes.append(passage.note())
            left -= cost
    text = _OPENING + "".join(notes) + ending
    return ShippedPrompt(stem + variant, variant, question.topic, text)


def _reading_order(stem: str, topic: str, shelves: dict[str, list[Passage]]) -> Iterator[Passage]:
    """Yield all passages: the topic's own first, then one of each other topic in turn.

    Every question starts elsewhere, so that no two prompts share a long prefix.
    """
    turn = int(stem.rstrip("-").rpartition("-")[2])
    yield from _rotated(shelves[topic], 4 * turn)
    topics = list(shelves)
    others = _rotated(topics, topics.index(topic) + 1)[:-1]
    columns = zip(*(_rotated(shelves[name], 4 * turn) for name in others), strict=True)
    for column in columns:
        yield from column


def _rotated(items: list[T], by: int) -> list[T]:
    by %= len(items)
    return items[by:] + items[:by]


def _shelves(passages: list[Passage]) -> dict[str, list[Passage]]:
    shelves: dict[str, list[Passage]] = {}
    for passage in passages:
        shelves.setdefault(passage.topic, []).append(passage)
    return shelves


def _rows(name: str) -> Iterator[dict[str, str]]:
    data = files("harness_runners.prompts_data").joinpath(name).read_text(encoding="ascii")
    yield from map(json.loads, data.splitlines())
