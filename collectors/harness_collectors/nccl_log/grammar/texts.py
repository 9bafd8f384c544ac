"""Lines of calls and choices, which are nearly all of a log, by what they say by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.grammar.lines import MIDDLE_MARK, Choice, Record

if TYPE_CHECKING:
    import re

_MAX_CACHED: Final = 1 << 16
_COUNT: Final = MIDDLE_MARK + b" count "

Shape = tuple[bytes, bytes]
"""A call's line before and after its count."""


def split_call(line: bytes) -> tuple[Shape, int] | None:
    """(shape, count) of a normalised line that looks like a call."""
    at = line.find(_COUNT)
    start = at + len(_COUNT)
    end = line.find(b" ", start)
    digits = line[start:end]
    if at < 0 or end < 0 or not digits.isdigit() or len(digits) > 18:
        return None
    return (line[:at], line[end:]), int(digits)


class Texts:
    """What lines of calls and choices say by themselves, remembered; of any file."""

    def __init__(self) -> None:
        self._calls: dict[Shape, tuple[Record, re.Match[bytes]] | None] = {}
        self._whole: dict[bytes, tuple[Record, Choice] | None] = {}
        self._choices: dict[bytes, Choice | None] = {}

    def is_call(self, line: bytes) -> bool:
        """Whether the line is one whole call, whatever stands before its prefix."""
        found = split_call(line)
        return found is not None and self.call(found[0], line) is not None

    def call(self, shape: Shape, line: bytes) -> tuple[Record, re.Match[bytes]] | None:
        """The call that a line of this shape is; None: it is no whole one."""
        if shape not in self._calls:
            make_room(self._calls)
            self._calls[shape] = _whole_call(line)
        return self._calls[shape]

    def is_choice(self, line: bytes) -> bool:
        """Whether the line is one whole decision."""
        return self.whole_choice(line) is not None

    def whole_choice(self, line: bytes) -> tuple[Record, Choice] | None:
        """The decision that a line is, whatever stands before its prefix; None: no whole one."""
        if line not in self._whole:
            make_room(self._whole)
            found = list(lines.records(line))
            choice = lines.parse_choice(found[0].text) if len(found) == 1 else None
            self._whole[line] = (found[0], choice) if choice else None
        return self._whole[line]

    def choice(self, text: bytes) -> Choice | None:
        """The decision that the text of a record is; None: it is no whole one."""
        if text not in self._choices:
            make_room(self._choices)
            self._choices[text] = lines.parse_choice(text[: lines.MAX_TEXT_BYTES].rstrip(b"\r"))
        return self._choices[text]


def make_room(memory: dict[Any, Any]) -> None:
    """Forget everything where much is remembered."""
    if len(memory) >= _MAX_CACHED:
        memory.clear()


def _whole_call(line: bytes) -> tuple[Record, re.Match[bytes]] | None:
    found = list(lines.records(line))
    match = lines.CALL.fullmatch(found[0].text) if len(found) == 1 else None
    return (found[0], match) if match else None
