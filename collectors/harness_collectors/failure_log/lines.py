"""The lines of a log that may say why a run ended; bounded in what is read and kept."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness_collectors.failure_log.survived import RESUMED, survived
from harness_collectors.reading.text_evidence import as_utf8
from harness_collectors.reading.wrapped import is_wrapped, unwrapped
from harness_schemas.log_prefix import is_labelled, peeled
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
_LONGEST: Final = 16 << 10
_WEIGHED: Final = 600
"""Of a line's beginning, where it is only asked whether work goes on."""

_HOLES: Final = re.compile(rb"\x00{2,}")
_FEW_HOLES: Final = 3
_MARKUP: Final = re.compile(rb"\s*(?:\{\s*[\"}]|<(?![\w. -]{1,60}>:\d))")
"""JSON or XML; `{'loss': 0.1}` is what a program printed, `<stdin>:4:` a place in one."""
_KERNEL: Final = re.compile(r"NVRM: |oom-kill:|Out of memory: Kill|invoked oom-killer|pcieport ")
_RANK_FILE: Final = re.compile(r"(?:^|[^a-z])rank[-_]?(\d{1,6})(?!\d)", re.IGNORECASE)

WORDS: Final = (
    # Python, torch and the C library
    *(b"traceback (most recent", b"error", b"exception", b"fatal", b"panic", b"abort"),
    *(b"bad_alloc", b"cpuallocator", b"allocate memory", b"segmentation fault", b"core dumped"),
    *(b"cannot open shared", b"loading shared libraries", b"undefined symbol", b"glibc"),
    *(b"no module named", b"any device set", b"keyboardinterrupt", b"killed", b"too old"),
    *(
        b"root cause (",
        b"(local_rank: ",
        b"exitcode",
        b"exits with return code",
        b"exited on signal",
    ),
    *(b"illegal instruction", b"aborted", b"pthread_create", b"unavailable", b"pyxis: "),
    *(b"what():", b"termination of", b"exit code", b"exit string", b"failed to start", b"mpi_"),
    *(b"process name:", b"access fault", b"hsa_status", b"out of resource", b"non-zero"),
    *(b"no space", b"denied", b"gated repo", b"not found", b"no such file", b"got signal"),
    *(b"shared memory", b"space left", b"quota exceeded", b"already in use", b"eaddrinuse"),
    # memory and devices
    *(b"out of memory", b"oom_kill", b"oom-kill", b"oom killed", b"memory limit", b"nvrm:"),
    *(b"xid ", b"off the bus", b"gpu is lost", b"uncorrectable ecc", b"nvidia driver"),
    *(b"device handle",),
    *(b"libcuda", b"cuda-capable", b"cuda gpus", b"with cuda enabled", b"version mismatch"),
    *(b"cuda driver", b"cublas_status", b"cuda fail", b"device-side assert", b"illegal memory"),
    *(b"misaligned address", b"unspecified launch", b"forward compatibility"),
    # communication
    *(b"nccl warn", b"watchdog", b"last enqueued", b"nccl operations have", b"duplicate gpu"),
    *(b"gloo", b"rendezvous", b"diststore", b"waiting for clients", b"client socket has"),
    *(b"timeout", b"timed out", b"from peer", b"by peer", b"by remote peer", b"async event"),
    *(b"ibv_", b"remote process exited", b"unhandled cuda", b"unhandled system"),
    # Slurm
    *(b"due to", b"cancelled", b"time limit", b"node failure", b"requeued", b"preempt"),
    *(b"accounting storage", b"slurmdbd", b"talking to the database"),
    # other schedulers, launchers and services
    *(b"job killed", b"term_", b"low on resource", b"notready", b"not ready", b"unreachable"),
    *(b"interruption", b"lost communication", b"could not find", b"is unknown", b"are unknown"),
    *(b"device type", b"unable to locate", b"communicator data", b"have launched up to"),
    *(b" managed by process ", b"kv cache memory", b"free memory on device", b"hip gpus"),
    *(b"gpu reset", b"death signal", b"received by pid", b" mismatch", b" incomplete"),
    *(b"  running ", b"imagepull", b"pull image", b"memory limit", b"memory budget"),
    *(b"unexpectedly failed", b"kernel image"),
    *(b"memory pressure", b"oom_score", b"exit_status", b"oom killer", b"exited with", b"died "),
    *(b"hang detected", b"device inaccessible", b"this job is "),
    *(b"not enough slots", b"didn't join", b"didn't finish", b"lagging ranks", b"missing ranks"),
    *(b"not all ranks", b"pmi support", b"connect to host", b"as a result of limit"),
    *(b"  time      : ", b"is dead", b"marked dead", b"deadline_exceeded"),
    *(b"make: ***", b"]: ***", b"build stopped", b"remainder of ranks", b"stalled ops"),
    *(b"ready ranks", b"received signal", b"times out", b".unsupported"),
    *(b"status failed", b"crashed", b"failed for slice", b"kvcache from", b"nixl_err"),
    *(b"kvtransfererror",),
)
"""In small letters, without digits. Wider than the rules of the verdict, which decide: a test holds
that each line that they explain has one. Searched one by one, which is 40 times as fast as one
expression."""


_DIGITS: Final = b"0123456789"
_CONTROL: Final = bytes([*range(9), *range(14, 27)])

SURVIVED: Final = "survived"
"""Kind of a line about a failure after which the work went on."""


@dataclass(frozen=True)
class Notable:
    """A line kept. `number`: from 1; None where only the file's end was read."""

    text: str
    number: int | None
    kind: str
    rank: int | None


def is_text(head: bytes) -> bool:
    """Whether bytes are text of no format: not binary, not JSON, not XML."""
    holes = _HOLES.findall(head[:_PEEK]) if b"\x00\x00" in head else []
    if 0 < len(holes) <= _FEW_HOLES:  # what a crash, or a log cut under its writer, leaves
        head = _HOLES.sub(b"", head)
    if not head or b"\x00\x00" in head or (_MARKUP.match(head) and not is_wrapped(head)):
        return False
    sample = head[:4096]
    odd = len(sample) - len(sample.translate(None, _CONTROL))
    return odd <= 8 + len(sample) // 50


def speaks(text: bytes) -> bool:
    """Whether any of `WORDS` is in it.

    Lines of programs differ in numbers mostly: without digits few are left to search in.
    """
    small = text.lower()
    lines = b"\n".join(set(small.translate(None, _DIGITS).split(b"\n")))
    return any(word in lines and word in small for word in WORDS)


def speaks_of_failure(path: Path, head: bytes) -> bool:
    """Whether the beginning or the end of a file holds any of `WORDS`."""
    if speaks(unwrapped(head)):
        return True
    try:
        size = path.stat().st_size
        if size <= len(head):
            return False
        with path.open("rb") as stream:
            stream.seek(max(0, size - _PEEK))
            return speaks(stream.read())
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
    kind = "stderr" if stderr else "log"
    head, tail = _read(path)
    if is_wrapped(head):  # of the end the first record is cut
        tail = tail.partition(b"\n")[2]
    return notable(unwrapped(head), unwrapped(tail), kind, of_file)


def notable(
    head: bytes, tail: bytes = b"", kind: str = "log", of_file: int | None = None
) -> list[Notable]:
    """The lines to keep of a text, or of the beginning and the end of a longer one."""
    found = [(start, number, text) for start, number, text in _kept(head, not tail)]
    found += [(len(head) + 1 + start, None, text) for start, _, text in _kept(tail, True)]
    half = MAX_LINES // 2
    if len(found) > MAX_LINES:
        found = found[:half] + found[-half:]
    labelled = is_labelled(_first_lines(head))
    outlived = _outlived(head + b"\n" + tail, labelled) if found else frozenset()
    return [
        _notable(text, number, of_file, SURVIVED if start in outlived else kind, labelled)
        for start, number, text in found
    ]


def _outlived(block: bytes, labelled: bool) -> frozenset[int]:
    """Where lines start that tell of a failure after which the work went on."""
    lines = block.replace(b"\r", b"\n")
    telling = _starts(lines)
    if not telling or lines.count(b"\n", min(telling)) < RESUMED:
        return frozenset()
    starts: list[int] = []
    said: list[tuple[int | None, str]] = []
    start = 0
    for line in lines.split(b"\n"):
        if line.strip():
            text, rank = peeled(line[:_WEIGHED].decode("utf-8", "replace"), labelled)
            starts.append(start)
            said.append((rank, text))
        start += len(line) + 1
    told = [place for place, start in enumerate(starts) if start in telling]
    return frozenset(starts[place] for place in survived(said, told, _tells))


def _tells(text: str) -> bool:
    return speaks(text.encode("utf-8", "replace"))


def _first_lines(head: bytes) -> list[str]:
    lines = head[:_PEEK].replace(b"\r", b"\n").decode("utf-8", "replace").split("\n")
    return [line for line in lines[: 400 if len(lines) > 400 else None] if line.strip()]


def _kept(block: bytes, is_end: bool) -> Iterator[tuple[int, int | None, str]]:
    """(start, number, text) of lines with a word in them and, at a file's end, of the last lines.

    A progress bar writes over its line by carriage returns: each writing counts as a line.
    """
    lines = block.replace(b"\r", b"\n").replace(b"\0", b" ")
    starts = _starts(lines)
    if is_end:
        starts |= _last_starts(lines)
    number, counted = 1, 0
    for start in sorted(starts):
        number += block.count(b"\n", counted, start)
        counted = start
        end = lines.find(b"\n", start)
        text = lines[start : len(lines) if end < 0 else end]
        if text.strip():
            yield start, number, text.decode("utf-8", "replace")


def _starts(lines: bytes) -> set[int]:
    """Where lines begin that hold one of `WORDS`, the first and last of each word."""
    small = lines.lower()
    starts: set[int] = set()
    for word in WORDS:
        found: list[int] = []
        place = small.find(word)
        while place >= 0:
            found.append(small.rfind(b"\n", 0, place) + 1)
            end = small.find(b"\n", place)
            place = small.find(word, end) if end >= 0 else -1
        starts.update(found[:MAX_LINES], found[-MAX_LINES:])
    return starts


def _last_starts(lines: bytes) -> set[int]:
    starts: set[int] = set()
    end = len(lines.rstrip())
    while end > 0 and len(starts) < LAST_LINES:
        start = lines.rfind(b"\n", 0, end) + 1
        if lines[start:end].strip():
            starts.add(start)
        end = start - 1
    return starts


def _notable(
    text: str, number: int | None, of_file: int | None, kind: str, labelled: bool
) -> Notable:
    bare, named = peeled(text[:_LONGEST], labelled)
    kind = "kernel" if kind != SURVIVED and _KERNEL.search(text) else kind
    shown = _around(redact(bare if labelled else text[:_LONGEST]))
    return Notable(shown, number, kind, of_file if named is None else named)


def _around(text: str) -> str:
    """At most `MAX_TEXT` of a line, with the first of `WORDS` in it: a log can be glued to one."""
    if len(text) <= MAX_TEXT:
        return text
    small = text.lower()
    places = [place for word in WORDS if (place := small.find(word.decode())) >= 0]
    start = max(0, min(places, default=0) - MAX_TEXT // 4)
    return text[start : start + MAX_TEXT]


def _read(path: Path) -> tuple[bytes, bytes]:
    """The beginning of a file, and of a longer one its end."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        head = _unpacked(path) if packed else stream.read(HEAD_BYTES + END_BYTES)
        size = len(head) if packed else path.stat().st_size
        if size <= len(head):
            return as_utf8(head), b""
        stream.seek(max(len(head), size - END_BYTES))
        return as_utf8(head), stream.read(END_BYTES)


def _unpacked(path: Path) -> bytes:
    data = bytearray()
    try:
        with gzip.open(path) as stream:
            while len(data) < HEAD_BYTES + END_BYTES and (part := stream.read1(1 << 16)):
                data += part
    except (OSError, EOFError, zlib.error):
        pass
    return bytes(data)
