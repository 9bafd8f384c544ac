"""Gzip files with and without the quicker inflater: the same text, the same words about damage."""

from __future__ import annotations

import io
import random
import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness_collectors.kineto.stream import Health
from harness_collectors.reading import gunzip

ENGINES = ["zlib", "isal"]


def _text(size: int) -> bytes:
    noise = random.Random(size)
    return b"".join(b'{"ts": %d},' % noise.randrange(10**9) for _ in range(size))


TEXT = _text(30_000)
PACKED = zlib.compress(TEXT, wbits=31)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(gunzip, "BLOCK_BYTES", 1 << 16)


def inflated(packed: bytes, engine: str) -> tuple[bytes, str]:
    health = Health()
    with pytest.MonkeyPatch.context() as patch:
        if engine == "zlib":
            patch.setitem(sys.modules, "isal", None)  # as if it were not installed
        else:
            pytest.importorskip("isal")
        assert gunzip._engine().__name__ == {"zlib": "zlib", "isal": "isal.isal_zlib"}[engine]
        found = b"".join(gunzip.inflate(io.BytesIO(packed), health))
    return found, health.cut


@pytest.mark.parametrize("engine", ENGINES)
def test_whole_files_members_and_padding(engine):
    assert inflated(PACKED, engine) == (TEXT, "")
    assert inflated(PACKED + PACKED, engine) == (TEXT * 2, "")
    assert inflated(PACKED + b"\0" * 100_000, engine) == (TEXT, "")
    assert inflated(PACKED + b"junk", engine) == (TEXT, "")


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=40, deadline=None)
@given(st.integers(3, len(PACKED) - 1))
def test_a_cut_file_gives_what_stands_before_the_cut(engine, size):
    found, cut = inflated(PACKED[:size], engine)
    assert cut == "the gzip stream ends early"
    assert TEXT.startswith(found)
    assert len(found) >= len(zlib.decompressobj(wbits=31).decompress(PACKED[: max(0, size - 64)]))


@settings(max_examples=60, deadline=None)
@given(st.integers(10, len(PACKED) - 9), st.integers(1, 255))
def test_both_engines_say_the_same_of_a_damaged_file(place, flip):
    damaged = bytearray(PACKED)
    damaged[place] ^= flip
    of_zlib, of_isal = (inflated(bytes(damaged), engine) for engine in ENGINES)
    assert of_zlib == of_isal
    assert of_zlib[1] or of_zlib[0] == TEXT  # the last byte may have bits that mean nothing


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wrong_checksum_is_damage(engine):
    found, cut = inflated(PACKED[:-8] + bytes([PACKED[-8] ^ 1]) + PACKED[-7:], engine)
    assert cut == "the gzip stream is damaged"
    assert TEXT.startswith(found) and len(found) > len(TEXT) - (1 << 16)
