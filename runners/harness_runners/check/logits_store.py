"""Tokens and logits of the correctness repeat, kept for the comparison with the reference.

`artifacts/correctness/<host>/prompts.jsonl`: a line a prompt {id, prompt, tokens, logits}, where
`logits` names a .npy file beside it: float32 [tokens, vocabulary], row i made token i.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import harness_probe as probe
from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir

NAME = "correctness"
INDEX = "prompts.jsonl"


@dataclass(frozen=True)
class Sample:
    """What the run made of one prompt. `logits`: float32 [len(tokens), vocabulary]."""

    id: str
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logits: np.ndarray


class LogitsStore:
    """Appends samples of this host."""

    def __init__(self, run: RunDir) -> None:
        self._folder = run.collector_dir(NAME, socket.gethostname())
        self._count = 0

    def add(self, sample: Sample) -> None:
        """Write one sample.

        Raises:
            HarnessError: the folder cannot be written.
        """
        name = f"{self._count:05d}.npy"
        self._count += 1
        line: dict[str, Any] = {"id": sample.id, "prompt": sample.prompt}
        line |= {"tokens": sample.tokens, "logits": name}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with probe.io("write", self._folder / name, sample.logits.nbytes):
                np.save(self._folder / name, sample.logits)
            with (self._folder / INDEX).open("a") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise HarnessError(
                f"cannot write {self._folder}: {error.strerror or error}",
                "free space or choose another place with --output",
            ) from None


def read_samples(run: RunDir) -> Iterator[Sample]:
    """The samples of all hosts, one after the other."""
    for index in sorted((run.artifacts / NAME).glob(f"*/{INDEX}")):
        for text in index.read_text().splitlines():
            line = json.loads(text)
            logits = np.load(index.with_name(line["logits"]))
            yield Sample(line["id"], tuple(line["prompt"]), tuple(line["tokens"]), logits)
