"""The protocols: what a collector, a runner and a launcher must offer.

A collector is two halves. Capture runs where the workload runs: `check` (looks, changes
nothing), `prepare` (pure: what to wrap, set and write), then samplers and rank hooks. Ingest
runs anywhere, offline: `recognise` by content, then `ingest` into batches of table rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Availability:
    """Answer of `check`: usable here or not, why, and what to do about it."""

    available: bool
    reason: str = ""
    hint: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CaptureRequest:
    """What `prepare` is told: the run as planned, and the collector's own options."""

    run_dir: Path
    world_size: int
    device: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class RankHookSpec:
    """A hook that ranks import by name (`module:attribute`) and call around every unit."""

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplerSpec:
    """A sampler that runs once a node beside the ranks (`module:attribute`)."""

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CapturePlan:
    """What a collector wants done to a run. Pure data: `--dry-run` prints it."""

    env: Mapping[str, str] = field(default_factory=dict)
    argv_prefix: tuple[str, ...] = ()
    rank_hooks: tuple[RankHookSpec, ...] = ()
    samplers: tuple[SamplerSpec, ...] = ()
    exclusive: frozenset[str] = frozenset()
    """Resources held alone, as in `cupti`: two collectors that name the same one are refused."""
    switchable: bool = False
    """It can be off for one batch and on for the next: its cost can be measured inside a run."""
    notes: tuple[str, ...] = ()
    """Sentences for the user: settings of theirs that were kept, and what that costs."""


@dataclass(frozen=True)
class Batch:
    """Rows for one table of `harness_schemas.tables`, as an Arrow table.

    Columns may be a subset of the table's; missing ones become NULL. `run_id` is filled in by
    the writer. Times are raw, on the clock named by the rows' (source, rank, host); the
    alignment maps them to the run's axis. A source's rows for `clock_anchors` and
    `clock_pingpongs` come before its other rows; a source without any writes Unix time.
    """

    table: str
    data: pyarrow.Table


@dataclass(frozen=True)
class IngestContext:
    """What ingest may know beforehand."""

    root: Path
    """Folder the files were found in; names in `collection` are relative to it."""
    run: Mapping[str, Any] = field(default_factory=dict)
    """run.json, where there is one."""
    progress: Callable[[int], None] = field(default=lambda _: None, compare=False)
    """Readers of large files say here how many more stored bytes they have read."""


class Sampler(Protocol):
    """Takes samples on one node, from `start` until `stop`. Neither raises nor blocks long."""

    def start(self) -> None:
        """Begin; called once."""

    def stop(self) -> None:
        """End and flush; idempotent."""


@dataclass(frozen=True)
class UnitKey:
    """The key of work of a unit, as rank hooks see it."""

    phase: str
    batch: int | None = None
    microbatch: int | None = None
    repeat: int | None = None
    step: int | None = None
    warmup: bool = False


class RankHook(Protocol):
    """Runs inside a rank. The worker asks it before each unit and tells it after."""

    name: str

    def start(self, rank: int, world_size: int, folder: Path) -> None:
        """Begin; `folder` is the collector's artifact folder of this host."""

    def before_unit(self, key: UnitKey) -> str | None:
        """About to run `key`; returns the collector's name if it will perturb the unit."""

    def after_unit(self, key: UnitKey) -> None:
        """`key` has run."""

    def pause(self) -> None:
        """End what is open: units follow that it is not told of."""

    def stop(self) -> None:
        """End and flush; idempotent."""


@runtime_checkable
class Collector(Protocol):
    """One kind of evidence. Register it in `harness/registry.py`."""

    name: str
    title: str
    sources: tuple[str, ...]
    """Values of the column `source` that its rows carry."""

    def check(self, device: str) -> Availability:
        """Whether it can capture on this machine. No side effects."""

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """Complete and validate options.

        Raises:
            ValueError: with a sentence per mistake, joined by newlines.
        """

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """What to do to the run. Pure."""

    def recognise(self, path: Path, head: bytes) -> bool:
        """Whether the file is this collector's evidence, by its content. Must not raise.

        `head` holds the file's first 64 KiB, decompressed if it was gzipped.
        """

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows from evidence; deterministic. Torn evidence is used as far as it goes, and the
        state is reported in a batch for the table `collection`."""


@dataclass(frozen=True)
class Part:
    """Evidence that one process can read without the rest; `step` is the collector's own word
    for what it does with the files."""

    files: tuple[Path, ...]
    step: str = ""
    size: int | None = None
    """Bytes to read, where that is not the size of `files`."""


@runtime_checkable
class Divisible(Protocol):
    """A collector whose evidence can be read in parts, in several processes at once.

    `ingest` of all files is the same as `ingest_part` of every part, in the order of `divide`.
    """

    def divide(self, files: Sequence[Path]) -> Sequence[Part]:
        """The parts, the same whatever the order of `files`. Looks at heads and names only."""

    def ingest_part(self, part: Part, context: IngestContext) -> Iterator[Batch]:
        """Rows of one part, as `Collector.ingest` gives them."""


@runtime_checkable
class Joined(Protocol):
    """A collector whose evidence is understood only together, but can be made ready in parts.

    `ingest` of all files is the same as `join` of what `read_part` gives of every part, in the
    order of `divide`.
    """

    def divide(self, files: Sequence[Path]) -> Sequence[Part]:
        """The parts, the same whatever the order of `files`; one where more are not worth it."""

    def read_part(self, part: Part, context: IngestContext) -> Iterator[Batch]:
        """What a part holds, for `join` alone."""

    def join(
        self, parts: Iterable[tuple[Part, Iterable[Batch]]], context: IngestContext
    ) -> Iterator[Batch]:
        """Rows of all parts, as `Collector.ingest` gives them.

        A part whose reader failed ends with a row of `collection` that says why.
        """


@dataclass(frozen=True)
class LaunchPlan:
    """What a launcher starts: the same for every launcher."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    world_size: int
    run_dir: Path
    port: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class RankExit:
    """How one rank ended. `exit_code` is negative for death by that signal."""

    rank: int
    exit_code: int
    message: str = ""
    noticed_ns: int = 0


@dataclass(frozen=True)
class LaunchResult:
    """How the workload ended: its exit code, and the ranks that failed, earliest first."""

    exit_code: int
    failures: tuple[RankExit, ...] = ()
    timed_out: bool = False
    interrupted: bool = False
    hung: bool = False
    """Ended because `progress` asked for it."""


class Launcher(Protocol):
    """Starts ranks and waits for them."""

    name: str

    def command(self, plan: LaunchPlan) -> tuple[str, ...]:
        """The argv that `launch` would run (printed by --dry-run). Pure."""

    def launch(self, plan: LaunchPlan, progress: Iterable[Any] | None = None) -> LaunchResult:
        """Start, wait, and leave no process behind, whatever happens.

        `progress` is advanced about ten times a second; when it yields True the ranks are ended,
        and the result is `hung`.
        """
