"""A block of a log as its distinct pieces and their order: work is done once a piece.

Lines repeat each other. Calls of decode loops differ in opCount and buffer addresses only; what
ranks print while they start differs in who printed it (the piece up to `NCCL INFO `) and, of
transports and rings, in the channel's number. A megabyte holds some hundreds of distinct pieces
besides these, which Arrow's dictionary encoding finds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

_POINTER: Final = rb"(?:0x[0-9a-f]{1,16}|\(nil\))"
_MIDDLE: Final = re.compile(
    rb" opCount [0-9a-f]{1,16} sendbuff " + _POINTER + rb" recvbuff " + _POINTER + rb""
    rb"(?: acc " + _POINTER + rb")?(?= count )"
)
MIDDLE_MARK: Final = b" \0"
"""What stands for opCount and the buffers of a call once they are taken out."""

_HOLE: Final = b"\x7f"
"""What stands for zero bytes of the text itself: nothing that a line may hold."""

_STAMP_BYTES: Final = len("[1700000000.123456] ")
_STAMP_DIGITS: Final = (*range(1, 11), *range(12, 18))
_STAMP_SIGNS: Final = ((0, "["), (11, "."), (18, "]"), (19, " "))
_NAME: Final = b"NCCL"
_LEVEL: Final = b" INFO "
_CHANNEL: Final = b"Channel "
_NUMBER_BYTES: Final = len("Channel 00")
MAX_SPLIT_BYTES: Final = 64 << 10
"""Longer lines lost their line ends: they stay whole."""


@dataclass(frozen=True)
class Block:
    """Lines without their ends and stamps: int32, an element a line.

    A line is `pieces[heads[i]]` (up to `NCCL INFO `), `Channel NN` where `numbers[i]` is NN and
    not -1, and `pieces[texts[i]]`. With `heads[i]` -1 it is `pieces[texts[i]]` alone: a call, or
    nothing of NCCL's, or nothing simple. `times` are stamps in Unix ns, -1: none.
    """

    pieces: list[bytes]
    heads: np.ndarray
    texts: np.ndarray
    numbers: np.ndarray
    times: np.ndarray | None

    def __len__(self) -> int:
        return len(self.texts)

    def line(self, place: int) -> bytes:
        """A line as it was printed, but for its stamp, its end and a call's middle."""
        head, text = int(self.heads[place]), self.pieces[int(self.texts[place])]
        if head < 0:
            return text
        return self.pieces[head] + self.text(place)

    def text(self, place: int) -> bytes:
        """What stands behind `NCCL INFO `."""
        return _joined(int(self.numbers[place]), self.pieces[self.texts[place]])

    def said(self, places: np.ndarray) -> tuple[list[bytes], list[int | None]]:
        """The texts and stamps of lines."""
        columns = (self.numbers[places].tolist(), self.texts[places].tolist())
        texts = [_joined(number, self.pieces[code]) for number, code in zip(*columns, strict=True)]
        if self.times is None:
            return texts, [None] * len(texts)
        return texts, [None if time < 0 else time for time in self.times[places].tolist()]

    def time(self, place: int) -> int | None:
        """The stamp of a line."""
        if self.times is None or self.times[place] < 0:
            return None
        return int(self.times[place])


def _joined(number: int, text: bytes) -> bytes:
    return text if number < 0 else b"%s%02d%s" % (_CHANNEL, number, text)


def encode(text: bytes) -> Block:
    """Distinct pieces of a block, calls normalised, stamps of our own format taken off."""
    import numpy as np

    if b"\0" in text:  # as in files that several ranks have overwritten
        text = text.replace(b"\0", _HOLE)
    if b" opCount " in text:
        text = _MIDDLE.sub(MIDDLE_MARK, text)
    signs = np.frombuffer(text, np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(signs == ord("\n")) + 1))
    starts = starts[starts < len(signs)]
    times = _stamps(signs, starts)
    is_stamped = np.zeros(len(starts), bool) if times is None else times >= 0
    begins = starts + _STAMP_BYTES * is_stamped
    behind = _behind_marks(text, signs, begins)
    numbers = _channels(signs, behind)
    # The pieces of a line: its stamp, what is before its text, `Channel NN`, and its text.
    is_split, is_numbered = behind >= 0, numbers >= 0
    sizes = 1 + is_stamped + is_split + is_numbered
    last = np.cumsum(sizes) - 1
    offsets = np.full(int(sizes.sum()) + 1, len(signs), np.int32)
    offsets[last] = begins
    offsets[last[is_split]] = behind[is_split] + _NUMBER_BYTES * is_numbered[is_split]
    heads = (last - is_numbered - is_split)[is_split]
    offsets[heads] = begins[is_split]
    offsets[last[is_numbered] - 1] = behind[is_numbered]
    offsets[(last - sizes + 1)[is_stamped]] = starts[is_stamped]
    unread = np.concatenate(((last - sizes + 1)[is_stamped], last[is_numbered] - 1))
    pieces, codes = _dictionary(signs, offsets, unread)
    head_codes = np.full(len(starts), -1, np.int32)
    head_codes[is_split] = codes[heads]
    return Block(pieces, head_codes, codes[last], numbers, times)


def _dictionary(
    signs: np.ndarray, offsets: np.ndarray, unread: np.ndarray
) -> tuple[list[bytes], np.ndarray]:
    """Distinct pieces, and which of them each is; those at `unread` do not count."""
    import numpy as np
    import pyarrow as pa

    size = len(offsets) - 1
    is_read = np.ones(size, bool)
    is_read[unread] = False
    valid = pa.py_buffer(np.packbits(is_read, bitorder="little")) if len(unread) else None
    buffers = [valid, pa.py_buffer(offsets), pa.py_buffer(signs)]
    encoded = pa.Array.from_buffers(pa.binary(), size, buffers).dictionary_encode()
    codes = np.frombuffer(encoded.indices.buffers()[1], np.int32, size)
    return [piece.rstrip(b"\r\n") for piece in encoded.dictionary.to_pylist()], codes


def _behind_marks(text: bytes, signs: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Where each line's text begins, behind the first `NCCL` if that goes on ` INFO `; else -1."""
    import numpy as np

    found = np.full(len(begins), -1, np.int64)
    at = np.flatnonzero(signs[: max(len(signs) - len(_NAME + _LEVEL) + 1, 0)] == _NAME[0])
    for place in range(1, len(_NAME)):
        at = at[signs[at + place] == _NAME[place]]
    owners = np.searchsorted(begins, at, "right") - 1
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    at, owners = at[first], owners[first]
    for place, sign in enumerate(_LEVEL, len(_NAME)):
        at, owners = (kept[signs[at + place] == sign] for kept in (at, owners))
    found[owners[owners >= 0]] = at[owners >= 0] + len(_NAME + _LEVEL)
    # Calls are taken as wholes; so is what colours or lost line ends make difficult.
    for sign in (0, 0x1B):
        if bytes((sign,)) in text:
            inside = np.flatnonzero(signs == sign)
            found[np.maximum(np.searchsorted(begins, inside, "right") - 1, 0)] = -1
    ends = np.append(begins[1:], len(signs))
    found[ends - begins > MAX_SPLIT_BYTES] = -1
    return found


def _channels(signs: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """The number in `Channel 07/...` and `Channel 07 : ...` at these places; -1: none such."""
    import numpy as np

    numbers = np.full(len(behind), -1, np.int32)
    lines = np.flatnonzero((behind >= 0) & (behind + _NUMBER_BYTES < len(signs)))
    for place, sign in enumerate(_CHANNEL):
        lines = lines[signs[behind[lines] + place] == sign]
    tens, ones, next_sign = (signs[behind[lines] + len(_CHANNEL) + place] for place in range(3))
    is_number = (tens - 48 <= 9) & (ones - 48 <= 9)  # unsigned: other signs are above
    is_number &= (next_sign == ord("/")) | (next_sign == ord(" "))
    values = (tens - 48).astype(np.int32) * 10 + (ones - 48)
    numbers[lines[is_number]] = values[is_number]
    return numbers


def _stamps(signs: np.ndarray, starts: np.ndarray) -> np.ndarray | None:
    """Stamps as the capture half asks for them (`[%s.%6f] `); None: no line has one."""
    import numpy as np

    at = np.flatnonzero(starts + _STAMP_BYTES <= len(signs))
    for place, sign in _STAMP_SIGNS:
        at = at[signs[starts[at] + place] == ord(sign)]
    digits = signs[starts[at][:, None] + np.array(_STAMP_DIGITS)] - np.uint8(ord("0"))
    sound = (digits <= 9).all(axis=1)
    if not sound.any():
        return None
    powers = 10 ** np.arange(len(_STAMP_DIGITS) - 1, -1, -1, dtype=np.int64)
    times = np.full(len(starts), -1, np.int64)
    times[at[sound]] = (digits[sound] @ powers) * 1_000
    return times
