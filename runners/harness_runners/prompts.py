"""Prompts: read, chosen, tokenised once, and cut into batches."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness_probe as probe
from harness_runners.files import cache
from harness_runners.plan import PromptPlan
from harness_schemas.errors import HarnessError, UsageError, said_by


@dataclass(frozen=True)
class Prompt:
    """A prompt as text."""

    id: str
    text: str


@dataclass(frozen=True)
class Request:
    """A prompt as tokens."""

    id: str
    tokens: tuple[int, ...]


class PromptErrors(UsageError):
    """Every bad line of a prompt file at once; `problems` holds one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def read_prompts(plan: PromptPlan) -> list[Prompt]:
    """The prompts that a run uses, in file order.

    Raises:
        PromptErrors: bad lines, each named by its number.
        UsageError: no such file, or no prompt is left.
    """
    if plan.source == "shipped":
        from harness_runners.shipped import load_shipped

        prompts = [Prompt(item.id, item.prompt) for item in load_shipped(plan.variant)]
    else:
        rows = _rows(Path(plan.source))
        prompts = [
            Prompt(str(row.get("id") or f"prompt-{number}"), row["prompt"])
            for number, row in rows
            if plan.variant is None or row.get("variant") in (None, plan.variant)
        ]
    if not prompts:
        raise UsageError(f"{plan.source} holds no prompt of the variant {plan.variant!r}")
    counts = Counter(prompt.id for prompt in prompts)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise UsageError(f"{plan.source}: several prompts have the id {twice[0]!r}")
    return prompts[: plan.limit]


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """(number from 1, row) of a JSONL or Parquet file."""
    parquet = path.suffix == ".parquet"
    rows, problems = [], []
    for number, row in _parquet_rows(path) if parquet else _json_rows(path):
        problem = _problem(row)
        if problem:
            problems.append(f"{path.name} {'row' if parquet else 'line'} {number}: {problem}")
        else:
            rows.append((number, row))
    if problems:
        raise PromptErrors(problems)
    return rows


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with probe.io("read", path) as file:
            rows = pyarrow.parquet.read_table(path).to_pylist()
            file.add(path.stat().st_size)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UsageError(f"{path} cannot be read: {said_by(error)}") from None
    yield from enumerate(rows, start=1)


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a JSONL file; in place of one that is no JSON, the error."""
    try:
        with probe.io("read", path) as file:
            text = path.read_text(encoding="utf-8")
            file.add(path.stat().st_size)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            yield number, error


def _problem(row: Any) -> str:
    """What is wrong with a row; empty: nothing."""
    if isinstance(row, ValueError):
        return f"not JSON ({row})"
    if not isinstance(row, dict):
        return "not an object"
    if not isinstance(row.get("prompt"), str) or not row["prompt"]:
        return "needs a text `prompt`"
    return ""


def token_file(cache_dir: Path, model_folder: Path, prompts: Sequence[Prompt]) -> Path:
    """Where the tokens of these prompts under this model's tokenizer are cached."""
    names = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    files = [model_folder / name for name in names]
    tokenizer = [(file.name, cache.file_key(file)) for file in files if file.exists()]
    key = cache.content_key(tokenizer, [(prompt.id, prompt.text) for prompt in prompts])
    return cache_dir / "tokens" / f"{key}.parquet"


def read_tokens(path: Path) -> list[Request]:
    """Requests from a cached Parquet file."""
    rows = [row for _, row in _parquet_rows(path)]
    return [Request(row["id"], tuple(row["tokens"])) for row in rows]


def write_tokens(path: Path, requests: Sequence[Request]) -> None:
    """Cache requests; the file appears whole or not at all.

    Raises:
        HarnessError: the cache cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.table(
        {
            "id": pa.array([request.id for request in requests], pa.string()),
            "tokens": pa.array([list(r.tokens) for r in requests], pa.list_(pa.int32())),
        }
    )
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with probe.io("write", path) as file:
            pyarrow.parquet.write_table(table, temporary)
            temporary.replace(path)
            file.add(path.stat().st_size)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise HarnessError(
            f"cannot write {path}: {error.strerror or error}",
            "free space, or name another cache folder in HARNESS_CACHE_DIR",
        ) from None


def too_long(requests: Sequence[Request], context: int | None, new_tokens: int) -> list[str]:
    """A sentence for every prompt that does not fit the model's context; None: any fits."""
    return [
        f"prompt {request.id!r} has {len(request.tokens)} tokens; with {new_tokens} new ones it "
        f"needs {len(request.tokens) + new_tokens} of the model's {context} positions"
        for request in requests
        if context is not None and len(request.tokens) + new_tokens > context
    ]


def batches(requests: Sequence[Request], size: int) -> Iterator[list[Request]]:
    """Consecutive batches of `size`; the last one may be smaller."""
    for first in range(0, len(requests), size):
        yield list(requests[first : first + size])
