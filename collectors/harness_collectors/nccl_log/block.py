"""A block of a log as its distinct lines and their order: work is done once a distinct line.

Logs of decode loops repeat themselves but for opCount and buffer addresses. With these taken
out, a megabyte holds some dozens of distinct lines, which Arrow's dictionary encoding finds.
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


@dataclass(frozen=True)
class Block:
    """`lines[codes[i]]` is line i, without its end; `times[i]` its stamp in Unix ns, or -1."""

    lines: list[bytes]
    codes: np.ndarray
    times: np.ndarray | None

    def time(self, position: int) -> int | None:
        """The stamp of a line."""
        if self.times is None or self.times[position] < 0:
            return None
        return int(self.times[position])


def encode(text: bytes) -> Block:
    """Distinct lines of a block, calls normalised, stamps of our own format taken off."""
    import numpy as np
    import pyarrow as pa

    if b"\0" in text:  # as in files that several ranks have overwritten
        text = text.replace(b"\0", _HOLE)
    signs = np.frombuffer(_MIDDLE.sub(MIDDLE_MARK, text), np.uint8)
    starts = np.concatenate(([0], np.flatnonzero(signs == ord("\n")) + 1))
    starts = starts[starts < len(signs)]
    times = _stamps(signs, starts)
    if times is not None:
        signs, starts = _without_stamps(signs, starts, times >= 0)
    offsets = np.append(starts, len(signs)).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(signs)]
    encoded = pa.Array.from_buffers(pa.binary(), len(starts), buffers).dictionary_encode()
    lines = [line.rstrip(b"\r\n") for line in encoded.dictionary.to_pylist()]
    return Block(lines, encoded.indices.to_numpy(), times)


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


def _without_stamps(
    signs: np.ndarray, starts: np.ndarray, stamped: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The text without its stamps, and where its lines start then."""
    import numpy as np

    kept = np.ones(len(signs), dtype=bool)
    kept[starts[stamped][:, None] + np.arange(_STAMP_BYTES)] = False
    before = np.cumsum(stamped) - stamped
    return signs[kept], starts - before * _STAMP_BYTES
