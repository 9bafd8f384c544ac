"""From blocks of logs to pages: calls and choices in bulk, like lines together, others one by one.

A block is cut into stretches at the lines that change what an address means, and where a file
ends. Within a stretch calls come first, then choices, then the rest, which is told how far the
calls had come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness_collectors.nccl_log.grammar.lines import MAX_TEXT_BYTES, Record
from harness_collectors.nccl_log.grammar.texts import Texts
from harness_collectors.nccl_log.grammar.words import Sort
from harness_collectors.nccl_log.pages.block import Block, encode, has_many_heads
from harness_collectors.nccl_log.pages.page import Act, Calls, Choices, Page, Stretch, distinct
from harness_collectors.nccl_log.pages.runs import Likes, runs_of
from harness_collectors.nccl_log.pages.sorting import Sorter

if TYPE_CHECKING:
    import numpy as np

    from harness_collectors.nccl_log.pages.runs import Run

_TOGETHER_BYTES: Final = 4 << 20
_MAX_EXAMINED: Final = 64 << 10
"""Of a longer line, whose line ends were lost, the rest is dropped."""

Text = tuple[Path, bytes]
"""Whole lines of a file."""


class Scanner:
    """Makes pages of blocks. Never raises for what the text holds."""

    def __init__(self, texts: Texts) -> None:
        self._sorter = Sorter(texts)
        self._led = False
        self._waiting: list[Text] = []
        self._bytes = 0

    def take(self, path: Path, text: bytes, cut: bool) -> Iterator[Page]:
        """Read a block of a file: whole lines, or, `cut`, its last one without a line end.

        Small blocks, of small files, wait for more: a block costs as much as a thousand lines.
        """
        if self._waiting and self._waiting[-1][0] is path:
            yield from self.finish()  # no small file
        if text.endswith(b"\n") and not cut:
            self._waiting.append((path, text))
            self._bytes += len(text)
            if self._bytes >= _TOGETHER_BYTES:
                yield from self.finish()
            return
        yield from self.finish()
        if text:
            yield self._page([(path, text)], cut)

    def finish(self) -> Iterator[Page]:
        """Read what waits."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if waiting:
            yield self._page(waiting, False)

    def _page(self, texts: Sequence[Text], cut: bool) -> Page:
        """A page of lines of files, one file's after the other's."""
        import numpy as np

        block = self._encode(b"".join([text for _, text in texts]))
        firsts = np.cumsum([0, *(_lines(text) for _, text in texts[:-1])])
        heads = self._sorter.heads(block)
        sorts, said = self._sorter.sorts(block, heads, cut)
        likes = self._likes(np.flatnonzero(sorts == Sort.LIKE), said)
        acts, runs = _acts(block, sorts, heads, firsts, likes)
        calls, choices = (np.flatnonzero(sorts == sort) for sort in (Sort.CALL, Sort.CHOICE))
        places = (calls, choices, np.array([place for place, *_ in acts], np.int64))
        sizes = np.diff([*firsts, len(block)]).tolist()
        paths = [path for path, _ in texts]
        return Page(
            tuple(zip(paths, sizes, strict=True)),
            cut,
            {code: record for code, record in heads.items() if record is not None},
            list(_stretches(paths, sorts, firsts, places)),
            _calls(block, calls),
            _choices(block, choices, heads),
            acts,
            runs,
            likes.values,
            _stamps(block, places[2], runs),
        )

    def _encode(self, text: bytes) -> Block:
        """Take a block apart, and what stands before NCCL's prefixes if it changes all the time."""
        block = encode(text, self._led)
        if self._led:
            self._led = bool((block.heads >= len(block.pieces)).any())
        elif has_many_heads(block):
            self._led = True
            block = encode(text, True)
        return block

    def _likes(self, places: np.ndarray, said: np.ndarray) -> Likes:
        found, numbers = distinct(said[places])
        return Likes(places, numbers, [self._sorter.hops.values[one] for one in found.tolist()])


def _lines(text: bytes) -> int:
    """`bytes.count` takes five times as long."""
    import numpy as np

    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))


def _acts(
    block: Block,
    sorts: np.ndarray,
    heads: dict[int, Record | None],
    firsts: np.ndarray,
    likes: Likes,
) -> tuple[list[Act], dict[int, list[Run]]]:
    """What is read one by one, in the order of lines, and what of it is many lines."""
    import numpy as np

    times = np.full(len(block), -1, np.int64)
    facts = (sorts == Sort.FACT) | (sorts == Sort.FILE_FACT)
    if block.times is not None and (block.times[facts] < 0).any():
        sorts[facts] = Sort.LINE  # the first with a stamp is wanted
    elif facts.any():
        _count_facts(block, sorts, np.flatnonzero(facts), firsts, times)
    times[(sorts == Sort.LINE) | (sorts >= Sort.TURN)] = 1
    runs = runs_of(block, sorts, likes, heads, firsts) if len(likes.places) else {}
    times[list(runs)] = 1
    places = np.flatnonzero(times >= 0)
    own, texts = _said(block, sorts, heads, places)
    columns = (places.tolist(), own.tolist(), times[places].tolist(), texts)
    return list(zip(*columns, strict=True)), runs


def _said(
    block: Block, sorts: np.ndarray, heads: dict[int, Record | None], places: np.ndarray
) -> tuple[np.ndarray, list[bytes]]:
    """Of lines read one by one: the code of who printed them (-1: read whole), and the text."""
    import numpy as np

    own = block.heads[places]
    odd = [code for code, record in heads.items() if record is None]
    is_whole = (own < 0) | (sorts[places] == Sort.SEVERAL)
    if odd:
        is_whole |= np.isin(own, odd)
    pieces = block.pieces
    texts = [pieces[code] for code in block.texts[places].tolist()]
    is_numbered = (block.numbers[places] >= 0) & (sorts[places] != Sort.LIKE)
    for number in np.flatnonzero(is_numbered).tolist():
        texts[number] = block.said(places[number])
    is_long = block.ends[places] - block.begins[places] > MAX_TEXT_BYTES
    for number in np.flatnonzero(is_long).tolist():
        texts[number] = texts[number][:MAX_TEXT_BYTES].rstrip(b"\r")
    for number in np.flatnonzero(is_whole).tolist():
        texts[number] = block.line(places[number])[:_MAX_EXAMINED]
    return np.where(is_whole, -1, own), texts


def _calls(block: Block, places: np.ndarray) -> Calls:
    found, codes = distinct(block.texts[places])
    lines = [block.pieces[code] for code in found.tolist()]
    return Calls(places, codes, lines, None if block.times is None else block.times[places])


def _choices(block: Block, places: np.ndarray, heads: dict[int, Record | None]) -> Choices:
    """Distinct lines are numbered in the order of their first ones."""
    import numpy as np

    pairs = block.heads[places].astype(np.int64) * len(block.pieces) + block.texts[places]
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    lines: list[tuple[Record | None, bytes]] = []
    for place in places[np.sort(first)].tolist():
        record = heads.get(int(block.heads[place]))
        lines.append((record, block.line(place) if record is None else block.said(place)))
    return Choices(places, numbers[inverse], lines)


def _stamps(block: Block, places: np.ndarray, runs: dict[int, list[Run]]) -> dict[int, int]:
    import numpy as np

    if block.times is None:
        return {}
    begun = [place for stretch in runs.values() for _, _, place, *_ in stretch]
    wanted = np.concatenate((places, np.array(begun, np.int64)))
    wanted = wanted[block.times[wanted] >= 0]
    return dict(zip(wanted.tolist(), block.times[wanted].tolist(), strict=True))


def _count_facts(
    block: Block, sorts: np.ndarray, places: np.ndarray, firsts: np.ndarray, times: np.ndarray
) -> None:
    """Note in `times` how often the same is said, where it is said first.

    A process is noted where it first says anything, be that said before: 0 times.
    """
    import numpy as np

    who = block.heads[places].astype(np.int64)
    file = np.searchsorted(firsts, places, "right") - 1
    printed_by = file * (2 * len(block.pieces)) + who
    _, first = np.unique(printed_by, return_index=True)
    times[places[first]] = 0
    whose = np.where(sorts[places] == Sort.FACT, printed_by, -1 - file)
    said = whose * len(block.pieces) + block.texts[places]
    _, first, often = np.unique(said, return_index=True, return_counts=True)
    times[places[first]] = often


def _stretches(
    paths: Sequence[Path], sorts: np.ndarray, firsts: np.ndarray, places: Sequence[np.ndarray]
) -> Iterator[Stretch]:
    """`places` of calls, choices and acts, cut where files begin and where addresses change."""
    import numpy as np

    cuts = _cuts(sorts, firsts)
    owners = (np.searchsorted(firsts, cuts[:-1], "right") - 1).tolist()
    bounds = [np.searchsorted(those, cuts).tolist() for those in places]
    for number, owner in enumerate(owners):
        calls, choices, acts = ((each[number], each[number + 1]) for each in bounds)
        yield Stretch(paths[owner], calls, choices, acts)


def _cuts(sorts: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Where stretches begin and the last one ends: files, turns that have calls or choices near."""
    import numpy as np

    busy = np.flatnonzero((sorts == Sort.CALL) | (sorts == Sort.CHOICE))
    turns = np.flatnonzero(sorts >= Sort.TURN)
    near = np.unique(np.searchsorted(turns, busy))
    begins = np.append(turns + 1, len(sorts))[near - 1]  # of the first there is none before
    begins = np.where(near > 0, begins, 0)
    ends = np.append(turns, len(sorts))[near]
    cuts: np.ndarray = np.unique(np.concatenate((firsts, [len(sorts)], begins, ends)))
    return cuts
