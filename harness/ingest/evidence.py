"""Which collector reads which file: evidence is recognised by its content."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.registry import all_collectors
from harness_collectors.reading.foreign import known_format
from harness_collectors.reading.text_evidence import as_utf8
from harness_schemas.spi import Collector

HEAD_BYTES = 64 << 10
_PACKED = (
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"7z\xbc\xaf", "7-Zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
_GZIP = 31  # zlib's wbits for a gzip header
SKIPPED_NAMES = frozenset({"run.json", "plan.json", "run.duckdb", "report.html", "harness.log"})

_OF_RECORDER = re.compile(r"rank-\d{5}\.")
"""Files that its reader finds beside the one that it recognises."""

Evidence = dict[str, tuple[Collector, list[Path]]]


@dataclass(frozen=True)
class Unread:
    """A file that no collector gets, and why."""

    path: Path
    why: str


def find_evidence(paths: Iterable[Path]) -> Evidence:
    """Files by the collector that recognises them, in the order of the registry."""
    return survey(paths)[0]


def survey(paths: Iterable[Path]) -> tuple[Evidence, list[Unread]]:
    """`find_evidence`, and what of the rest a user may have meant to be read.

    The order of a collector's files is that of their names, whatever the order of `paths`. Files
    in run folders that are no evidence are ours, and not told of.
    """
    collectors = all_collectors()
    found: Evidence = {}
    unread: list[Unread] = []
    in_run = cache(_in_run)
    for path in sorted(_once(_walk(paths, unread))):
        head = read_head(path)
        readers = list(_readers(collectors, path, head))
        for collector in readers:
            found.setdefault(collector.name, (collector, []))[1].append(path)
        if not readers and not in_run(path.parent) and not _OF_RECORDER.match(path.name):
            unread.append(Unread(path, _why_unread(path, head)))
    return {c.name: found[c.name] for c in collectors if c.name in found}, unread


def _in_run(folder: Path) -> bool:
    return any((each / "run.json").is_file() for each in (folder, *folder.parents))


def run_folders(evidence: Evidence) -> list[Path]:
    """Run folders that the recorder's files among the evidence lie in, each once."""
    _, files = evidence.get("app_timers", (None, []))
    parents = dict.fromkeys(path.resolve().parent for path in files)
    nearest = (
        next((f for f in (parent, *parent.parents) if (f / "run.json").is_file()), None)
        for parent in parents
    )
    return [folder for folder in dict.fromkeys(nearest) if folder is not None]


def _why_unread(path: Path, head: bytes) -> str:
    try:
        with path.open("rb") as stream:
            stored = stream.read(8)
    except OSError as error:
        return error.strerror or type(error).__name__
    if not stored:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS: fetch the file itself (git lfs pull)"
    packed = next((name for magic, name in _PACKED if stored.startswith(magic)), None)
    packed = "tar" if head[257:262] == b"ustar" else packed
    if packed:
        return f"packed by {packed}: unpack it first (gzip is read as it is)"
    return known_format(head) or "recognised by no collector"


def _readers(collectors: list[Collector], path: Path, head: bytes) -> Iterator[Collector]:
    """The first that recognises the file, and those that read its files too (`beside`)."""
    first = next((c for c in collectors if _recognises(c, path, head)), None)
    if first is None:
        return
    yield first
    for other in collectors:
        if first.name in getattr(other, "beside", ()) and _recognises(other, path, head):
            yield other


def _recognises(collector: Collector, path: Path, head: bytes) -> bool:
    try:
        return collector.recognise(path, head)
    except Exception:  # noqa: BLE001 - one reader's defect must not cost the others' evidence
        return False


def _walk(paths: Iterable[Path], unread: list[Unread]) -> Iterator[Path]:
    def refused(error: OSError) -> None:
        unread.append(Unread(Path(error.filename), error.strerror or type(error).__name__))

    for path in paths:
        if path.is_dir():
            inside_run = (path / "run.json").is_file()
            for folder, names, files in os.walk(path, onerror=refused):
                if inside_run:  # an earlier attempt, a task of an array: runs of their own
                    names[:] = [n for n in names if not (Path(folder) / n / "run.json").is_file()]
                names.sort()
                for name in sorted(files):
                    if name not in SKIPPED_NAMES:
                        yield Path(folder) / name
        else:
            yield path


def _once(paths: Iterable[Path]) -> Iterator[Path]:
    """Ordinary files, each once, however many names lead to it; a pipe would be waited for."""
    seen = set()
    for path in paths:
        try:
            facts = path.stat()
        except OSError:  # a broken link, or one that leads to itself
            continue
        if stat.S_ISREG(facts.st_mode) and (facts.st_dev, facts.st_ino) not in seen:
            seen.add((facts.st_dev, facts.st_ino))
            yield path


def read_head(path: Path) -> bytes:
    """The first 64 KiB of a file, decompressed where it is gzip, as UTF-8 where it is UTF-16.

    Of a torn gzip file what stands before the tear; empty where unreadable.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return b""
    if head.startswith(b"\x1f\x8b"):
        # Not through gzip, which gives nothing of a short file without its end.
        with contextlib.suppress(zlib.error):
            head = zlib.decompressobj(_GZIP).decompress(head, HEAD_BYTES)
    return as_utf8(head)
