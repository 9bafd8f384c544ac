"""Host samples: what every rank's process and the node as a whole use (psutil).

Counters are cumulative (CPU seconds, bytes, context switches), so that any window's use is a
difference of two samples; a lost sample loses resolution, never amounts.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness_collectors import sampling
from harness_collectors.kernel_files import CgroupMemory, pressure
from harness_collectors.sampling import PeriodicSampler, Reading, Unavailable
from harness_collectors.sampling.collector import SampledCollector
from harness_schemas.rundir import RunDir
from harness_schemas.spi import (
    Availability,
    Batch,
    IngestContext,
)

SOURCE = "psutil"
_MOUNT = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


class RankFinder:
    """Finds the processes of this host's ranks in the start lines of their spools."""

    def __init__(self, spans: Path, host: str, boot: str) -> None:
        self._spans = spans
        self._host = host
        self._boot = boot
        self._seen: set[str] = set()

    def new_ranks(self) -> Iterator[tuple[int, int]]:
        """(rank, pid) of ranks that were not seen before."""
        for path in sorted(self._spans.glob("rank-*.meta.jsonl")):
            if path.name in self._seen:
                continue
            start = _first_line(path)
            if start is None:
                continue  # created but not yet written: look again at the next sample
            self._seen.add(path.name)
            ours = start.get("host") == self._host and start.get("boot_id") == self._boot
            rank, pid = start.get("rank"), start.get("pid")
            if ours and isinstance(rank, int) and isinstance(pid, int):
                yield rank, pid


def _first_line(path: Path) -> dict[str, Any] | None:
    try:
        with path.open("rb") as stream:
            line = stream.readline(65536)
        row = json.loads(line)
    except (OSError, ValueError):
        return None
    return row if isinstance(row, dict) else None


class HostSource:
    """Reads this host: ranks' processes, the node, its control group and pressure."""

    def __init__(self, run_dir: Path, host: str, proc: Path = _PROC, mount: Path = _MOUNT) -> None:
        try:
            import psutil
        except ImportError:
            raise Unavailable("psutil is not installed", "pip install psutil") from None
        self._psutil = psutil
        self._proc = proc
        self._mount = mount
        self._finder = RankFinder(RunDir(run_dir).spans, host, sampling.boot_id())
        self._ranks: dict[int, Any] = {}
        self._pids: dict[int, int] = {}
        self._gone = 0
        self._cgroup = CgroupMemory("self", proc, mount)
        psutil.cpu_percent(interval=None)  # the first call only sets the reference

    def describe(self) -> Mapping[str, Any]:
        """What this host offers, and which processes were sampled."""
        return {
            "psutil": self._psutil.__version__,
            "cpus": self._psutil.cpu_count(),
            "memory_total_bytes": self._psutil.virtual_memory().total,
            "cgroup": str(self._cgroup.folder) if self._cgroup.folder else None,
            "cgroup_reason": self._cgroup.reason,
            "pressure": any(True for _ in pressure(self._proc)),
            "ranks": {str(rank): pid for rank, pid in sorted(self._pids.items())},
            "ranks_ended": self._gone,
        }

    def problems(self) -> list[str]:
        """That no rank was found, if so: the node's values are right all the same."""
        return [] if self._pids else ["no rank of this host was found in spans/"]

    def read(self) -> Iterable[Reading]:
        """Values of every rank, then of the node."""
        self._find_ranks()
        for rank in list(self._ranks):
            yield from self._rank(rank)
        yield from self._node()
        yield from self._cgroup.read()
        yield from pressure(self._proc)

    def finish(self) -> None:
        """Every sample is complete: nothing is left for the last."""

    def close(self) -> None:
        """Nothing is held."""

    def _find_ranks(self) -> None:
        for rank, pid in self._finder.new_ranks():
            with contextlib.suppress(self._psutil.Error):
                self._ranks[rank] = self._psutil.Process(pid)
                if not self._pids:
                    # Slurm puts tasks into a group of their own: theirs counts, not the agent's.
                    self._cgroup = CgroupMemory(pid, self._proc, self._mount)
                self._pids[rank] = pid

    def _rank(self, rank: int) -> Iterator[Reading]:
        process = self._ranks[rank]
        try:
            with process.oneshot():
                cpu = process.cpu_times()
                yield Reading("cpu_seconds", "s", cpu.user + cpu.system, rank)
                if rss := process.memory_info().rss:  # of one that has just ended it is not known
                    yield Reading("rss", "bytes", rss, rank)
                switches = process.num_ctx_switches()
                yield Reading("ctx_voluntary", "count", switches.voluntary, rank)
                yield Reading("ctx_involuntary", "count", switches.involuntary, rank)
                yield from self._rank_io(process, rank)
        except self._psutil.NoSuchProcess:
            del self._ranks[rank]
            self._gone += 1
        except self._psutil.AccessDenied:
            del self._ranks[rank]

    def _rank_io(self, process: Any, rank: int) -> Iterator[Reading]:
        if not hasattr(process, "io_counters"):
            return
        with contextlib.suppress(self._psutil.AccessDenied):
            io = process.io_counters()
            yield Reading("read_bytes", "bytes", io.read_bytes, rank)
            yield Reading("write_bytes", "bytes", io.write_bytes, rank)
            if hasattr(io, "read_chars"):  # through system calls: the page cache included
                yield Reading("read_call_bytes", "bytes", io.read_chars, rank)
                yield Reading("write_call_bytes", "bytes", io.write_chars, rank)

    def _node(self) -> Iterator[Reading]:
        yield Reading("cpu_share", "1", self._psutil.cpu_percent(interval=None) / 100)
        yield Reading("memory_available", "bytes", self._psutil.virtual_memory().available)
        disk = self._psutil.disk_io_counters()
        if disk is not None:
            yield Reading("disk_read_bytes", "bytes", disk.read_bytes)
            yield Reading("disk_write_bytes", "bytes", disk.write_bytes)
        net = self._psutil.net_io_counters()
        if net is not None:
            yield Reading("net_sent_bytes", "bytes", net.bytes_sent)
            yield Reading("net_recv_bytes", "bytes", net.bytes_recv)


def sampler(run_dir: Path, host: str, options: Mapping[str, Any]) -> PeriodicSampler:
    """The sampler that the agent runs once a node."""
    interval = options.get("interval", sampling.DEFAULT_INTERVAL)
    return PeriodicSampler(SOURCE, run_dir, host, interval, lambda: HostSource(run_dir, host))


class PsutilHost(SampledCollector):
    """CPU, memory, disk and network of ranks and nodes, at a fixed interval."""

    name = SOURCE
    title = "processes and node: CPU, memory, disk, network"
    sources = (SOURCE,)

    def check(self, device: str) -> Availability:
        """Whether psutil can be imported."""
        from importlib.util import find_spec

        if find_spec("psutil") is None:
            return Availability(False, "psutil is not installed", "pip install psutil")
        return Availability(True)

    def recognise(self, path: Path, head: bytes) -> bool:
        """A samples or state file that names this collector."""
        return sampling.recognise(self.name, head)

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Samples, clock anchors and the collector's state, host by host."""
        from harness_collectors.sampling.rows import ingest_samples

        return ingest_samples(self.name, files)


COLLECTOR = PsutilHost()
