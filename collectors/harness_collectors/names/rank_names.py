"""The rank that the name of a file, or of its folder, gives.

Names of torch's trace handlers, vLLM, Megatron, torchtitan, TensorRT-LLM, accelerate and people's
own scripts. The rank within a node or within a parallel dimension (`local_rank1`, `tp_rank_1`) is
none: it says nothing about the others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_RANK = re.compile(
    r"(?<![a-z])(?:(?P<kind>[a-z]+)(?P<gap>[-_. ]?))?rank[-_ .=:]?\[?(?P<rank>\d{1,7})(?!\d)",
    re.IGNORECASE,
)
_WHOLE: Final = frozenset({"global", "world"})
"""Words that may be written together with `rank`."""
_PARTIAL = re.compile(
    r"local|node|host|group|gpu|cuda|device|[tpdcesm]p|[dp]cp|e[td]p|moe|tensor|pipeline|data|expert"
    r"|context|sequence|model|stage|shard|replica",
    re.IGNORECASE,
)
_WORKER = re.compile(r"(?<![a-z])worker[-_]?(?P<rank>\d{1,7})(?!\d)", re.IGNORECASE)
_OF = re.compile(
    r"(?:^|(?P<kind>[a-z]*)[-_. ])(?P<rank>\d{1,7})[-_ ]of[-_ ](?P<size>\d{1,7})(?!\d)",
    re.IGNORECASE,
)
_PIECES = re.compile(r"step|part|iter|iteration|epoch|batch|chunk|shard|cycle|split", re.IGNORECASE)
_ACCELERATE = re.compile(r"profile_(?P<rank>\d{1,5})\.json")
_FOLDER = re.compile(
    r"(?:(?:global|world)[-_]?)?(?:rank[-_ .=]?|worker[-_]?)(?P<rank>\d{1,7})", re.IGNORECASE
)


def rank_in_name(path: Path) -> int | None:
    """The rank in a file's name, else in the name of its folder; None: they do not say."""
    name = path.name
    for found in (_ranked(name), _matched(_WORKER, name), _of(name), _accelerate(name)):
        if found is not None:
            return found
    return spelled_rank(path)


def spelled_rank(path: Path) -> int | None:
    """The same where a word for it stands there: `rank3`, `worker3`; None: none does."""
    for found in (_ranked(path.name), _matched(_WORKER, path.name)):
        if found is not None:
            return found
    folder = _FOLDER.fullmatch(path.parent.name)
    return int(folder["rank"]) if folder else None


def _ranked(name: str) -> int | None:
    ranks: dict[bool, int] = {}
    for found in _RANK.finditer(name):
        kind = (found["kind"] or "").lower()
        partial = _PARTIAL.fullmatch(kind) or (kind and not found["gap"])
        if kind in _WHOLE or not partial:
            ranks.setdefault(kind in _WHOLE, int(found["rank"]))
    return ranks.get(True, ranks.get(False))


def _matched(pattern: re.Pattern[str], name: str) -> int | None:
    found = pattern.search(name)
    return int(found["rank"]) if found else None


def _of(name: str) -> int | None:
    """`trace-0-of-8`; counted from 0, as ranks are."""
    found = _OF.search(name)
    if found is None or _PIECES.fullmatch(found["kind"] or ""):
        return None
    return int(found["rank"]) if int(found["rank"]) < int(found["size"]) else None


def _accelerate(name: str) -> int | None:
    found = _ACCELERATE.match(name)
    return int(found["rank"]) if found else None
