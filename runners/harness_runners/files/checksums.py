"""Checksums of a model's weights: what its source wrote down, and what the files really hold.

    python -m harness_runners.files.checksums --plan plan.json

Known sums come from, in this order: a file `SHA256SUMS` (or `*.sha256`) in the folder, as
sha256sum(1) writes it; what `hf download --local-dir` leaves in `.cache/huggingface/download`
(second line of `<file>.metadata`: the etag, which is the SHA-256 of a large file); the names of
the blobs that a Hugging Face cache's links point to.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness_runners.model.checkpoint import tensor_files
from harness_runners.model.convert import bin_files
from harness_runners.plan import RunPlan, needs_conversion
from harness_schemas.errors import ExitCode, HarnessError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_LINE = re.compile(r"^\\?([0-9a-fA-F]{64}) [ *](.+)$", re.MULTILINE)
THREADS = 8
"""Files that are read at once: one core hashes 0.5 to 2 GB/s, a parallel file system gives more."""


@dataclass(frozen=True)
class Summed:
    """A file that was read: its SHA-256, the one that is known of it (None: none), and when."""

    path: Path
    sha256: str
    known: str | None
    num_bytes: int
    start_ns: int
    end_ns: int

    @property
    def wrong(self) -> bool:
        """Whether it differs from what is known."""
        return self.known is not None and self.known != self.sha256


def weight_files(folder: Path) -> list[Path]:
    """The files of a model's weights.

    Raises:
        UsageError: there are none, or one that the index names is absent.
    """
    if needs_conversion(folder):
        return [folder / name for name in bin_files(folder)]
    return sorted(set(tensor_files(folder).values()))


def known_sums(folder: Path, files: Iterable[Path]) -> dict[Path, str]:
    """The sums that the model's source wrote down, of those files that have one."""
    listed = _listed(folder)
    found = {file: listed.get(file.name) or _of_download(file) or _of_blob(file) for file in files}
    return {file: known for file, known in found.items() if known}


def _listed(folder: Path) -> dict[str, str]:
    sums: dict[str, str] = {}
    for path in sorted({*folder.glob("SHA256SUMS*"), *folder.glob("*.sha256")}):
        for value, name in _LINE.findall(path.read_text(errors="replace")):
            sums[name.strip().removeprefix("./")] = value.lower()
    return sums


def _of_download(file: Path) -> str | None:
    beside = file.parent / ".cache" / "huggingface" / "download" / f"{file.name}.metadata"
    try:
        etag = beside.read_text().splitlines()[1].strip().strip('"')
    except (OSError, IndexError, UnicodeDecodeError):
        return None
    return etag if _SHA256.fullmatch(etag) else None


def _of_blob(file: Path) -> str | None:
    name = file.resolve().name if file.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def sum_files(files: Iterable[Path], known: Mapping[Path, str]) -> Iterator[Summed]:
    """Read every file once, several at a time.

    Raises:
        OSError: one cannot be read.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(lambda file: _sum(file, known.get(file)), files)


def _sum(file: Path, known: str | None) -> Summed:
    start = time.monotonic_ns()
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        size = stream.tell()
    return Summed(file, digest, known, size, start, time.monotonic_ns())


def main(argv: list[str] | None = None) -> int:
    """Check the weights of a plan; each file's reading is a span of category io of the run."""
    parser = argparse.ArgumentParser(prog="harness_runners.files.checksums")
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the run")
    try:
        return _check(RunPlan.read(parser.parse_args(argv).plan))
    except HarnessError as error:
        sys.stderr.write(f"harness: {error.message}\n")
        return error.exit_code


def _check(plan: RunPlan) -> int:
    from harness_runners.rank.telemetry import Telemetry

    folder = Path(plan.model.source or plan.model.folder)
    files = weight_files(folder)
    known = known_sums(folder, files)
    trace = Telemetry(plan.run.spans / "checksums.otel.jsonl", "checksums", time.monotonic_ns())
    try:
        done = list(sum_files(files, known))
    except OSError as error:
        raise HarnessError(f"{error.filename}: {error.strerror}", "", ExitCode.NOT_READY) from None
    for one in done:
        fields = {"category": "io", "op": "read", "bytes": one.num_bytes, "path": str(one.path)}
        trace.add("checksum", one.start_ns, one.end_ns, **fields)
    trace.close()
    problem = complaint(done)
    if problem:
        raise HarnessError(problem, "", ExitCode.NOT_READY)
    return 0


def complaint(done: Iterable[Summed]) -> str | None:
    """What is wrong with files that were read, in one sentence; None: all are as they should be."""
    done = list(done)
    wrong = [one.path.name for one in done if one.wrong]
    unknown = [one.path.name for one in done if one.known is None]
    if wrong:
        return f"{len(wrong)} of {len(done)} weight files differ from their checksums: {wrong[0]}"
    if unknown:
        return f"no checksum is known of {len(unknown)} of {len(done)} weight files: {unknown[0]}"
    return None


if __name__ == "__main__":
    sys.exit(main())
