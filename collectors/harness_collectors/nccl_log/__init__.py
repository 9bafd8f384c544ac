"""NCCL debug logs: what NCCL says of its communicators, transports, choices and calls.

Formats of NCCL 2.4 to 2.30 and RCCL, from the print statements of the tagged sources and real
logs. A log holds calls, not intervals: collectives have sizes and an order but no times.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from harness_collectors.env_settings import keeping_the_users
from harness_collectors.nccl_log.beforehand import planned_world, recorded_ranks
from harness_collectors.options import option_problems
from harness_collectors.reading.text_evidence import DOCKER, JSON
from harness_schemas.spi import (
    Availability,
    Batch,
    CapturePlan,
    CaptureRequest,
    IngestContext,
    Part,
)

if TYPE_CHECKING:
    from harness_collectors.nccl_log.grammar.texts import Texts
    from harness_collectors.nccl_log.pages.pieces import Leaf

SUBSYSTEMS: Final = "INIT,ENV,GRAPH,COLL,TUNING"
_LEVELS: Final = ("INFO", "TRACE")
_KNOWN_SUBSYSTEMS: Final = (
    "INIT,COLL,P2P,SHM,NET,GRAPH,TUNING,ENV,ALLOC,ALLOC_HOST,CALL,PROXY,NVLS,BOOTSTRAP,REG,"
    "PROFILE,RAS,DESTROY,ALL"
)
_MARKS: Final = (
    b" NCCL INFO ",
    b" NCCL WARN ",
    b"NCCL version ",
    b"RCCL version ",
    b"ProcessGroupNCCL.cpp:",
)
_OPTIONS: Final = {"level": "INFO", "subsystems": SUBSYSTEMS, "stamps": True, "override": False}


class NcclLog:
    """NCCL's own log, one file a process."""

    name = "nccl_log"
    title = "NCCL debug logs"
    sources = ("nccl_log",)

    def check(self, device: str) -> Availability:
        """Available wherever NCCL runs: it only sets environment variables."""
        if device == "cpu":
            return Availability(False, "NCCL runs on GPUs only", "use device = cuda")
        kept = [f"{name}={os.environ[name]}" for name in _wanted({}, "") if name in os.environ]
        reason = f"your own settings are kept: {', '.join(kept)}" if kept else ""
        return Availability(True, reason, facts={"kept": kept})

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """`level`, `subsystems` (as NCCL spells them), `stamps` (times on lines), `override`."""
        problems = option_problems(given, _OPTIONS)
        options = {**_OPTIONS, **given}
        if options["level"] not in _LEVELS:
            problems.append(f"`level` is {options['level']!r}, not one of {', '.join(_LEVELS)}")
        names = options["subsystems"]
        words = str(names).upper().split(",")
        known = _KNOWN_SUBSYSTEMS.split(",")
        unknown = [word for word in words if word.strip().lstrip("^") not in known]
        if unknown:
            problems.append(f"`subsystems` names {', '.join(unknown)}, which NCCL does not have")
        if problems:
            raise ValueError("\n".join(problems))
        options["subsystems"] = ",".join(word.strip() for word in words)
        return options

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Ask NCCL for a log a process; what the user has set is kept, and said."""
        if request.device == "cpu":
            return CapturePlan()
        folder = request.run_dir / "artifacts" / self.name
        wanted = _wanted({**_OPTIONS, **request.options}, str(folder / "nccl.%h.%p.log"))
        return keeping_the_users(self.name, wanted, bool(request.options.get("override")))

    def recognise(self, path: Path, head: bytes) -> bool:
        """A line of NCCL or of PyTorch's NCCL watchdog, anywhere in the head."""
        if any(mark in head for mark in _MARKS):
            if DOCKER.match(head):
                return b'"stream":' in head
            return not (JSON.match(head) or head.startswith(b"\x80"))
        return head.startswith((b"NCCL WARN ", b"NCCL INFO "))

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of all files; they are read together, since ranks are known only by each other."""
        from harness_collectors.nccl_log.grammar.texts import Texts
        from harness_collectors.nccl_log.pages.pieces import read_pages

        texts = Texts()
        leaves = read_pages(sorted(files), "", texts, context.progress)
        yield from _rows(leaves, texts, context)

    def divide(self, files: Sequence[Path]) -> Sequence[Part]:
        """Parts of text, of about the same size; all in one where there is little."""
        from harness_collectors.nccl_log.pages.pieces import divide

        return divide(files)

    def read_part(self, part: Part, context: IngestContext) -> Iterator[Batch]:
        """What the lines of a part say, whatever stands before them."""
        from harness_collectors.nccl_log.grammar.texts import Texts
        from harness_collectors.nccl_log.pages.pieces import packed, read_pages

        with _no_collection():
            yield from packed(read_pages(part.files, part.step, Texts(), context.progress))

    def join(
        self, parts: Iterable[tuple[Part, Iterable[Batch]]], context: IngestContext
    ) -> Iterator[Batch]:
        """Rows of all parts, as `ingest` gives them."""
        from harness_collectors.nccl_log.grammar.texts import Texts
        from harness_collectors.nccl_log.pages.pieces import unpacked

        leaves = (leaf for part, batches in parts for leaf in unpacked(part, batches))
        yield from _rows(leaves, Texts(), context)


def _rows(leaves: Iterable[Leaf], texts: Texts, context: IngestContext) -> Iterator[Batch]:
    from harness_collectors.nccl_log.evidence.ledger import Ledger
    from harness_collectors.nccl_log.tables.calls import call_batches
    from harness_collectors.nccl_log.tables.resolve import resolve
    from harness_collectors.nccl_log.tables.rows import all_tables

    with _no_collection():
        evidence = Ledger(context.root, texts).filled(leaves)
        recorded = recorded_ranks(context.root)
        resolution = resolve(evidence, recorded, planned_world(context.run))
        tables, collection = all_tables(evidence, resolution)
    yield from tables
    yield from call_batches(evidence, resolution, "nccl_log")
    yield from collection


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leave out looking for cycles: all that is made here is kept, and looked through again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.freeze()
            gc.unfreeze()  # what is new counts as old now, and is not looked through at once
            gc.enable()


def _wanted(options: Mapping[str, Any], file: str) -> dict[str, str]:
    env = {
        "NCCL_DEBUG": str(options.get("level", "INFO")),
        "NCCL_DEBUG_SUBSYS": str(options.get("subsystems", SUBSYSTEMS)),
        "NCCL_DEBUG_FILE": file,
    }
    if options.get("stamps", True):
        # From 2.26.2 on; older versions take no notice. NCCL turns underscores into spaces.
        env["NCCL_DEBUG_TIMESTAMP_FORMAT"] = "[%s.%6f]_"
        env["NCCL_DEBUG_TIMESTAMP_LEVELS"] = "VERSION,WARN,INFO"
    return env


COLLECTOR = NcclLog()
