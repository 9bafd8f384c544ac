"""Chrome-trace text to whole events, in bounded memory: blocks, header, pieces, trailer.

A trace of 5 GB is cut at byte level into pieces of whole events, each small enough for the
processor's cache, and only those are decoded. A piece ends where a decoder accepts it: a cut
inside a string or inside a nested object leaves unbalanced text, which no JSON decoder takes.
Damage costs the events it touches and no others.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import msgspec

from harness_collectors.reading import gunzip

E = TypeVar("E")

BLOCK_BYTES: Final = 1 << 18
"""What is decoded at once: it and its events fit the processor's cache."""
MAX_HEADER_BYTES: Final = 32 << 20
"""Largest text before or after the events that is kept."""
TAIL_BYTES: Final = 1 << 16
MAX_EVENT_BYTES: Final = 16 << 20
PATIENCE_BYTES: Final = 1 << 20
"""An event longer than this that holds the beginning of another one has lost its own end."""

_OPENING = re.compile(rb'"traceEvents"\s*:\s*\[')
_BOUNDARY = re.compile(rb"\}\s*,\s*(?=\{)")
_CLOSING = re.compile(rb"\}\s*,?\s*\](?=\s*(?:[,}]|\Z))")
_EMPTY = re.compile(rb"[\s,]*\]")
_AFTER_CLOSING = re.compile(rb'\s*(?:,\s*"|\}|\Z)')
_RESTART = re.compile(rb'\}\s*,\s*(?=\{\s*"(?:ph"|name"\s*:\s*"[^"\\]*"\s*,\s*"ph"))')
"""How every version of Kineto begins an event; objects inside events do not begin so."""
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]"]', re.DOTALL)
_NOT_A_NUMBER = re.compile(rb"(:\s*)[+-]?(?:nan|inf(?:inity)?)(?=\s*[,}\]])", re.IGNORECASE)
_ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}|(.?))', re.DOTALL)
_HALF = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Escapes; a group where it is half a character."""
_CONTROL = re.compile(rb"[\x00-\x1f]")
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BAD_TEXT = (ValueError, RecursionError)


@dataclass
class Health:
    """What reading met: decoded bytes, events that could not be read, and why it ended early."""

    bytes: int = 0
    unreadable: int = 0
    cut: str = ""


@dataclass(frozen=True)
class Piece(Generic[E]):
    """Decoded events and the JSON list they came from, element by element the same."""

    events: list[E]
    text: bytes


@dataclass(frozen=True)
class Split(Generic[E]):
    """What the front of a buffer gave: pieces, bytes used up, whether the list of events ended."""

    pieces: tuple[Piece[E], ...] = ()
    used: int = 0
    ended: bool = False


def read_blocks(
    path: Path, health: Health, progress: Callable[[int], None] = lambda _: None
) -> Generator[bytes, None, None]:
    """The file's bytes in blocks, gunzipped where it is gzip, as UTF-8 where it is UTF-16.

    A torn or damaged gzip ends early and says so in `health`. `progress` hears of stored bytes.

    Raises:
        OSError: it cannot be read.
    """
    blocks = _stored_blocks(path, health, progress)
    first = next(blocks, b"")
    if first.startswith(_UTF16):
        recode = codecs.getincrementaldecoder("utf-16")("replace").decode
        yield recode(first).encode()
        for block in blocks:
            yield recode(block).encode()
        return
    if first:
        yield first
    yield from blocks


def _stored_blocks(
    path: Path, health: Health, progress: Callable[[int], None]
) -> Generator[bytes, None, None]:
    with path.open("rb") as stream:
        magic = stream.read(len(gunzip.MAGIC))
        stream.seek(0)
        if magic != gunzip.MAGIC:
            while block := stream.read(BLOCK_BYTES):
                health.bytes += len(block)
                progress(len(block))
                yield block
            return
        place = 0
        for inflated in gunzip.inflate(stream, health):
            health.bytes += len(inflated)
            progress(stream.tell() - place)
            place = stream.tell()
            for start in range(0, len(inflated), BLOCK_BYTES):
                yield inflated[start : start + BLOCK_BYTES]


def tail(path: Path) -> bytes:
    """The end of a file as it is stored; nothing where it is gzip.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        if stream.read(len(gunzip.MAGIC)) == gunzip.MAGIC:
            return b""
        stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return stream.read()


class Splitter(Generic[E]):
    """Iterates over the pieces of a trace; `metadata` is everything outside `traceEvents`.

    `decode` turns the text of a JSON list of events into events and `mend_event` one event that
    it refuses (None: hopeless). Both raise ValueError or RecursionError on malformed text.
    """

    def __init__(
        self,
        blocks: Iterator[bytes],
        health: Health,
        decode: Callable[[bytes], list[E]],
        mend_event: Callable[[bytes], E | None],
    ) -> None:
        self.metadata: dict[str, Any] = {}
        self._blocks = blocks
        self._health = health
        self._decode = decode
        self._mend_event = mend_event
        self._bare_list = False

    def __iter__(self) -> Iterator[Piece[E]]:
        buffer = self._read_header()
        if buffer is None:
            return
        ended = False
        wanted = 0
        while not ended:
            if len(buffer) >= wanted:
                split = self._split(buffer, final=False)
                yield from split.pieces
                buffer, ended = buffer[split.used :], split.ended
                # No progress: look again when there is twice as much, or this would be quadratic.
                wanted = 0 if split.used else 2 * len(buffer)
            if not ended:
                block = next(self._blocks, b"") if len(buffer) <= MAX_EVENT_BYTES else b""
                if not block:
                    buffer, ended = yield from self._drain(buffer)
                    break
                buffer += block
        self._finish(buffer, ended)

    def _drain(self, buffer: bytes) -> Generator[Piece[E], None, tuple[bytes, bool]]:
        """What a buffer still holds when nothing will be added to it; the rest, and the state."""
        if len(buffer) > MAX_EVENT_BYTES:
            self._health.cut = f"an event is longer than {MAX_EVENT_BYTES >> 20} MiB"
        while True:
            split = self._split(buffer, final=True)
            yield from split.pieces
            buffer = buffer[split.used :]
            if split.ended or not split.used:
                return buffer, split.ended

    # -- around the events ------------------------------------------------------------------

    def _read_header(self) -> bytes | None:
        """Read up to the first event; returns what was read beyond, None where there is none."""
        buffer = bytearray()
        for block in self._blocks:
            buffer += block
            start = buffer[:16].removeprefix(b"\xef\xbb\xbf").lstrip()
            if start.startswith(b"["):
                self._bare_list = True
                return bytes(buffer[buffer.index(b"[") + 1 :])
            if start and not start.startswith(b"{"):
                self._health.cut = "it does not hold a JSON object"
                return None
            rest = self._locate_events(bytes(buffer)) if b'"traceEvents"' in buffer else None
            if rest is not None:
                return rest
            if len(buffer) > MAX_HEADER_BYTES:
                self._health.cut = f"no events in the first {MAX_HEADER_BYTES >> 20} MiB"
                return None
        self.metadata = salvage(bytes(buffer))
        self._health.cut = self._health.cut or "it ends before the first event"
        return None

    def _locate_events(self, buffer: bytes) -> bytes | None:
        text = buffer.removeprefix(b"\xef\xbb\xbf")
        for opening in _OPENING.finditer(text):
            header = _object(text[: opening.start()] + b'"traceEvents":[]}')
            if header is not None:  # otherwise the words stood inside a string
                self.metadata = header
                break
        else:
            found = _OPENING.search(text)
            if found is None:
                return None
            opening = found
            self.metadata = salvage(text[: opening.start()])
        self.metadata.pop("traceEvents", None)
        return text[opening.end() :]

    def _finish(self, rest: bytes, ended: bool) -> None:
        """Read what follows the events, or note that the text was cut among them."""
        health = self._health
        if not ended:
            health.cut = health.cut or "the text ends among the events"
            return
        trailer = bytearray(rest)
        for block in self._blocks:
            trailer += block
            if len(trailer) > MAX_HEADER_BYTES:
                health.cut = (
                    health.cut or f"more than {MAX_HEADER_BYTES >> 20} MiB follow the events"
                )
                break
        text = bytes(trailer).strip()
        if self._bare_list:
            health.unreadable += bool(text)
            return
        body = text[1:] if text.startswith(b",") else text
        found = _object(b"{" + body)
        if found is None:
            found = salvage(body)
            if body.endswith(b"}"):
                health.unreadable += 1
            else:
                health.cut = health.cut or "the text ends after the events"
        self.metadata.update(found)

    # -- the events -------------------------------------------------------------------------

    def _split(self, buffer: bytes, final: bool) -> Split[E]:
        boundary = _last_boundary(buffer)
        if boundary is not None:
            piece = self._try(_listed(buffer, boundary.start() + 1))
            if piece is not None:
                return Split((piece,), boundary.end())
        closing = _CLOSING.search(buffer)
        if closing is not None:
            piece = self._try(_listed(buffer, closing.start() + 1))
            if piece is not None:
                return Split((piece,), closing.end(), ended=True)
        empty = _EMPTY.match(buffer)
        if empty is not None:
            return Split((), empty.end(), ended=True)
        if boundary is None and closing is None and not final:
            return Split()
        return self._scan(buffer, final)

    def _try(self, listed: bytes) -> Piece[E] | None:
        """The events of a JSON list, mended where that helps; None where it is no such list."""
        piece = self._attempt(listed)
        if piece is None:
            mended = mend(listed)
            piece = self._attempt(mended) if mended != listed else None
        return piece

    def _attempt(self, listed: bytes) -> Piece[E] | None:
        try:
            return Piece(self._decode(listed), listed)
        except msgspec.ValidationError:
            pass  # well-formed up to an event with a surprising type
        except _BAD_TEXT:
            return None
        try:
            return self._one_by_one(msgspec.json.decode(listed, type=list[msgspec.Raw]))
        except _BAD_TEXT:
            return None

    def _one_by_one(self, texts: list[Any]) -> Piece[E]:
        events: list[E] = []
        kept: list[bytes] = []
        for raw in texts:
            found = self._event(bytes(raw))
            if found is None:
                self._health.unreadable += 1
            else:
                events.append(found[0])
                kept.append(found[1])
        return Piece(events, b"[" + b",".join(kept) + b"]")

    def _event(self, text: bytes) -> tuple[E, bytes] | None:
        """An event, and the text that it was read from: its own, or that one mended."""
        for attempt in (text, mend(text)):
            try:
                event = self._mend_event(attempt)
            except _BAD_TEXT:
                continue
            return (event, attempt) if event is not None else None
        return None

    def _scan(self, buffer: bytes, final: bool) -> Split[E]:
        """Follow the brackets, event by event; the way through damaged text."""
        pieces: list[Piece[E]] = []
        used = 0
        while True:
            spans, used, ended, open_at = _bracket_spans(buffer, used)
            texts = [part for start, end in spans for part in self._parts(buffer[start:end])]
            if texts:
                pieces.append(self._one_by_one(texts))
            if ended or open_at is None:
                return Split(tuple(pieces), used, ended)
            restart = _RESTART.search(buffer, open_at + 1)
            if restart is None or not (final or len(buffer) - open_at > PATIENCE_BYTES):
                return Split(tuple(pieces), used)
            self._health.unreadable += 1
            used = restart.end()

    def _parts(self, text: bytes) -> list[bytes]:
        """The event itself, or, where it swallowed others, each of them."""
        if _RESTART.search(text) is None or self._event(text) is not None:
            return [text]
        starts = [0, *(match.end() for match in _RESTART.finditer(text))]
        ends = [*(match.start() + 1 for match in _RESTART.finditer(text)), len(text)]
        return [text[start:end] for start, end in zip(starts, ends, strict=True)]


def _listed(buffer: bytes, end: int) -> bytes:
    """The buffer up to `end` as a JSON list; copied once, since all of a trace comes by here."""
    return b"".join((b"[", memoryview(buffer)[:end], b"]"))


def _last_boundary(buffer: bytes) -> re.Match[bytes] | None:
    """The last place where one object ends and another begins, searched from the end."""
    size = len(buffer)
    for window in (1 << 10, 1 << 13, 1 << 16, size):
        *_, last = [None, *_BOUNDARY.finditer(buffer, max(0, size - window))]
        if last is not None or window >= size:
            return last
    return None


def _bracket_spans(
    buffer: bytes, position: int
) -> tuple[list[tuple[int, int]], int, bool, int | None]:
    """Objects at the top level from `position` on.

    Returns their (start, end), the end of the last, whether the list closed, and where an
    unfinished object began (None: there is none).
    """
    spans: list[tuple[int, int]] = []
    depth = start = 0
    for token in _TOKEN.finditer(buffer, position):
        mark = buffer[token.start()]
        if mark in b"{[":
            if depth == 0:
                start = token.start()
            depth += 1
        elif mark == 0x22:
            if token.end() - token.start() == 1:
                return spans, position, False, start if depth else token.start()
        elif depth:
            depth -= 1
            if depth == 0:
                position = token.end()
                spans.append((start, position))
        elif mark == 0x5D and _AFTER_CLOSING.match(buffer, token.end()):
            return spans, token.end(), True, None
    return spans, position, False, start if depth else None


def mend(text: bytes) -> bytes:
    """Put right what writers of traces get wrong: nan and inf, raw control characters, stray
    backslashes, halves of characters, bytes that are no UTF-8."""
    text = _NOT_A_NUMBER.sub(rb"\1null", _CONTROL.sub(b" ", text))
    text = _ESCAPE.sub(lambda m: m[0] if m[1] is None else b"\\\\" + m[1], text)
    text = _HALF.sub(lambda m: m[0] if m[1] is None else b"\\ufffd", text)
    return text.decode("utf-8", "replace").encode()


def _object(text: bytes) -> dict[str, Any] | None:
    for attempt in (text, mend(text)):
        try:
            found = msgspec.json.decode(attempt)
        except _BAD_TEXT:
            continue
        return found if isinstance(found, dict) else None
    return None


_SALVAGED: Final = ("distributedInfo", "baseTimeNanoseconds", "displayTimeUnit", "host_name")


def salvage(text: bytes) -> dict[str, Any]:
    """The values that matter, out of a torn header or trailer."""
    found: dict[str, Any] = {}
    decoder = json.JSONDecoder()
    for key in _SALVAGED:
        match = re.search(rb'"%b"\s*:\s*' % key.encode(), text)
        if match is None:
            continue
        rest = text[match.end() : match.end() + (1 << 20)].decode("utf-8", "replace")
        try:
            value, end = decoder.raw_decode(rest)
        except _BAD_TEXT:
            continue
        if end < len(rest):  # a number at the very end may go on
            found[key] = value
    return found
