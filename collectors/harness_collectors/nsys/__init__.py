"""Nsight Systems: wraps ranks in `nsys profile`, and reads reports and exports of anyone's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness_collectors.nsys import command
from harness_schemas.spi import (
    Availability,
    Batch,
    CapturePlan,
    CaptureRequest,
    IngestContext,
    RankHookSpec,
)

NAME: Final = "nsys"
HOOK: Final = "harness_collectors.nsys.hook:NsysHook"


class Nsys:
    """Nsight Systems (harness_schemas.spi.Collector)."""

    name = NAME
    title = "Nsight Systems reports"
    sources = (NAME,)

    def check(self, device: str) -> Availability:
        """Whether nsys is here and new enough."""
        nsys = command.find_nsys()
        if nsys is None:
            there = command.elsewhere()
            hint = (
                f"it is installed in {there.parent}: add that to PATH"
                if there
                else "load the module of Nsight Systems, or collect torch_profiler instead"
            )
            return Availability(False, "nsys is not on PATH", hint)
        try:
            version = command.version_of(nsys)
        except OSError as error:
            return Availability(False, f"nsys cannot be run: {error.strerror or error}")
        facts = {"path": nsys, "version": ".".join(map(str, version)) or None}
        if version[:2] < command.OLDEST:
            oldest = ".".join(map(str, command.OLDEST))
            return Availability(
                False, f"nsys {facts['version']} is too old", f"{oldest} is needed", facts
            )
        return Availability(True, facts=facts)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Which steps, as those of torch_profiler (`steps`, `first`, `count`, `every`), `window`
        (false: the whole run), and `graph` (node: kernels inside CUDA graphs; graph: cheaper)."""
        return command.complete_options(given)

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """`nsys profile` around each rank, and a hook that names units and opens the window."""
        options = dict(self.options(request.options))
        nsys = command.find_nsys() or "nsys"
        try:
            version = command.version_of(nsys)
        except OSError:
            version = ()
        folder = request.run_dir / "artifacts" / NAME
        window = {name: options[name] for name in command.WINDOW_OPTIONS}
        hook = RankHookSpec(HOOK, {"device": request.device, "window": options["window"], **window})
        return CapturePlan(
            argv_prefix=command.argv_prefix(nsys, folder, version, request.device, options),
            rank_hooks=(hook,),
            exclusive=frozenset() if request.device == "cpu" else frozenset({"cupti"}),
        )

    def recognise(self, path: Path, head: bytes) -> bool:
        """A report, an SQLite export, a table of an exported folder, or word of a missing nsys."""
        from harness_collectors.nsys.export.sources import recognise

        return recognise(path, head)

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of every report, by name; ranks are numbered over all of them."""
        from harness_collectors.nsys.ingest import ingest

        return ingest(files, context)


COLLECTOR = Nsys()
