"""A block of a log as the distinct pieces of the lines that may say something.

Lines repeat each other. Calls of decode loops differ in opCount and buffer addresses only; what
ranks print while they start differs in who printed it (the piece up to `NCCL INFO `) and, of
transports and rings, in the channel's number. Most lines of a start say nothing that is kept:
their first bytes tell. Of the rest Arrow's dictionary encoding finds the distinct pieces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from harness_collectors.nccl_log.grammar.lines import MIDDLE_MARK
from harness_collectors.nccl_log.grammar.words import IDLE, ODD_IN_HEADS, STARTS
from harness_collectors.nccl_log.pages import places
from harness_collectors.nccl_log.pages.places import RING

if TYPE_CHECKING:
    import numpy as np

_POINTER: Final = rb"(?:0x[0-9a-f]{1,16}|\(nil\))"
_MIDDLE: Final = re.compile(
    rb" opCount [0-9a-f]{1,16} sendbuff " + _POINTER + rb" recvbuff " + _POINTER + rb""
    rb"(?: acc " + _POINTER + rb")?(?= count )"
)
_OP_COUNT: Final = b" opCount"
_TELLING: Final = (3, 4)
"""`pC` is rare."""
_HOLE: Final = b"\x7f"
"""What stands for zero bytes of the text itself: nothing that a line may hold."""

_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_FEW_HEADS: Final = 64
_IN_GRAPH: Final = places.key(b" :")
"""What stands behind the number of a graph's line, which has one digit or two."""


@dataclass(frozen=True)
class Block:
    """Lines without their ends and stamps: an element a line.

    A line that may say something is `pieces[texts[i]]`; where `heads[i]` is not -1 that is only
    what stands behind `NCCL INFO `, and, where `numbers[i]` is not -1, behind `Channel NN` (or
    `Ring NN`: RING more). `texts[i]` is -1 where the line says nothing. `times` are stamps in
    Unix ns, -1: none.
    """

    text: bytes
    begins: np.ndarray
    ends: np.ndarray
    pieces: list[bytes]
    heads: np.ndarray
    """int32: who printed it: a piece up to `NCCL INFO `, or, `len(pieces)` more, what of it is
    NCCL's own where something stands before that."""
    texts: np.ndarray
    numbers: np.ndarray
    several: np.ndarray
    """May hold several records, or pieces of them."""
    times: np.ndarray | None

    def __len__(self) -> int:
        return len(self.begins)

    def line(self, place: int) -> bytes:
        """A line as it was printed, but for its stamp, its end and a call's middle."""
        return self.text[self.begins[place] : self.ends[place]]

    def said(self, place: int) -> bytes:
        """What stands behind `NCCL INFO `, or the whole line."""
        number, text = int(self.numbers[place]), self.pieces[int(self.texts[place])]
        if number < 0:
            return text
        word, number = (b"Channel", number) if number < RING else (b"Ring", number - RING)
        return b"%s %02d%s" % (word, number, text)

    def time(self, place: int) -> int | None:
        """The stamp of a line."""
        if self.times is None or self.times[place] < 0:
            return None
        return int(self.times[place])


def encode(text: bytes, led: bool = False) -> Block:
    """Take lines apart, calls normalised, stamps of our own format taken off.

    `led`: each line has something of its own before NCCL's prefix, such as a time.
    """
    import numpy as np

    if b"\0" in text:  # as in files that several ranks have overwritten
        text = text.replace(b"\0", _HOLE)
    signs = np.frombuffer(text, np.uint8)
    has_calls = places.holds(text, _OP_COUNT, _TELLING)
    if has_calls:
        text = _MIDDLE.sub(MIDDLE_MARK, text)
        signs = np.frombuffer(text, np.uint8)
    starts = places.starts_of(signs)
    times = places.stamps_of(signs, starts)
    begins = places.begins_of(starts, times)
    ends = places.ends_of(text, signs, starts, begins)
    marks = places.marks_of(text, signs, begins, ends)
    behind, several, mute = marks.behind, marks.several, marks.mute
    if has_calls:
        torn = _torn_calls(text, signs, begins)
        several[torn], mute[torn] = True, False
    if mute.any() and b"RCCL version " in text:
        mute[:] = False
    is_looked_at = ~mute
    split = np.flatnonzero(behind >= 0)
    is_looked_at[split] = several[split] | _may_matter(text, behind[split])
    lines = np.flatnonzero(is_looked_at)
    own = begins[lines]
    if led:
        own = _own_prefixes(text, signs, begins[lines], behind, lines)
    pieces, codes, numbers = _pieces(text, signs, own, behind[lines], ends[lines])
    heads, texts, of_channels = (np.full(len(begins), -1, np.int32) for _ in range(3))
    is_led = own > begins[lines]
    heads[lines] = np.where(behind[lines] >= 0, codes[:, 1] + len(pieces) * is_led, -1)
    texts[lines], of_channels[lines] = codes[:, 3], numbers
    return Block(text, begins, ends, pieces, heads, texts, of_channels, several, times)


def _torn_calls(text: bytes, signs: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Lines in which an opCount is left: no buffers follow it."""
    import numpy as np

    at = places.find(text, signs, _OP_COUNT, _TELLING)
    at = at[at + len(_OP_COUNT) < len(signs)]
    at = at[signs[at + len(_OP_COUNT)] == ord(" ")]
    found: np.ndarray = np.searchsorted(begins, at, "right") - 1
    return found


def has_many_heads(block: Block) -> bool:
    """Whether nearly every line has a head of its own: something of its own stands before it."""
    import numpy as np

    heads = block.heads[block.heads >= 0]
    if len(heads) < _FEW_HEADS:
        return False
    return int(np.count_nonzero(np.bincount(heads))) > max(_FEW_HEADS, len(heads) // 4)


def _may_matter(text: bytes, behind: np.ndarray) -> np.ndarray:
    """Whether a text that begins there is of a kind of which some say something."""
    import numpy as np

    starts = places.keys(text, 4)[behind]
    first, second = starts & np.uint32(0xFFFF), starts >> np.uint32(16)
    is_digit = (starts & np.uint32(0xFF)) - 48 <= 9  # unsigned: other signs are above
    in_graph = (second == _IN_GRAPH) | (starts >> np.uint32(8) & np.uint32(0xFFFF) == _IN_GRAPH)
    matters: np.ndarray = (is_digit & ~in_graph) | (_pairs(0)[first] & _pairs(2)[second])
    for idle in IDLE:
        found = np.flatnonzero(starts == places.key(idle[:4]))
        found = found[behind[found] + len(idle) <= len(text)]
        ends = places.keys(text, 8)[behind[found] + len(idle) - 8]
        matters[found[ends == places.key(idle[-8:])]] = False
    return matters


@lru_cache(maxsize=2)
def _pairs(place: int) -> np.ndarray:
    """By the number of two bytes: whether some start that matters has them at this place."""
    import numpy as np

    found = np.zeros(1 << 16, bool)
    found[[places.key(start[place : place + 2]) for start in STARTS]] = True
    return found


def _own_prefixes(
    text: bytes, signs: np.ndarray, begins: np.ndarray, behind: np.ndarray, lines: np.ndarray
) -> np.ndarray:
    """Where NCCL's own prefix begins in these lines. Odd lines become whole in `behind`."""
    import numpy as np

    own = begins.copy()
    split = np.flatnonzero(behind[lines] >= 0)
    own[split] = places.own_prefixes(signs, begins[split], behind[lines[split]])
    offsets = np.append(np.stack((begins, own), axis=1).ravel(), len(signs)).astype(np.int32)
    digitless = np.frombuffer(text.translate(_DIGITS), np.uint8)
    pieces, codes = _dictionary(digitless, offsets, np.array((True, False)))
    odd = [code for code, piece in enumerate(pieces) if ODD_IN_HEADS.search(piece)]
    if odd:
        is_odd = np.isin(codes[:, 0], odd)
        behind[lines[is_odd]] = -1
        own[is_odd] = begins[is_odd]
    return own


def _pieces(
    text: bytes, signs: np.ndarray, own: np.ndarray, behind: np.ndarray, ends: np.ndarray
) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """Distinct pieces; of each line its (nothing, head, nothing, text); and channels' numbers."""
    import numpy as np

    numbers, texts = np.full(len(own), -1, np.int32), own.copy()
    split = np.flatnonzero(behind >= 0)
    numbers[split], texts[split] = places.numbers_of(text, behind[split])
    gaps = np.concatenate(([0], ends))
    middles = np.where(behind >= 0, behind, own)
    columns = np.stack((gaps[:-1], own, middles, texts), axis=1)
    offsets = np.append(columns.ravel(), gaps[-1]).astype(np.int32)
    pieces, codes = _dictionary(signs, offsets, np.array((False, True, False, True)))
    return pieces, codes, numbers


def _dictionary(
    signs: np.ndarray, offsets: np.ndarray, columns: np.ndarray
) -> tuple[list[bytes], np.ndarray]:
    """Distinct pieces, and which of them each is, in rows; `columns`: which of a row count."""
    import numpy as np
    import pyarrow as pa

    size = len(offsets) - 1
    if not size:
        return [], np.empty((0, len(columns)), np.int32)
    valid = np.packbits(np.tile(columns, size // len(columns)), bitorder="little")
    buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(signs)]
    encoded = pa.Array.from_buffers(pa.binary(), size, buffers).dictionary_encode()
    codes = np.frombuffer(encoded.indices.buffers()[1], np.int32, size)
    return encoded.dictionary.to_pylist(), codes.reshape(-1, len(columns))
