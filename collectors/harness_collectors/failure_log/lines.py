"""The lines of a log that may say why a run ended; bounded in what is read and kept."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness_schemas.redact import redact

HEAD_BYTES: Final = 1 << 20
END_BYTES: Final = 4 << 20
"""Of a file that is larger than both, the middle is not read: what ended a run stands at its end,
what kept it from starting at the beginning."""
MAX_LINES: Final = 2000
"""Kept of one file: the first and the last half of them."""
LAST_LINES: Final = 20
MAX_TEXT: Final = 2000
_PEEK: Final = 64 << 10

_KERNEL: Final = re.compile(r"NVRM: |oom-kill:|Out of memory: Kill|invoked oom-killer|pcieport ")
_RANK_FILE: Final = re.compile(r"(?:^|[^a-z])rank[-_]?(\d{1,6})(?!\d)", re.IGNORECASE)
_RANK_PREFIX: Final = re.compile(
    r"^\s*(?:\[\d{1,9}\] )?(?:\[rank(?P<torch>\d{1,6})\]:|\[\d{1,6},(?P<mpi>\d{1,6})\]<std\w+>:)"
)

FAILURE: Final = re.compile(
    r"""Traceback\ \(most\ recent|[a-z_]\w*(?:Error|Exception)\b|\berror[:\ ]
    |\b(?:fatal|panic|abort\w*)\b
    |out\ of\ memory|oom[_-]?kill|OOM\ Killed|memory\ limit|bad_alloc|CPUAllocator|allocate\ memory
    |NVRM:|\bXid\b|fallen\ off\ the\ bus|GPU\ is\ lost|uncorrectable\ ECC
    |no\ NVIDIA\ driver|NVIDIA\ driver|libcuda|CUDA_ERROR|CUDA-capable|CUDA\ GPUs
    |with\ CUDA\ enabled
    |version\ mismatch|CUDA\ driver\ version|CUBLAS_STATUS|CUDA\ fail|device-side\ assert
    |illegal\ memory
    |misaligned\ address|unspecified\ launch|forward\ compatibility
    |cannot\ open\ shared|loading\ shared\ libraries|undefined\ symbol|GLIBC
    |any\ device\ set|Bus\ error|shared\ memory|space\ left|quota\ exceeded
    |already\ in\ use|EADDRINUSE|Rendezvous|DistStore|waiting\ for\ clients|client\ socket\ has
    |No\ module\ named|Duplicate\ GPU|was\ killed\ by|killed\ by\ signal
    |atchdog|last\ enqueued|NCCL\ operations\ have|Timeout\ at\ NCCL
    |gloo.{0,200}(?:imed\ out|imeout)
    |DUE\ TO|CANCELLED|time\ limit|Node\ failure|requeued|PREEMPT
    |NCCL\ WARN|nccl\w*Error|NCCL\ error|unhandled\ (?:cuda|system)|from\ peer|async\ event
    |ibv_|IBV_
    |remote\ process\ exited|by\ (?:remote\ )?peer|KeyboardInterrupt
    |accounting\ storage|slurmdbd|talking\ to\ the\ database|Segmentation\ fault|core\ dumped""",
    re.VERBOSE | re.IGNORECASE,
)
"""Wider than the rules of the verdict, which decide: a test holds that each of theirs passes."""


@dataclass(frozen=True)
class Notable:
    """A line kept. `number`: from 1; None where only the file's end was read."""

    text: str
    number: int | None
    kind: str
    rank: int | None


def is_text(head: bytes) -> bool:
    """Whether bytes are text of no format: not binary, not JSON, not XML."""
    if not head or b"\x00\x00" in head or head.lstrip()[:1] in (b"{", b"<"):
        return False
    odd = sum(byte < 9 or 13 < byte < 27 for byte in head[:4096])
    return odd <= 8 + len(head[:4096]) // 50


def speaks_of_failure(path: Path, head: bytes) -> bool:
    """Whether the beginning or the end of a file holds a line that `FAILURE` matches."""
    if FAILURE.search(head.decode("utf-8", "replace")):
        return True
    try:
        size = path.stat().st_size
        if size <= len(head):
            return False
        with path.open("rb") as stream:
            stream.seek(max(0, size - _PEEK))
            return FAILURE.search(stream.read().decode("utf-8", "replace")) is not None
    except OSError:
        return False


def notable_lines(path: Path) -> list[Notable]:
    """The lines to keep, in the order of the file.

    Raises:
        OSError: it cannot be read.
    """
    rank = _RANK_FILE.search(path.name)
    of_file = int(rank[1]) if rank else None
    stderr = path.suffix in (".err", ".stderr") or path.parent.name == "logs"
    lines = list(_lines(path))
    last = {index for index, (_, text) in enumerate(lines) if text.strip()}
    last = set(sorted(last)[-LAST_LINES:])
    found = [
        _notable(text, number, of_file, stderr)
        for index, (number, text) in enumerate(lines)
        if index in last or FAILURE.search(text)
    ]
    half = MAX_LINES // 2
    return found if len(found) <= MAX_LINES else found[:half] + found[-half:]


def _notable(text: str, number: int | None, of_file: int | None, stderr: bool) -> Notable:
    prefix = _RANK_PREFIX.match(text)
    named = (prefix["torch"] or prefix["mpi"]) if prefix else None
    kind = "kernel" if _KERNEL.search(text) else "stderr" if stderr else "log"
    found = FAILURE.search(text, MAX_TEXT // 2)
    start = max(0, found.start() - MAX_TEXT // 2) if found and len(text) > MAX_TEXT else 0
    shown = redact(text)[start : start + MAX_TEXT]
    return Notable(shown, number, kind, int(named) if named else of_file)


def _lines(path: Path) -> Iterator[tuple[int | None, str]]:
    """Numbered lines of the head and, of a longer file, those of its end without numbers."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        head = _unpacked(path) if packed else stream.read(HEAD_BYTES + END_BYTES)
        size = len(head) if packed else path.stat().st_size
        if size > len(head):
            stream.seek(max(len(head), size - END_BYTES))
            tail = stream.read(END_BYTES)
        else:
            tail = b""
    for number, line in enumerate(head.split(b"\n"), 1):
        yield from ((number, text) for text in _rewritten(line))
    for line in tail.split(b"\n"):
        yield from ((None, text) for text in _rewritten(line))


def _unpacked(path: Path) -> bytes:
    data = bytearray()
    try:
        with gzip.open(path) as stream:
            while len(data) < HEAD_BYTES + END_BYTES and (part := stream.read1(1 << 16)):
                data += part
    except (OSError, EOFError, zlib.error):
        pass
    return bytes(data)


def _rewritten(line: bytes) -> Iterator[str]:
    """A progress bar writes over its line by carriage returns: each writing counts as a line."""
    for part in line.rstrip(b"\r").split(b"\r"):
        yield part[: 8 * MAX_TEXT].decode("utf-8", "replace")
