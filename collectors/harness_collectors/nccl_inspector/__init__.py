"""NCCL Inspector: NCCL's own profiler plugin (from 2.28.3 on), JSON records a communicator.

Format: plugins/profiler/inspector of the NCCL sources, output versions v4.0 to v4.3. Records
carry durations measured on the GPU; points in time only with the verbose trace, seen by the host.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness_collectors.env_settings import keeping_the_users
from harness_collectors.options import option_problems
from harness_schemas.spi import Availability, Batch, CapturePlan, CaptureRequest, IngestContext

PLUGIN: Final = "libnccl-profiler-inspector.so"
_OPTIONS: Final = {
    "plugin": "",
    "interval_us": 100_000,
    "ring": 65_536,
    "verbose": True,
    "override": False,
}
_MARKS: Final = (b'"coll_perf"', b'"p2p_perf"', b'"dump_stats"')


class NcclInspector:
    """Sizes and durations of NCCL's collectives, from within NCCL: graph replays included."""

    name = "nccl_inspector"
    title = "NCCL Inspector records"
    sources = ("nccl_inspector",)

    def check(self, device: str) -> Availability:
        """Available where the plugin's library is found."""
        if device == "cpu":
            return Availability(False, "NCCL runs on GPUs only", "use device = cuda")
        path = find_plugin()
        if path is None:
            return Availability(
                False,
                f"{PLUGIN} not found",
                "build plugins/profiler/inspector of the NCCL sources (2.28.3 or later) and set "
                "NCCL_PROFILER_PLUGIN to it",
            )
        return Availability(True, facts={"plugin": path})

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """`plugin` (path), `interval_us` (of dumps), `ring` (records), `verbose`, `override`."""
        problems = option_problems(given, _OPTIONS)
        options = {**_OPTIONS, **given}
        for name, least in (("interval_us", 0), ("ring", 1)):
            if isinstance(options[name], int) and options[name] < least:
                problems.append(f"`{name}` is {options[name]}, less than {least}")
        if problems:
            raise ValueError("\n".join(problems))
        return options

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """Load the plugin and have it keep everything.

        Its own minimum size of 8192 bytes would silently leave out the all-reduces of decode
        steps of small models, its ring of 1024 records those of a few steps.
        """
        if request.device == "cpu":
            return CapturePlan()
        options = {**_OPTIONS, **request.options}
        wanted = {
            "NCCL_PROFILER_PLUGIN": str(options["plugin"] or find_plugin() or PLUGIN),
            "NCCL_INSPECTOR_ENABLE": "1",
            "NCCL_INSPECTOR_DUMP_DIR": str(request.run_dir / "artifacts" / self.name),
            "NCCL_INSPECTOR_DUMP_THREAD_INTERVAL_MICROSECONDS": str(options["interval_us"]),
            "NCCL_INSPECTOR_DUMP_MIN_SIZE_BYTES": "0",
            "NCCL_INSPECTOR_DUMP_COLL_RING_SIZE": str(options["ring"]),
            "NCCL_INSPECTOR_DUMP_P2P_RING_SIZE": str(options["ring"]),
            "NCCL_INSPECTOR_DUMP_VERBOSE": "1" if options["verbose"] else "0",
            "NCCL_INSPECTOR_REQUIRE_KERNEL_TIMING": "0",
        }
        plan = keeping_the_users(self.name, wanted, bool(options["override"]))
        return CapturePlan(plan.env, notes=plan.notes, exclusive=frozenset({"nccl_profiler"}))

    def recognise(self, path: Path, head: bytes) -> bool:
        """An object with a header or metadata and one of the bodies."""
        return head.lstrip()[:1] in (b"{", b"[") and any(mark in head for mark in _MARKS)

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of all files; they are read together, since ranks are known only by each other."""
        from harness_collectors.nccl_inspector.rows import all_batches
        from harness_collectors.nccl_inspector.state import Records, read_file

        records = Records()
        for path in sorted(files):
            read_file(records, path, context.root)
        yield from all_batches(records, context)


def find_plugin() -> str | None:
    """Path of the plugin: the user's own setting, else from the places of libraries."""
    own = os.environ.get("NCCL_PROFILER_PLUGIN", "")
    if "inspector" in own:
        return own
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        path = Path(folder or ".") / PLUGIN
        if folder and path.is_file():
            return str(path)
    return None


COLLECTOR = NcclInspector()
