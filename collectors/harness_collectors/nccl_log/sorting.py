"""What to do with a line, by its text alone, remembered for texts that come again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from harness_collectors.nccl_log import lines
from harness_collectors.nccl_log.block import Block
from harness_collectors.nccl_log.lines import MIDDLE_MARK, Hop, Record
from harness_collectors.nccl_log.places import RING
from harness_collectors.nccl_log.tally import Texts
from harness_collectors.nccl_log.words import (
    ODD_IN_HEADS,
    Sort,
    by_words,
    is_piece,
    may_hold_pieces,
)

if TYPE_CHECKING:
    import numpy as np

Key = TypeVar("Key")
Value = TypeVar("Value")

_UNKNOWN: Final[Any] = object()
_MAX_KEPT: Final = 1 << 16
_LOOKED_THROUGH: Final = 128
"""Lines without NCCL's mark that are looked through at once."""


class Sorter:
    """Sorts lines, of any file."""

    def __init__(self, texts: Texts) -> None:
        self._known = texts
        self._texts: dict[bytes, Sort] = {}
        self._likes: dict[bytes, Hop | str | None] = {}
        self._heads: dict[bytes, Record | None] = {}

    def heads(self, block: Block) -> dict[int, Record | None]:
        """By code of a head: who printed it; None: it is not simply a prefix."""
        import numpy as np

        found: dict[int, Record | None] = {}
        size = len(block.pieces)
        for code in np.flatnonzero(np.bincount(block.heads + 1, minlength=1)[1:]).tolist():
            head = block.pieces[code % size]
            record = self._heads.get(head, _UNKNOWN)
            if record is _UNKNOWN:
                record = _keep(self._heads, head, _head(head))
            if code >= size and record is not None and not record.start:
                record = record._replace(start=1)  # something stands before it
            found[code] = record
        return found

    def likes(self, block: Block, places: np.ndarray) -> tuple[np.ndarray, list[Hop | str]]:
        """What the lines of sort LIKE at these places say: numbers, and by number."""
        import numpy as np

        codes = np.flatnonzero(np.bincount(block.texts[places], minlength=1)).tolist()
        likes = [self._like(block.pieces[code]) for code in codes]
        numbers = {like: number for number, like in enumerate(dict.fromkeys(likes))}
        table = np.zeros(len(block.pieces), np.int32)
        table[codes] = [numbers[like] for like in likes]
        return table[block.texts[places]], [like for like in numbers if like is not None]

    def sorts(self, block: Block, heads: dict[int, Record | None], cut: bool) -> np.ndarray:
        """A `Sort` for each line, int8. `cut`: the block is a line without an end."""
        import numpy as np

        sorts = np.zeros(len(block), np.int8)
        odd = [code for code, record in heads.items() if record is None]
        is_odd = np.isin(block.heads, odd) if odd else np.zeros(len(block), bool)
        for place in np.flatnonzero(is_odd).tolist():
            sorts[place] = self._whole(block.line(place), cut)
        is_split = (block.heads >= 0) & ~is_odd
        is_whole = (block.heads < 0) & (block.texts >= 0)
        is_ring = block.numbers >= RING
        is_channel = (block.numbers >= 0) & ~is_ring
        for places, judge in (
            (is_whole, self._wholes),
            (is_split & (block.numbers < 0), self._plain),
            (is_split & is_channel, self._of_channels),
            (is_split & is_ring, self._of_rings),
        ):
            codes = block.texts[places]
            if len(codes):
                used = np.flatnonzero(np.bincount(codes))
                table = np.zeros(len(block.pieces), np.int8)
                table[used] = judge([block.pieces[code] for code in used.tolist()], cut)
                sorts[places] = table[codes]
        sorts[is_split & block.several] = Sort.SEVERAL
        return sorts

    def _wholes(self, pieces: list[bytes], cut: bool) -> list[Sort]:
        """Sort lines that were not taken apart."""
        sorts = [Sort.IGNORED] * len(pieces)
        foreign: list[int] = []
        for place, line in enumerate(pieces):
            if b"NCCL" in line:
                sorts[place] = self._whole(line, cut)
            else:
                foreign.append(place)
        for start in range(0, len(foreign), _LOOKED_THROUGH):
            places = foreign[start : start + _LOOKED_THROUGH]
            if may_hold_pieces(b"\n".join([pieces[place] for place in places])):
                for place in places:
                    sorts[place] = self._whole(pieces[place], cut)
        return sorts

    def _whole(self, line: bytes, cut: bool) -> Sort:
        """Sort a line that was not taken apart."""
        at = line.find(b"NCCL")
        if at < 0:
            return Sort.LINE if is_piece(line) else Sort.IGNORED
        if MIDDLE_MARK in line:
            return Sort.CALL if self._known.is_call(line) else Sort.SEVERAL
        if b" opCount " in line or line.find(b"NCCL ", at + 4) >= 0:
            return Sort.SEVERAL
        if not line.startswith(b" INFO ", at + 4):
            return Sort.LINE
        sort = by_words(line[at + 10 : at + 14], line)
        if sort is Sort.CHOICE and (cut or not self._known.is_choice(line)):
            return Sort.LINE
        return Sort.LINE if sort in (Sort.FACT, Sort.FILE_FACT) else sort

    def _text(self, text: bytes, cut: bool) -> Sort:
        """Sort a line by what stands behind its `NCCL INFO `."""
        sort = self._texts.get(text)
        if sort is None:
            sort = _keep(self._texts, text, by_words(text[:4], text))
        if sort is Sort.CHOICE and (cut or self._known.choice(text) is None):
            return Sort.LINE
        return Sort.LINE if cut and sort in (Sort.FACT, Sort.FILE_FACT) else sort

    def _plain(self, texts: list[bytes], cut: bool) -> list[Sort]:
        return [self._text(text, cut) for text in texts]

    def _of_channels(self, texts: list[bytes], cut: bool) -> list[Sort]:
        """Sort lines by what stands behind their `Channel NN`."""
        return [self._like_or(text, b"Channel 00", cut) for text in texts]

    def _of_rings(self, texts: list[bytes], cut: bool) -> list[Sort]:
        """Sort lines by what stands behind their `Ring NN`."""
        return [self._like_or(text, b"Ring 00", cut) for text in texts]

    def _like_or(self, text: bytes, before: bytes, cut: bool) -> Sort:
        if not cut and self._like(text) is not None:
            return Sort.LIKE
        return self._text(before + text, cut)

    def _like(self, text: bytes) -> Hop | str | None:
        """What a line says whose channel's number was taken out, if that is like others."""
        like: Hop | str | None = self._likes.get(text, _UNKNOWN)
        if like is _UNKNOWN:
            like = None
            if len(text) <= lines.MAX_TEXT_BYTES // 2:
                is_hop = b" via " in text
                like = lines.parse_hop(text) if is_hop else lines.parse_ring(b"Channel 00" + text)
            _keep(self._likes, text, like)
        return like


def _keep(memory: dict[Key, Value], text: Key, value: Value) -> Value:
    if len(memory) >= _MAX_KEPT:
        memory.clear()
    memory[text] = value
    return value


def _head(head: bytes) -> Record | None:
    before = head[: -len(b"NCCL INFO ")]
    if ODD_IN_HEADS.search(before):
        return None
    return next(lines.records(head))
