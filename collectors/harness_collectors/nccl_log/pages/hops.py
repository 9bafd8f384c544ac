"""Transports and ring maps whose channel's number was taken out: few differ in anything else."""

from __future__ import annotations

import re
from typing import Final

from harness_collectors.nccl_log.grammar import lines
from harness_collectors.nccl_log.grammar.lines import Hop

_MAX_KEPT: Final = 1 << 16
_MAX_BYTES: Final = lines.MAX_TEXT_BYTES // 2
_NONE: Final = -1
_HOP: Final = re.compile(
    rb"^(?:(?:/(\d+))? : (\d{1,7})(?:\[\w+\])? -> (\d{1,7})(?:\[\w+\])?(?: \[(send|receive)\])?"
    rb" via ([^\n]{1,%d})|[^\n]*)$" % (_MAX_BYTES // 2),
    re.MULTILINE,
)
"""Connector, ranks, side and what stands behind ` via `, as `lines.parse_hop` reads them."""


class Hops:
    """What such lines say, numbered, and remembered by their text."""

    def __init__(self) -> None:
        self.values: list[Hop | str] = []
        """By number: a transport, or the ranks of a ring."""
        self._by_text: dict[bytes, int] = {}
        self._by_parts: dict[tuple[object, ...], int] = {}

    def relieve(self) -> None:
        """Forget everything if there is much. Call it where no number is in use."""
        if len(self._by_text) >= _MAX_KEPT:
            self.values, self._by_text, self._by_parts = [], {}, {}

    def numbers(self, texts: list[bytes]) -> list[int]:
        """What these distinct lines say; -1: nothing that is like others."""
        known, by_parts = self._by_text, self._by_parts
        new = [text for text in texts if text not in known]
        found = _HOP.findall(b"\n".join(new)) if new else ()
        for text, (conn, source, target, side, behind) in zip(new, found, strict=True):
            if not behind:
                known[text] = self._number_of_another(text)
                continue
            via = lines.parse_via(behind)
            parts = conn, source, target, side, via
            number = by_parts.get(parts)
            if number is None:
                number = by_parts[parts] = len(self.values) if via else _NONE
                if via:
                    self.values.append(lines.hop_of(conn, source, target, side, via))
            known[text] = number
        return [known[text] for text in texts]

    def _number_of_another(self, text: bytes) -> int:
        """What is no usual transport: a ring map, or nothing that is known."""
        ring = None
        if len(text) <= _MAX_BYTES and b" via " not in text:
            ring = lines.parse_ring(b"Channel 00" + text)
        if ring is None:
            return _NONE
        number = self._by_parts.setdefault((ring,), len(self.values))
        if number == len(self.values):
            self.values.append(ring)
        return number
