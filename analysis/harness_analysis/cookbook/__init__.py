"""The cookbook: questions and their queries, one SQL file each, in folders by subject.

-- The question?
-- What to look for in the answer.
SELECT ...
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness_schemas.errors import UsageError, meant

HERE = Path(__file__).parent
AREAS = {
    "waiting": "Who waits for whom",
    "steps": "Where the time of steps goes",
    "communication": "Communication and the pipeline",
    "latency": "Latency and throughput",
    "run": "The run and what its numbers rest on",
}


@dataclass(frozen=True)
class Question:
    """A question, how to read its answer, and the query."""

    name: str
    area: str
    question: str
    reading: str
    sql: str


def load_questions() -> list[Question]:
    """Every question, by subject and name.

    Raises:
        ValueError: a file without its question (a defect of ours, caught by tests).
    """
    return [
        parse_question(path.stem, area, path.read_text())
        for area in AREAS
        for path in sorted((HERE / area).glob("*.sql"))
    ]


def parse_question(name: str, area: str, text: str) -> Question:
    """Read a question's file."""
    lines = text.splitlines()
    heads = [line[2:].strip() for line in lines if line.startswith("--")]
    sql = "\n".join(line for line in lines if not line.startswith("--")).strip()
    if len(heads) < 2 or not heads[0].endswith("?") or not sql:
        raise ValueError(f"{area}/{name}.sql lacks its question, its reading or its query")
    return Question(name, area, heads[0], " ".join(heads[1:]), sql)


def find_question(name: str) -> Question:
    """A question by its name.

    Raises:
        UsageError: there is none.
    """
    questions = {question.name: question for question in load_questions()}
    if name in questions:
        return questions[name]
    raise UsageError(
        f"no example {name!r}{meant(name, questions)}", "`harness query --list-examples` lists them"
    )
