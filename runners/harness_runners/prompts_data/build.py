"""Check the data of the shipped prompts, or write the composed set to a file of its own.

    python -m harness_runners.prompts_data.build --check
    python -m harness_runners.prompts_data.build all-prompts.jsonl

Nothing needs to be built before a run: harness_runners.shipped composes the prompts when asked.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from harness_runners.shipped import Passage, ShippedPrompt, load_passages, load_shipped

PASSAGE_WORDS = range(60, 121)
QUESTION_WORDS = range(10, 61)


def find_mistakes(questions: Sequence[ShippedPrompt], passages: Sequence[Passage]) -> Iterator[str]:
    """Yield one line for every rule of the data that an entry breaks."""
    texts = [question.prompt for question in questions] + [passage.text for passage in passages]
    for kind, values in (
        ("question id", [question.id for question in questions]),
        ("passage id", [passage.id for passage in passages]),
        ("text", texts),
    ):
        yield from (f"{kind} twice: {v}" for v, count in Counter(values).items() if count > 1)
    topics = {passage.topic for passage in passages}
    for question in questions:
        if question.topic not in topics:
            yield f"{question.id}: no passages on {question.topic}"
        if question.variant != "short" or not question.id.endswith("-short"):
            yield f"{question.id}: only short prompts are kept, the others are composed"
        if len(question.prompt.split()) not in QUESTION_WORDS:
            yield f"{question.id}: {len(question.prompt.split())} words"
    for passage in passages:
        if len(passage.text.split()) not in PASSAGE_WORDS:
            yield f"{passage.id}: {len(passage.text.split())} words"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; SystemExit with one line a mistake where the data break a rule."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="only check the data")
    what.add_argument("output", nargs="?", type=Path, help="JSONL file to write all variants to")
    output: Path | None = parser.parse_args(argv).output
    mistakes = list(find_mistakes(load_shipped("short"), load_passages()))
    if mistakes:
        raise SystemExit("\n".join(mistakes))
    if output is not None:
        rows = (json.dumps(asdict(prompt)) + "\n" for prompt in load_shipped(None))
        output.write_text("".join(rows), encoding="ascii")


if __name__ == "__main__":
    main()
