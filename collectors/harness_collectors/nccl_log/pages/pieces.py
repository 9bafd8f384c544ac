"""Logs divided so that several processes make pages of them, and pages on their way to one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from harness_collectors.nccl_log.grammar.texts import Texts
from harness_collectors.nccl_log.pages import places
from harness_collectors.nccl_log.pages.page import Page
from harness_collectors.nccl_log.pages.scan import Scanner
from harness_collectors.nccl_log.pages.stream import BLOCK_BYTES, Intake, span_bytes
from harness_collectors.reading.text_evidence import undocked
from harness_schemas.spi import Batch, Part

PIECE_BYTES: Final = 4 * BLOCK_BYTES
"""A multiple of a block's: spans drop the same lines as the whole."""
WORTH_PIECES: Final = 16 * PIECE_BYTES
"""Less text is read sooner than a process starts."""
_REPEATED: Final = re.compile(
    rb" \[repeated \d{1,9}x across cluster\](?: \(Ray [^\n\x1b]{0,300})?"
    rb"(?=(?:\x1b\[[0-9;]{0,16}m)?\r?(?:\n|$))"
)
"""What Ray puts behind a line that stands for the same of other processes."""
Leaf = Page | Intake
"""A page, or what reading a file (or a span of it) came to: behind its last page, or, of small
files, before."""


def divide(files: Iterable[Path]) -> list[Part]:
    """Small files together, large ones in spans of bytes, in the order of names."""
    ordered = sorted(files)
    sizes = [_size(path) for path in ordered]
    if sum(sizes) < WORTH_PIECES:
        return [Part(tuple(ordered))]
    parts: list[Part] = []
    together: list[Path] = []
    waiting = 0
    for path, size in zip(ordered, sizes, strict=True):
        if together and waiting + size > PIECE_BYTES:
            parts.append(Part(tuple(together)))
            together, waiting = [], 0
        if size > PIECE_BYTES and (whole := span_bytes(path)):
            parts += _spans(path, whole)
        else:
            together.append(path)
            waiting += size
    return [*parts, Part(tuple(together))] if together else parts


def _spans(path: Path, size: int) -> Iterator[Part]:
    for begin in range(0, size, PIECE_BYTES):
        end = min(begin + PIECE_BYTES, size)
        yield Part((path,), f"{begin}-{end}", end - begin)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_pages(
    files: Sequence[Path], step: str, texts: Texts, progress: Callable[[int], None]
) -> Iterator[Leaf]:
    """Pages of files, or (`step`) of a span of one. Never raises for what they hold."""
    scanner = Scanner(texts)
    begin, _, end = step.partition("-")
    for path in files:
        intake = Intake(path, (int(begin), int(end)) if step else None)
        told = 0
        for text in intake.blocks():
            yield from scanner.take(path, _bare(text), cut=intake.unterminated)
            progress(intake.stored_bytes - told)
            told = intake.stored_bytes
        yield intake
    yield from scanner.finish()


def _bare(text: bytes) -> bytes:
    """What programs printed, without what Docker and Ray add to each line."""
    text = undocked(text)
    is_repeated = places.holds(text, b"cluster]", (6, 7))
    return _REPEATED.sub(b"", text) if is_repeated else text


def packed(leaves: Iterable[Leaf]) -> Iterator[Batch]:
    """Leaves as batches, each named by its kind."""
    import pyarrow as pa

    encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
    for leaf in leaves:
        yield Batch(type(leaf).__name__, pa.table({"leaf": [encoder.encode(leaf)]}))


def unpacked(part: Part, batches: Iterable[Batch]) -> Iterator[Leaf]:
    """The leaves again; of a part whose reader failed, why its files were not read to the end."""
    decoders = {kind.__name__: _decoder(kind) for kind in (Page, Intake)}
    for batch in batches:
        if batch.table in decoders:
            yield decoders[batch.table].decode(batch.data["leaf"][0].as_buffer())
        else:
            for path in part.files:
                yield Intake(path, ended=str(batch.data["reason"][0]))


def _decoder(kind: type[Any]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind, dec_hook=_made)


def _plain(value: Any) -> Any:
    """What msgspec does not know, as what it knows."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tobytes()
    return str(value)


def _made(kind: type[Any], plain: Any) -> Any:
    """The same, backwards."""
    if kind is np.ndarray:
        return np.frombuffer(plain[1], plain[0])
    return kind(plain)
