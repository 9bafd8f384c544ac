"""Which of the traces that lie together are of one job, told before they are read.

Files of one job are called alike, but for the rank and the time. Where two sets of files that are
called alike show the same rank from two processes, they are two jobs, and of the smaller one
nothing is taken, or its other ranks would be taken for ranks of the larger.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

Set = tuple[Path, str]
_DIGITS: Final = re.compile(r"\d+")
_TIME_DIGITS: Final = 9
_OF_HOST: Final = re.compile(
    rb'"cat":\s*"(?:cpu_op|cuda_runtime|cuda_driver|user_annotation|python_function|Operator|Runtime)"'
    rb'[^{}]{0,2000}?"pid":\s*"?(\d{1,10})\b'
)
_LOOKED_AT: Final = 4 << 20


def of_other_jobs(groups: Mapping[int | None, Sequence[Path]]) -> dict[Path, Path]:
    """Files of other jobs than the one that shows the most ranks, and a file of that.

    `groups`: files by rank. Opens files only where two sets show the same rank.
    """
    shown: dict[Set, dict[int, Path]] = {}
    for rank, paths in groups.items():
        for path in paths if rank is not None else ():
            shown.setdefault(_set_of(path, rank or 0), {}).setdefault(rank or 0, path)
    order = sorted(shown, key=lambda each: (-len(shown[each]), str(each[0]), each[1]))
    taken: dict[int, Path] = {}
    foreign: dict[Set, Path] = {}
    for each in order:
        rival = next(
            (taken[rank] for rank in shown[each] if rank in taken and len(shown[each]) > 1), None
        )
        if rival and _apart(
            next(p for r, p in shown[each].items() if taken.get(r) == rival), rival
        ):
            foreign[each] = rival
        else:
            taken = {**shown[each], **taken}
    return {
        path: foreign[key]
        for rank, paths in groups.items()
        for path in (paths if rank is not None and foreign else ())
        if (key := _set_of(path, rank or 0)) in foreign
    }


def _set_of(path: Path, rank: int) -> Set:
    """What a file shares with those of the other ranks: its folder, and its name without the rank
    (the last number that is it) and without times."""
    name = _DIGITS.sub(lambda found: "#" if len(found[0]) >= _TIME_DIGITS else found[0], path.name)
    spelled = [found for found in _DIGITS.finditer(name) if int(found[0]) == rank]
    if spelled:
        name = f"{name[: spelled[-1].start()]}#{name[spelled[-1].end() :]}"
    return path.parent, name


def _apart(path: Path, other: Path) -> bool:
    """Whether two files are known to be of two processes."""
    mine, theirs = _process(path), _process(other)
    return mine is not None and theirs is not None and mine != theirs


def _process(path: Path) -> int | None:
    """The process that most of the first events on the host are of."""
    from harness_collectors.kineto.stream import Health, read_blocks

    text = b""
    try:
        with closing(read_blocks(path, Health())) as blocks:
            for block in blocks:
                text += block
                if len(text) >= _LOOKED_AT or len(_OF_HOST.findall(text[:_LOOKED_AT])) > 100:
                    break
    except OSError:
        return None
    found = Counter(_OF_HOST.findall(text[:_LOOKED_AT]))
    return int(found.most_common(1)[0][0]) if found else None
