"""Going through logs: calls and choices in bulk, like lines together, every other by itself.

A block is cut into stretches at the lines that change what an address means, and where a file
ends. Within a stretch calls come first, then choices, then the rest, which is told how far the
calls had come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from harness_collectors.nccl_log.block import Block, encode, has_many_heads
from harness_collectors.nccl_log.lines import Record
from harness_collectors.nccl_log.reading import Act, Page, Reader
from harness_collectors.nccl_log.runs import Likes, runs_of
from harness_collectors.nccl_log.sorting import Sorter
from harness_collectors.nccl_log.state import Evidence
from harness_collectors.nccl_log.tally import Texts
from harness_collectors.nccl_log.words import Sort

if TYPE_CHECKING:
    import numpy as np

_TOGETHER_BYTES: Final = 1 << 20

Part = tuple[Reader, bytes]
"""A file's reader, and whole lines of the file."""


class Scanner:
    """Reads blocks of files into the evidence. Never raises for what the text holds."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.texts = Texts()
        self._sorter = Sorter(self.texts)
        self._led = False
        self._waiting: list[Part] = []
        self._bytes = 0

    def take(self, reader: Reader, text: bytes, cut: bool) -> None:
        """Read a block of a file: whole lines, or, `cut`, its last one without a line end.

        Small blocks, of small files, wait for more: a block costs as much as a thousand lines.
        """
        if self._waiting and self._waiting[-1][0] is reader:
            self.finish()  # no small file
        if text.endswith(b"\n") and not cut:
            self._waiting.append((reader, text))
            self._bytes += len(text)
            if self._bytes >= _TOGETHER_BYTES:
                self.finish()
            return
        self.finish()
        if text:
            before = reader.file.unreadable
            self._scan([(reader, text)], cut)
            reader.file.ends_cut = (reader.file.unreadable - before) if cut else 0

    def finish(self) -> None:
        """Read what waits."""
        if self._waiting:
            self._scan(self._waiting, False)
        self._waiting, self._bytes = [], 0

    def _scan(self, parts: Sequence[Part], cut: bool) -> None:
        """Read lines of files, one file's after the other's."""
        import numpy as np

        block = self._encode(b"".join([text for _, text in parts]))
        sizes = [text.count(b"\n") for _, text in parts[:-1]]
        firsts = np.cumsum([0, *sizes])
        heads = self._sorter.heads(block)
        sorts = self._sorter.sorts(block, heads, cut)
        page, acts = self._page(block, sorts, heads, firsts, cut)
        calls, choices = (np.flatnonzero(sorts == sort) for sort in (Sort.CALL, Sort.CHOICE))
        pairs = _distinct(block, choices)
        cuts = _cuts(sorts, firsts)
        bounds = [
            np.searchsorted(places, cuts).tolist()
            for places in (calls, choices, [act.place for act in acts])
        ]
        owners = np.searchsorted(firsts, cuts[:-1], "right") - 1
        for (reader, _), size in zip(parts, np.diff([*firsts, len(block)]).tolist(), strict=True):
            reader.turn(page, size)
        for number, owner in enumerate(owners.tolist()):
            reader = parts[owner][0]
            own = [slice(bound[number], bound[number + 1]) for bound in bounds]
            places = reader.add_calls(calls[own[0]])
            if own[1].start < own[1].stop:
                reader.add_choices(choices[own[1]], pairs[own[1]], places)
            reader.read(acts[own[2]], places)
        self.evidence.calls.relieve()

    def _encode(self, text: bytes) -> Block:
        """Take a block apart, and what stands before NCCL's prefixes if it changes all the time."""
        block = encode(text, self._led)
        if self._led:
            self._led = bool((block.heads >= len(block.pieces)).any())
        elif has_many_heads(block):
            self._led = True
            block = encode(text, True)
        return block

    def _page(
        self,
        block: Block,
        sorts: np.ndarray,
        heads: dict[int, Record | None],
        firsts: np.ndarray,
        cut: bool,
    ) -> tuple[Page, list[Act]]:
        """What is read one by one, in the order of lines, and what that takes."""
        import numpy as np

        times = np.full(len(block), -1, np.int64)
        facts = (sorts == Sort.FACT) | (sorts == Sort.FILE_FACT)
        if block.times is not None and (block.times[facts] < 0).any():
            sorts[facts] = Sort.LINE  # the first with a stamp is wanted
        elif facts.any():
            _count_facts(block, sorts, np.flatnonzero(facts), firsts, times)
        times[(sorts == Sort.LINE) | (sorts >= Sort.TURN)] = 1
        page = Page(block, heads, {}, [], cut)
        is_like = np.flatnonzero(sorts == Sort.LIKE)
        if len(is_like):
            likes = Likes(is_like, *self._sorter.likes(block, is_like))
            page = page._replace(
                runs=runs_of(block, sorts, likes, heads, firsts), likes=likes.values
            )
            times[list(page.runs)] = 1
        places = np.flatnonzero(times >= 0)
        several = sorts[places] == Sort.SEVERAL
        columns = (places, np.where(several, -1, block.heads[places]), times[places])
        texts = [block.pieces[code] for code in block.texts[places].tolist()]
        for number in np.flatnonzero(
            ((block.numbers >= 0) & (sorts != Sort.LIKE))[places]
        ).tolist():
            texts[number] = block.said(places[number])
        return page, list(map(Act, *(column.tolist() for column in columns), texts))


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


def _distinct(block: Block, places: np.ndarray) -> np.ndarray:
    """Numbers of the distinct lines at these places, in the order of their first ones."""
    import numpy as np

    pairs = block.heads[places].astype(np.int64) * len(block.pieces) + block.texts[places]
    _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    found: np.ndarray = numbers[inverse]
    return found


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
