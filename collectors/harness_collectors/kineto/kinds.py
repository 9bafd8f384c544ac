"""Categories of activities, as versions of Kineto spell them, to kinds of rows."""

from __future__ import annotations

from typing import Final

from harness_collectors.names.classify import KINETO_KINDS

KINDS: Final = ("", "kernel", "memcpy", "memset", "runtime", "op", "annotation", "overhead")
KERNEL, MEMCPY, MEMSET, RUNTIME, OP, ANNOTATION, OVERHEAD = range(1, 8)
"""Codes of kinds in the column `kind`; 0 is what is not kept."""
_OTHER_CATS: Final = {
    "cpu_op": "op",
    "Operator": "op",
    "xpu_runtime": "runtime",
    "xpu_driver": "runtime",
    "mtia_runtime": "runtime",
    "privateuse1_runtime": "runtime",
    "privateuse1_driver": "runtime",
}
_NOT_KEPT: Final = frozenset({"gpu_user_annotation"})
"""Copies of host annotations stretched over the device: work is attributed by its launch."""


class _Kinds(dict[str, int]):
    def __missing__(self, cat: str) -> int:
        return 0


KIND_OF_CAT: Final = _Kinds(
    {
        cat: KINDS.index(kind)
        for cat, kind in {**KINETO_KINDS, **_OTHER_CATS}.items()
        if kind in KINDS and cat not in _NOT_KEPT
    }
)
