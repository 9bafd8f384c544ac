"""What to do with a line, by its text alone, remembered for texts that come again."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeVar

from harness_collectors.nccl_log import lines
from harness_collectors.nccl_log.apply import FACTS, HANDLERS
from harness_collectors.nccl_log.block import MIDDLE_MARK, Block
from harness_collectors.nccl_log.lines import Hop, Record
from harness_collectors.nccl_log.tally import Calls, Choices

if TYPE_CHECKING:
    import numpy as np

Value = TypeVar("Value")

_MAX_KEPT: Final = 1 << 16
CHOICE_STARTS: Final = frozenset(name[:4].encode("ascii") for name in lines.OPS)
_TAILS: Final = (b" - Init ", b"[nranks=", b" via P2P/", b" via NET/", b"+cuda", b" nranks ")
"""What ends NCCL's lines only: in a line without its prefix, the rest of a torn one."""
_PIECES: Final = (b"CL INFO ", b"RCCL version ", *_TAILS)
_ODD_IN_HEADS: Final = (
    b"NCCL ",
    b" opCount ",
    b" Bytes -> ",
    b" coll channels",
    *{word for _, words in HANDLERS.values() for word in words if word != b"anks"},
)


class Sort(IntEnum):
    """What to do with a line."""

    IGNORED = 0
    CALL = 1
    CHOICE = 2
    LINE = 3
    """It says something by itself."""
    FACT = 4
    """It holds whatever stands between it and others that are the same."""
    LIKE = 5
    """A transport or a ring map that differs from others in its channel only."""
    TURN = 6
    """It changes what an address means."""
    SEVERAL = 7
    """It may hold several records, or pieces of them."""


class Sorter:
    """Sorts the lines of a file."""

    def __init__(self, calls: Calls, choices: Choices) -> None:
        self._calls = calls
        self._choices = choices
        self._texts: dict[bytes, Sort] = {}
        self._likes: dict[bytes, Hop | str | None] = {}
        self._heads: dict[bytes, Record | None] = {}

    def heads(self, block: Block) -> dict[int, Record | None]:
        """By code of a head: who printed it; None: it is not simply a prefix."""
        import numpy as np

        codes = np.flatnonzero(np.bincount(block.heads + 1, minlength=1)[1:]).tolist()
        return {code: _kept(self._heads, block.pieces[code], _head) for code in codes}

    def like(self, text: bytes) -> Hop | str | None:
        """What a text says whose `Channel NN` was taken out: a transport, or a ring's ranks."""
        return _kept(self._likes, text, _like)

    def likes(self, block: Block, places: np.ndarray) -> tuple[np.ndarray, list[Hop | str]]:
        """What the lines of sort LIKE at these places say: numbers, and by number."""
        import numpy as np

        numbers: dict[Hop | str, int] = {}
        table = np.zeros(len(block.pieces), np.int32)
        for code in np.flatnonzero(np.bincount(block.texts[places], minlength=1)).tolist():
            like = self.like(block.pieces[code])
            if like is not None:
                table[code] = numbers.setdefault(like, len(numbers))
        return table[block.texts[places]], list(numbers)

    def sorts(self, block: Block, heads: dict[int, Record | None], cut: bool) -> np.ndarray:
        """A `Sort` for each line, int8. `cut`: the block is a line without an end."""
        import numpy as np

        sorts = np.zeros(len(block), np.int8)
        pieces = block.pieces
        odd = [code for code, record in heads.items() if record is None]
        is_odd = np.isin(block.heads, odd) if odd else np.zeros(len(block), bool)
        for place in np.flatnonzero(is_odd).tolist():
            sorts[place] = self._whole(block.line(place), cut)
        is_split = (block.heads >= 0) & ~is_odd
        is_numbered = block.numbers >= 0
        judges: tuple[tuple[np.ndarray, Callable[[bytes], Sort]], ...] = (
            (block.heads < 0, lambda line: self._whole(line, cut)),
            (is_split & ~is_numbered, lambda text: self._text(text, cut)),
            (is_split & is_numbered, lambda text: self._numbered(text, cut)),
        )
        table = np.zeros(len(pieces), np.int8)
        for places, judge in judges:
            codes = block.texts[places]
            used = np.flatnonzero(np.bincount(codes, minlength=1))
            table[used] = [judge(pieces[code]) for code in used.tolist()]
            sorts[places] = table[codes]
        return sorts

    def _whole(self, line: bytes, cut: bool) -> Sort:
        """Sort a line that was not taken apart."""
        at = line.find(b"NCCL")
        if at < 0:
            is_piece = any(word in line for word in _PIECES)
            return Sort.LINE if is_piece or _may_be_prefix(line) else Sort.IGNORED
        if MIDDLE_MARK in line:
            return Sort.CALL if self._calls.is_call(line) else Sort.SEVERAL
        if b" opCount " in line or line.find(b"NCCL ", at + 4) >= 0:
            return Sort.SEVERAL
        if not line.startswith(b" INFO ", at + 4):
            return Sort.LINE
        sort = _by_words(line[at + 10 : at + 14], line)
        if sort is Sort.CHOICE and (cut or not self._choices.is_choice(line)):
            return Sort.LINE
        return Sort.LINE if sort is Sort.FACT else sort

    def _text(self, text: bytes, cut: bool) -> Sort:
        """Sort a line by what stands behind its `NCCL INFO `."""
        sort = _kept(self._texts, text, _by_text)
        if sort is Sort.CHOICE and (cut or self._choices.choice(text) is None):
            return Sort.LINE
        return Sort.LINE if cut and sort is Sort.FACT else sort

    def _numbered(self, text: bytes, cut: bool) -> Sort:
        """Sort a line by what stands behind its `Channel NN`."""
        if not cut and self.like(text) is not None:
            return Sort.LIKE
        return self._text(b"Channel 00" + text, cut)


def mentions(line: bytes) -> bool:
    """Whether a line without a prefix holds what only NCCL's lines end with."""
    return any(tail in line for tail in _TAILS)


def _kept(memory: dict[bytes, Value], text: bytes, make: Callable[[bytes], Value]) -> Value:
    try:
        return memory[text]
    except KeyError:
        if len(memory) >= _MAX_KEPT:
            memory.clear()
        return memory.setdefault(text, make(text))


def _head(head: bytes) -> Record | None:
    before = head[: -len(b"NCCL INFO ")]
    if any(word in before for word in _ODD_IN_HEADS):
        return None
    return next(lines.records(head))


def _like(text: bytes) -> Hop | str | None:
    if b"NCCL " in text or b" opCount " in text or len(text) > lines.MAX_TEXT_BYTES // 2:
        return None
    line = b"Channel 00" + text
    if b" via " not in text:
        return lines.parse_ring(line)
    found = None if b" Bytes -> " in text else lines.parse_hop(line)
    return found[1] if found else None


def _by_text(text: bytes) -> Sort:
    if b" opCount " in text or b"NCCL " in text:
        return Sort.SEVERAL
    return _by_words(text[:4], text)


def _by_words(start: bytes, line: bytes) -> Sort:
    """Sort a line of level INFO by the first four bytes of its text and the words in it."""
    if start in CHOICE_STARTS or start[:1].isdigit():
        if b" Bytes -> " in line:
            return Sort.CHOICE
        is_said = start in CHOICE_STARTS or b" coll channels" in line
        return Sort.LINE if is_said else Sort.IGNORED
    handler, words = HANDLERS.get(start, (None, ()))
    if not any(word in line for word in words):
        return Sort.IGNORED
    if handler in FACTS:
        return Sort.FACT
    return Sort.TURN if b"omm" in line and b"anks" in line else Sort.LINE


def _may_be_prefix(line: bytes) -> bool:
    return line.count(b":") > 1 and lines.CUT_PREFIX.search(line[-400:]) is not None
