"""What to do with a line, by its text alone, remembered for texts that come again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.grammar.lines import MIDDLE_MARK, Record
from harness_collectors.nccl_log.grammar.texts import Texts
from harness_collectors.nccl_log.grammar.words import (
    ODD_IN_HEADS,
    Sort,
    by_words,
    is_piece,
    may_hold_pieces,
)
from harness_collectors.nccl_log.pages.block import Block
from harness_collectors.nccl_log.pages.hops import Hops
from harness_collectors.nccl_log.pages.page import distinct
from harness_collectors.nccl_log.pages.places import RING

if TYPE_CHECKING:
    import numpy as np

Judged = tuple[list[int], list[int]]
"""The sorts of lines, and what those that are LIKE say; empty: none is."""

_UNKNOWN: Final[Any] = object()
_MAX_KEPT: Final = 1 << 16
_LOOKED_THROUGH: Final = 128
"""Lines without NCCL's mark that are looked through at once."""


class Sorter:
    """Sorts lines, of any file."""

    def __init__(self, texts: Texts) -> None:
        self._known = texts
        self.hops = Hops()
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
                if len(self._heads) >= _MAX_KEPT:
                    self._heads.clear()
                record = self._heads[head] = _head(head)
            if code >= size and record is not None and not record.start:
                record = record._replace(start=1)  # something stands before it
            found[code] = record
        return found

    def sorts(
        self, block: Block, heads: dict[int, Record | None], cut: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """A `Sort` for each line, int8, and of those that are LIKE what they say (`hops.values`).

        `cut`: the block is a line without an end.
        """
        import numpy as np

        self.hops.relieve()
        sorts, likes = np.zeros(len(block), np.int8), np.zeros(len(block), np.int32)
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
            (is_split & is_channel, partial(self._numbered, b"Channel 00")),
            (is_split & is_ring, partial(self._numbered, b"Ring 00")),
        ):
            codes = block.texts[places]
            if len(codes):
                used, codes = distinct(codes)
                judged, said = judge([block.pieces[code] for code in used.tolist()], cut)
                sorts[places] = np.array(judged, np.int8)[codes]
                if said:
                    likes[places] = np.array(said, np.int32)[codes]
        sorts[is_split & block.several] = Sort.SEVERAL
        return sorts, likes

    def _wholes(self, pieces: list[bytes], cut: bool) -> Judged:
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
        return sorts, []

    def _whole(self, line: bytes, cut: bool) -> int:
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
        if sort == Sort.CHOICE and (cut or not self._known.is_choice(line)):
            return Sort.LINE
        return Sort.LINE if sort in (Sort.FACT, Sort.FILE_FACT) else sort

    def _plain(self, texts: list[bytes], cut: bool) -> Judged:
        """Sort lines by what stands behind their `NCCL INFO `."""
        sorts = [by_words(text[:4], text) for text in texts]
        if cut or Sort.CHOICE in sorts:
            for place, sort in enumerate(sorts):
                sorts[place] = self._sure(sort, texts[place], cut)
        return sorts, []

    def _sure(self, sort: int, text: bytes, cut: bool) -> int:
        if sort == Sort.CHOICE and (cut or self._known.choice(text) is None):
            return Sort.LINE
        return Sort.LINE if cut and sort in (Sort.FACT, Sort.FILE_FACT) else sort

    def _numbered(self, before: bytes, texts: list[bytes], cut: bool) -> Judged:
        """Sort lines by what stands behind their `Channel NN`."""
        numbers = self.hops.numbers(texts)
        sorts = [Sort.LIKE] * len(texts)
        for place, number in enumerate(numbers):
            if cut or number < 0:
                text = before + texts[place]
                sorts[place] = self._sure(by_words(text[:4], text), text, cut)
        return sorts, numbers


def _head(head: bytes) -> Record | None:
    before = head[: -len(b"NCCL INFO ")]
    if ODD_IN_HEADS.search(before):
        return None
    return next(lines.records(head))
