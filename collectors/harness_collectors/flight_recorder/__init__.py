"""PyTorch Flight Recorder: the last collectives of every rank, dumped when one hangs or at the end.

Format: torch/csrc/distributed/c10d/FlightRecorder, versions 1 to 2.10, pickled or JSON. Pickles
are read by a machine that knows plain containers only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness_collectors.env_settings import keeping_the_users
from harness_collectors.options import option_problems
from harness_schemas.spi import (
    Availability,
    Batch,
    CapturePlan,
    CaptureRequest,
    IngestContext,
    RankHookSpec,
    UnitKey,
)

NAME: Final = "flight_recorder"
_OPTIONS: Final = {"entries": 2000, "timing": False, "at_end": True, "override": False}
_MARKS: Final = (b"collective_seq_id", b"profiling_name", b"pg_config")
_PICKLE: Final = b"\x80"


class FlightRecorder:
    """What torch.distributed issued last, and what of it never ended."""

    name = NAME
    title = "PyTorch Flight Recorder dumps"
    sources = (NAME,)

    def check(self, device: str) -> Availability:
        """Always available: it is part of torch.distributed."""
        return Availability(True)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """`entries` kept a rank, `timing` (durations; costs events), `at_end`, `override`."""
        problems = option_problems(given, _OPTIONS)
        options = {**_OPTIONS, **given}
        if isinstance(options["entries"], int) and options["entries"] < 1:
            problems.append(f"`entries` is {options['entries']}, less than 1")
        if problems:
            raise ValueError("\n".join(problems))
        return options

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Have it record, dump when the watchdog gives up, and dump once more at the end.

        Both spellings of each variable are set: torch renamed them.
        """
        options = {**_OPTIONS, **request.options}
        prefix = str(request.run_dir / "artifacts" / NAME / "timeout_rank_")
        wanted = {
            "TORCH_FR_BUFFER_SIZE": str(options["entries"]),
            "TORCH_NCCL_TRACE_BUFFER_SIZE": str(options["entries"]),
            "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
            "TORCH_FR_DUMP_TEMP_FILE": prefix,
            "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": prefix,
        }
        if options["timing"]:
            wanted["TORCH_NCCL_ENABLE_TIMING"] = "1"
        plan = keeping_the_users(NAME, wanted, bool(options["override"]))
        hooks = (RankHookSpec(f"{__name__}:DumpHook"),) if options["at_end"] else ()
        return CapturePlan(plan.env, rank_hooks=hooks, notes=plan.notes)

    def recognise(self, path: Path, head: bytes) -> bool:
        """A pickle or an object that speaks of collectives as only the recorder does."""
        if head[:1] not in (_PICKLE, b"{"):
            return False
        if b"profiling_name" in head and b"time_created" in head:
            return True
        return b"entries" in head and any(mark in head for mark in _MARKS)

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of all dumps, in the order of their names."""
        from harness_collectors.flight_recorder.rows import all_batches

        yield from all_batches(sorted(files), context.root)


class DumpHook:
    """Writes a rank's dump when the rank ends (harness_schemas.spi.RankHook)."""

    name = NAME

    def start(self, rank: int, world_size: int, folder: Path) -> None:
        """Learn where to write."""
        self._path: Path | None = folder / f"end_rank_{rank}"

    def before_unit(self, key: UnitKey) -> str | None:
        """Nothing to do: the recorder is torch's, and always on."""
        return None

    def after_unit(self, key: UnitKey) -> None:
        """Nothing to do."""

    def pause(self) -> None:
        """Nothing to do."""

    def stop(self) -> None:
        """Dump once; idempotent."""
        path, self._path = self._path, None
        if path is not None:
            dump = _take_dump()
            if dump:
                path.write_bytes(dump)


def _take_dump() -> bytes:
    """The pickled dump of this process: NCCL's recorder, else the common one; empty: none."""
    import torch

    functions = getattr(torch._C, "_distributed_c10d", None)
    for name in ("_dump_nccl_trace", "_dump_fr_trace"):
        function = getattr(functions, name, None)
        dump = function() if function is not None else b""
        if b"profiling_name" in dump:
            return bytes(dump)
    return b""


COLLECTOR = FlightRecorder()
