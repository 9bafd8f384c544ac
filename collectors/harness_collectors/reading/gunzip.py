"""The content of a gzip file: whole, torn, damaged, or a bomb.

Uses `isal` where it is installed (the extra `fast`), which inflates three times as quickly.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, Protocol

MAGIC: Final = b"\x1f\x8b"
BLOCK_BYTES: Final = 1 << 20
MAX_INFLATION: Final = 400
"""Real traces and spools shrink 5 to 50 times; what shrinks more, beyond `BOMB_FLOOR_BYTES`, is a
bomb."""
BOMB_FLOOR_BYTES: Final = 256 << 20


ENDS_EARLY: Final = "the gzip stream ends early"


class Health(Protocol):
    """Is told why inflating ended early; `cut` stays as it was where it did not."""

    cut: str


class _Damaged(Exception):
    """The stream is damaged; what its last block held is not given yet."""


def inflate(stream: BinaryIO, health: Health) -> Iterator[bytes]:
    """Blocks of a gzip file that is read from its beginning.

    One that is torn or damaged ends early and says so in `health`. No thread of its own: handing
    the interpreter's lock over costs more than inflating.
    """
    given = 0
    try:
        for block in _members(stream, health, _engine()):
            yield block
            given += len(block)
    except _Damaged:
        # Once more and with care, for what stands between the last block and the damage.
        stream.seek(0)
        for block in _members(stream, health, zlib, careful=True):
            if len(block) > given:
                yield block[given:]
            given = max(0, given - len(block))


def _engine() -> Any:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


def _members(
    stream: BinaryIO, health: Health, engine: Any, careful: bool = False
) -> Iterator[bytes]:
    taken = given = 0
    state = engine.decompressobj(wbits=31)
    while compressed := stream.read(BLOCK_BYTES // 8):
        taken += len(compressed)
        while compressed:
            if state.eof:
                if not compressed.lstrip(b"\x00").startswith(MAGIC[:1]):
                    return  # padding after the last member
                state = engine.decompressobj(wbits=31)
            before = state.copy() if careful else None
            try:
                block = state.decompress(compressed, BLOCK_BYTES)
            except engine.error:
                if before is None:
                    raise _Damaged from None
                health.cut = "the gzip stream is damaged"
                yield from _crumbs(before, compressed)
                return
            compressed = state.unused_data if state.eof else state.unconsumed_tail
            given += len(block)
            if given > BOMB_FLOOR_BYTES and given > MAX_INFLATION * taken:
                health.cut = f"it inflates more than {MAX_INFLATION} times: taken for a gzip bomb"
                return
            if block:
                yield block
    while not state.eof and (block := state.decompress(b"", BLOCK_BYTES)):
        yield block  # that the limit of a block had held back
    if not state.eof:
        health.cut = ENDS_EARLY


def _crumbs(state: Any, compressed: bytes) -> Iterator[bytes]:
    """What can still be inflated before the damage: a call that fails gives nothing at all."""
    for place in range(0, len(compressed), 16):
        try:
            block = state.decompress(compressed[place : place + 16])
        except zlib.error:
            return
        if block:
            yield block
