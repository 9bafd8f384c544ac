"""What collectors of text files share: bounded reading, batches, the state of a collection."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness_schemas.spi import Batch
from harness_schemas.tables import BY_NAME, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

GZIP_MAGIC: Final = b"\x1f\x8b"
MAX_TEXT_BYTES: Final = 256 << 20
"""Nobody's accounting is larger; a gzip bomb is."""
_READ_BYTES: Final = 1 << 20
DOCKER: Final = re.compile(rb"\s*\{\"log\": ?\"")
"""Docker's own file of what a container printed: a JSON object a line."""
_DOCKED: Final = re.compile(
    rb'^\{"log":"((?:[ !#-\[\]-~]++|\\u00(?:1b|26|3c|3e)|\\t)*+)\\n",'
    rb'"stream":"[a-z]++","time":"[\w:.+-]++"\}\n',
    re.MULTILINE,
)
"""Such a line without what is seldom escaped in it."""
_ESCAPED: Final = (
    (b"\\u001b", b"\x1b"),
    (b"\\u003c", b"<"),
    (b"\\u003e", b">"),
    (b"\\u0026", b"&"),
    (b"\\t", b"\t"),
)
JSON: Final = re.compile(rb"\s*\{\s*[\"}]")
"""`{'loss': 0.1}` is what a program printed."""


@dataclass(frozen=True)
class Text:
    """A file's text. `size` is in bytes as stored; `cut`: it went on, or its gzip was torn."""

    text: str
    size: int
    cut: bool


def as_utf8(data: bytes) -> bytes:
    """Text without a byte order mark, recoded where that says UTF-16 (as PowerShell writes)."""
    if data.startswith(codecs.BOM_UTF8):
        return data[len(codecs.BOM_UTF8) :]
    for mark, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace").encode()
    return data


def undocked(block: bytes) -> bytes:
    """What a container printed, out of Docker's JSON lines; of a line that was cut, nothing."""
    if not DOCKER.match(block):
        return block
    usual = _DOCKED.findall(block)
    if len(usual) == block.count(b"\n") and block.endswith(b"\n"):
        text = b"".join([line + b"\n" for line in usual])
        if b"\\" in text:
            for escaped, sign in _ESCAPED:
                text = text.replace(escaped, sign)
        return text
    said = []
    for line in block.split(b"\n"):
        try:
            text = json.loads(line)["log"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        said.append(text if isinstance(text, str) else "")
    return "".join(said).encode("utf-8", "replace")


def read_text(path: Path, limit: int = MAX_TEXT_BYTES) -> Text:
    """Read a file, gzipped or not, up to `limit` decoded bytes; what is no UTF becomes U+FFFD.

    A torn gzip gives the part before the tear.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(2) == GZIP_MAGIC:
            data, cut = _inflate(path, limit + 1)
        else:
            stream.seek(0)
            data, cut = stream.read(limit + 1), False
    return Text(as_utf8(data[:limit]).decode("utf-8", "replace"), size, cut or len(data) > limit)


def _inflate(path: Path, limit: int) -> tuple[bytes, bool]:
    """Up to `limit` decoded bytes, and whether the stream was torn."""
    data = bytearray()
    with gzip.open(path) as stream:
        try:
            while len(data) < limit and (part := stream.read1(_READ_BYTES)):
                data += part
        except (EOFError, OSError, zlib.error):
            return bytes(data), True
    return bytes(data), False


def batch(table: str, rows: Iterable[Mapping[str, Any]]) -> Batch:
    """Rows as a batch with the types of `harness_schemas.tables`; unnamed columns are left out.

    A number that its column cannot hold is damage, and becomes NULL.
    """
    listed = list(rows)
    used = {name: None for row in listed for name in row}
    return batch_of(table, {name: [row.get(name) for row in listed] for name in used})


def batch_of(table: str, columns: Mapping[str, Sequence[Any]]) -> Batch:
    """The same of columns by name, of one length."""
    import pyarrow as pa

    fields = [item for item in arrow_schema(BY_NAME[table]) if item.name in columns]
    arrays = [_column(columns[item.name], item.type) for item in fields]
    return Batch(table, pa.Table.from_arrays(arrays, schema=pa.schema(fields)))


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        limit = {pa.int32(): 1 << 31, pa.int64(): 1 << 63}.get(kind)
        return pa.array([_storable(value, limit) for value in values], kind)


def _storable(value: Any, limit: int | None) -> Any:
    if isinstance(value, int) and limit is not None and not -limit <= value < limit:
        return None
    if isinstance(value, str) and not value.isascii():  # JSON can hold halves of characters
        return value.encode("utf-8", "replace").decode("utf-8")
    return value


@dataclass
class Tally:
    """How one host's evidence of a collector fared; becomes a row of `collection`."""

    collector: str
    host: str | None = None
    bytes: int = 0
    records: int = 0
    unreadable: int = 0
    state: str = ""
    reason: str = ""

    def row(self, detail: Mapping[str, Any]) -> dict[str, Any]:
        """The row; without a state of its own it is ok, degraded (part unreadable) or failed."""
        state, reason = self.state, self.reason
        if not state and not self.records:
            state, reason = "failed", reason or "nothing readable in the evidence"
        elif not state and self.unreadable:
            state = "degraded"
            reason = reason or f"{self.unreadable} lines or records could not be read"
        return {
            "collector": self.collector,
            "host": self.host,
            "state": state or "ok",
            "reason": reason or None,
            "bytes": self.bytes,
            "records": self.records,
            "unreadable": self.unreadable,
            "detail": json.dumps(detail, sort_keys=True),
        }


def host_of(path: Path, collector: str) -> str | None:
    """The host of a file in `artifacts/<collector>/<host>/`; None elsewhere."""
    parts = path.parts
    for index in range(len(parts) - 3):
        if parts[index] == "artifacts" and parts[index + 1] == collector:
            return parts[index + 2]
    return None


def by_host(files: Iterable[Path], collector: str) -> list[tuple[str | None, list[Path]]]:
    """Files by the host whose they are: those of none first, each once and in order."""
    found: dict[str | None, list[Path]] = {}
    for path in sorted(set(files)):
        found.setdefault(host_of(path, collector), []).append(path)
    return sorted(found.items(), key=lambda item: item[0] or "")


def number_in_name(path: Path, label: str) -> int | None:
    """The number after `label-` in a file's name, as in `rank-00003` or `pid-812`."""
    match = re.search(rf"(?:^|[._-]){label}-(\d{{1,9}})(?!\d)", path.name)
    return int(match[1]) if match else None
