"""Where things stand in a block of a log: lines, stamps, NCCL's mark, channels' numbers.

All of a block at once, on its bytes: a line that says nothing costs some ten nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

_STAMP_BYTES: Final = len("[1700000000.123456] ")
_STAMP_SIGNS: Final = ((0, "["), (11, "."), (18, "]"), (19, " "))
_NAME: Final = b"NCCL"
_INFO: Final = b" INFO "
_VERSION: Final = b" version"
_MUTE: Final = (b" TRACE ", b" CALL ")
"""What no level of ours follows: such a line says nothing, whatever its text."""
MARK_BYTES: Final = len(_NAME + _INFO)
_KEY_BYTES: Final = 8
_STRETCH: Final = 1 << 18
MAX_SPLIT_BYTES: Final = 64 << 10
"""Longer lines lost their line ends: they stay whole."""

NUMBER_BYTES: Final = len("Channel 00")
RING: Final = 100
"""Is added to the number of a `Ring NN`."""
RING_BYTES: Final = len("Ring 00")


@dataclass(frozen=True)
class Marks:
    """Which lines NCCL printed: an element a line."""

    behind: np.ndarray
    """Where the text begins behind the first `NCCL`, if that goes on ` INFO `; else -1: whole."""
    several: np.ndarray
    """Another `NCCL ` stands in the line."""
    mute: np.ndarray
    """Its only mark is of a level that says nothing."""


def keys(text: bytes, width: int) -> np.ndarray:
    """The `width` (4 or 8) bytes from each place on as one number, little endian; a view."""
    import numpy as np

    size = max(len(text) - width + 1, 0)
    return np.ndarray((size,), f"<u{width}", text if size else b"", 0, (1,))


def key(word: bytes) -> int:
    """The number that `keys` has where the word stands."""
    return int.from_bytes(word, "little")


def find(text: bytes, signs: np.ndarray, word: bytes, telling: tuple[int, int]) -> np.ndarray:
    """Where a word of 4 or 8 bytes stands. Its signs at `telling` seldom stand apart so.

    A stretch at a time, so that what is made in between stays in the processor's cache.
    """
    import numpy as np

    size = max(len(signs) - len(word) + 1, 0)
    one, two = telling
    found = []
    for start in range(0, size, _STRETCH):
        end = min(start + _STRETCH, size)
        is_there = signs[start + one : end + one] == word[one]
        is_there &= signs[start + two : end + two] == word[two]
        found.append(np.flatnonzero(is_there) + start)
    at = np.concatenate(found) if found else np.zeros(0, np.int64)
    words: np.ndarray = at[keys(text, len(word))[at] == key(word)]
    return words


def holds(text: bytes, word: bytes, telling: tuple[int, int]) -> bool:
    """Whether a word of 8 bytes stands anywhere; `telling` as in `find`, which is 1.1 to 1.3 times
    as quick as `in` where it does not."""
    import numpy as np

    if text.find(word, 0, _STRETCH) >= 0:
        return True
    if len(text) <= _STRETCH:
        return False
    return bool(len(find(text, np.frombuffer(text, np.uint8), word, telling)))


def all_of(signs: np.ndarray, sign: str) -> np.ndarray:
    """Where a sign stands."""
    import numpy as np

    found = [np.zeros(0, np.int64)]
    for start in range(0, len(signs), _STRETCH):
        found.append(np.flatnonzero(signs[start : start + _STRETCH] == ord(sign)) + start)
    places: np.ndarray = np.concatenate(found)
    return places


def starts_of(signs: np.ndarray) -> np.ndarray:
    """Where lines begin."""
    import numpy as np

    starts = np.concatenate(([0], all_of(signs, "\n") + 1))
    begins: np.ndarray = starts[starts < len(signs)]
    return begins


def ends_of(text: bytes, signs: np.ndarray, starts: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Where lines end, without their line ends."""
    import numpy as np

    ends = np.append(starts[1:], len(signs))[: len(starts)]
    ends -= signs[ends - 1] == ord("\n")
    if b"\r" in text:
        left = np.flatnonzero(ends > begins)
        while len(left := left[signs[ends[left] - 1] == ord("\r")]):
            ends[left] -= 1
            left = left[ends[left] > begins[left]]
    found: np.ndarray = np.maximum(ends, begins)
    return found


def stamps_of(signs: np.ndarray, starts: np.ndarray) -> np.ndarray | None:
    """Stamps as the capture half asks for them (`[%s.%6f] `), Unix ns, -1: none; or all: None."""
    import numpy as np

    at = np.flatnonzero(signs[starts] == ord("["))
    at = at[starts[at] + _STAMP_BYTES <= len(signs)]
    for place, sign in _STAMP_SIGNS[1:]:
        at = at[signs[starts[at] + place] == ord(sign)]
    if not len(at):
        return None
    values = np.zeros(len(at), np.int64)
    sound = np.ones(len(at), bool)
    for place in (*range(1, 11), *range(12, 18)):
        digits = signs[starts[at] + place] - np.uint8(ord("0"))
        sound &= digits <= 9
        values = values * 10 + digits
    if not sound.any():
        return None
    times = np.full(len(starts), -1, np.int64)
    times[at[sound]] = values[sound] * 1_000
    return times


def begins_of(starts: np.ndarray, times: np.ndarray | None) -> np.ndarray:
    """Where lines begin behind their stamps."""
    return starts if times is None else starts + _STAMP_BYTES * (times >= 0)


def marks_of(text: bytes, signs: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> Marks:
    """What NCCL printed."""
    import numpy as np

    behind = np.full(len(begins), -1, np.int64)
    several, mute = np.zeros(len(begins), bool), np.zeros(len(begins), bool)
    at = find(text, signs, _NAME, (0, 3))
    owners = np.searchsorted(begins, at, "right") - 1
    is_first = np.diff(owners, prepend=-1) > 0
    more, others = at[~is_first], owners[~is_first]
    at, owners = at[is_first], owners[is_first]
    is_whole = at + MARK_BYTES + _KEY_BYTES <= len(signs)
    at, owners = at[is_whole], owners[is_whole]
    follows = keys(text, _KEY_BYTES)[at + len(_NAME)]
    is_info = _goes_on(follows, _INFO)
    behind[owners[is_info]] = at[is_info] + MARK_BYTES
    is_mute = _goes_on(follows, _MUTE[0]) | _goes_on(follows, _MUTE[1])
    mute[owners[is_mute]] = True
    mute[others] = False
    several[others[_is_another(text, signs, more, behind[others])]] = True
    behind[ends - begins > MAX_SPLIT_BYTES] = -1
    _keep_whole(text, signs, begins, behind, mute)
    return Marks(behind, several, mute)


def _is_another(text: bytes, signs: np.ndarray, more: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Whether these further `NCCL` may begin records: a banner at the text's beginning does not."""
    import numpy as np

    at = more + len(_NAME)
    goes_on: np.ndarray = signs[np.minimum(at, len(signs) - 1)] == ord(" ")
    banner = np.flatnonzero((more == behind) & (at + _KEY_BYTES < len(signs)))
    is_one = _goes_on(keys(text, _KEY_BYTES)[at[banner]], _VERSION)
    is_one &= signs[at[banner] + _KEY_BYTES] == ord(" ")
    goes_on[banner[is_one]] = False
    return goes_on


def _goes_on(follows: np.ndarray, word: bytes) -> np.ndarray:
    import numpy as np

    goes_on: np.ndarray = follows & np.uint64((1 << 8 * len(word)) - 1) == key(word)
    return goes_on


def _keep_whole(
    text: bytes, signs: np.ndarray, begins: np.ndarray, behind: np.ndarray, mute: np.ndarray
) -> None:
    """Calls are taken as wholes; so is what colours behind the mark make difficult."""
    import numpy as np

    for sign in (0, 0x1B):
        if bytes((sign,)) in text:
            inside = np.flatnonzero(signs == sign)
            owners = np.maximum(np.searchsorted(begins, inside, "right") - 1, 0)
            is_far = inside > behind[owners] if sign else np.ones(len(inside), bool)
            behind[owners[is_far]] = -1
            mute[owners] = False


def numbers_of(text: bytes, behind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of channels in texts that begin there, and where the texts go on behind them.

    `Channel 07/...` and `Channel 07 : ...` have 7, `Ring 07 : ...` 7 + RING, all others -1.
    """
    import numpy as np

    numbers, goes_on = np.full(len(behind), -1, np.int32), behind.copy()
    words = keys(text, _KEY_BYTES)
    room = len(text) - NUMBER_BYTES - 1
    for word, width, sign, more in (
        (b"Channel ", NUMBER_BYTES, "/", 0),
        (b"Ring ", RING_BYTES, " ", RING),
    ):
        lines = np.flatnonzero(_goes_on(words[behind], word) & (behind < room))
        if not len(lines):
            continue
        tail = keys(text, 4)[behind[lines] + width - 2]
        tens, ones, behind_it = ((tail >> (8 * place)) & 255 for place in range(3))
        is_number = (tens - 48 <= 9) & (ones - 48 <= 9)  # unsigned: other signs are above
        is_number &= (behind_it == ord(sign)) | (behind_it == ord(" "))
        found = lines[is_number]
        numbers[found] = ((tens - 48) * 10 + (ones - 48))[is_number].astype(np.int32) + more
        goes_on[found] += width
    return numbers, goes_on


def own_prefixes(signs: np.ndarray, begins: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Where `host:pid:tid [device] NCCL INFO ` begins in each line, whatever stands before it.

    `begins`: where the prefix does not end so.
    """
    import numpy as np

    spaces = np.concatenate(([-1, -1, -1], all_of(signs, " ")))
    marks = behind - MARK_BYTES
    last = np.searchsorted(spaces, marks) - 1
    ends, devices, hosts = (spaces[np.maximum(last - back, 0)] for back in range(3))
    is_usual = (ends == marks - 1) & (devices >= begins) & (marks - 2 >= begins)
    is_usual &= (signs[marks - 2] == ord("]")) & (signs[devices + 1] == ord("["))
    return np.where(is_usual, np.maximum(hosts + 1, begins), begins)
