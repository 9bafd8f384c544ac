"""Which lines may say something: by the first bytes of their text, and by words in them."""

from __future__ import annotations

import re
from typing import Final

from harness_collectors.nccl_log.grammar import lines


class Sort:
    """What to do with a line. Plain numbers: a member of an Enum costs as much to look up as all
    the rest of sorting a line."""

    IGNORED: Final = 0
    CALL: Final = 1
    CHOICE: Final = 2
    LINE: Final = 3
    """It says something by itself."""
    FACT: Final = 4
    """It holds for its process whatever stands between it and others that are the same."""
    FILE_FACT: Final = 5
    """It holds for its file, whoever printed it."""
    LIKE: Final = 6
    """A transport or a ring map that differs from others in its channel only."""
    TURN: Final = 7
    """It changes what an address means."""
    SEVERAL: Final = 8
    """It may hold several records, or pieces of them."""


KINDS: Final[dict[bytes, tuple[tuple[bytes, ...], int | None]]] = {
    b"comm": ((b"anks",), None),
    b"nccl": ((b" comm 0x",), None),
    b"[Ran": ((b" comm 0x",), None),
    b"Init": ((b"Init timings",), None),
    b"Chan": ((b" : ",), None),
    b"Ring": ((b" via ",), None),
    b"Coll": ((b" via ",), None),
    b"Tree": ((b"Trees [",), None),
    b"NCCL": ((b"NCCL version ", b" set "), None),
    b"RCCL": ((b"RCCL version ",), None),
    b"Usin": ((b"Using network ",), Sort.FACT),
    b"NET/": ((b"GPU Direct RDMA ", b"Plugin"), Sort.FILE_FACT),
    b"GPU ": ((b"GPU Direct RDMA ",), Sort.FILE_FACT),
    b"TUNE": ((b"Plugin",), Sort.FILE_FACT),
    b"PROF": ((b"Plugin",), Sort.FILE_FACT),
    b"Conn": ((b" PXN ",), None),
    b"NVLS": ((b"multicast support",), None),
}
"""By the first four bytes of a text: the words of which the line holds one if it matters, and what
it is then, if not what else they say."""

CHOICE_STARTS: Final = frozenset(name[:4].encode("ascii") for name in lines.OPS)
STARTS: Final = frozenset({*KINDS, *CHOICE_STARTS})
"""First four bytes of texts that may say something; those that start with a digit may as well."""

IDLE: Final = (b"NET/IB: [", b"Connected to ")
"""Beginnings of texts that say nothing though their first four bytes are those of others; of eight
bytes at least. So do numbered lines of a graph (` 7 : NET/0 ...`)."""

_ODD: Final = (
    b"NCCL ",
    b" opCount ",
    b" Bytes -> ",
    b" coll channels",
    *sorted({word for words, _ in KINDS.values() for word in words if word != b"anks"}),
)
ODD_IN_HEADS: Final = re.compile(b"|".join(map(re.escape, _ODD)))
"""With one of these before NCCL's prefix a line is looked at as a whole."""

_TAILS: Final = (b" - Init ", b"[nranks=", b" via P2P/", b" via NET/", b"+cuda", b" nranks ")
"""What ends NCCL's lines only: in a line without its prefix, the rest of a torn one."""
_PIECES: Final = (b"CL INFO ", b"RCCL version ", *_TAILS)
_CUT_PREFIXES: Final = re.compile(rb":\d{1,10}:\d{1,10}(?: \[[^\n]*)?\s*$", re.MULTILINE)
"""Where `lines.CUT_PREFIX` may match: looser, and quick on many lines."""


def by_words(start: bytes, line: bytes) -> int:
    """Sort a line of level INFO by the first four bytes of its text and the words in it."""
    rule = KINDS.get(start)
    if rule is None:
        return _by_bytes(start, line)
    words, fact = rule
    for word in words:
        if word in line:
            break
    else:
        return Sort.IGNORED
    if fact is not None:
        return fact
    is_turn = (b"omm" in line and b"anks" in line) or line.startswith(b"NCCL version ")
    return Sort.TURN if is_turn else Sort.LINE


def _by_bytes(start: bytes, line: bytes) -> int:
    if start not in CHOICE_STARTS and not start[:1].isdigit():
        return Sort.IGNORED
    if b" Bytes -> " in line:
        return Sort.CHOICE
    return Sort.LINE if start in CHOICE_STARTS or b" coll channels" in line else Sort.IGNORED


def mentions(line: bytes) -> bool:
    """Whether a line without a prefix holds what only NCCL's lines end with."""
    return any(tail in line for tail in _TAILS)


def is_piece(line: bytes) -> bool:
    """Whether a line without NCCL's mark may be a piece of one that has it."""
    return any(word in line for word in _PIECES) or lines.CUT_PREFIX.search(line[-400:]) is not None


def may_hold_pieces(joined: bytes) -> bool:
    """Whether one of several lines may be such a piece."""
    return any(word in joined for word in _PIECES) or _CUT_PREFIXES.search(joined) is not None
