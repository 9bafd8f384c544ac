"""The recorder of one rank: ids, clocks, the flusher thread and the four files."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

from harness_probe.lines import MetaFile, UnitsFile
from harness_probe.live import LiveFile, packed_unit
from harness_probe.spool import RECORD_MARKER, SpanFile

FLUSH_SECONDS = 0.5
ANCHOR_SECONDS = 10.0

KIND_SPAN = 1
KIND_UNIT = 2
KIND_COLLECTIVE = 3
KIND_P2P = 4
KIND_IO = 5
KIND_DEVICE = 6

_now = time.monotonic_ns


def head(kind: int, descriptor: int, thread: int = 0) -> int:
    """First word of a record. A negative int64 is avoided: the marker's top bit is clear."""
    return RECORD_MARKER << 48 | kind << 40 | thread << 32 | descriptor


def boot_id() -> str:
    """Identity of this host's clocks: processes with the same value share CLOCK_MONOTONIC.

    Tests set HARNESS_FAKE_BOOT_ID to have several hosts on one machine.
    """
    fake = os.environ.get("HARNESS_FAKE_BOOT_ID")
    if fake:
        return fake
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


class Recorder:
    """Everything that one rank records. One per process; see `harness_probe.start`.

    Attributes used by the hot path (`harness_probe.spans`) are public on purpose: a property
    would double the price of a span.
    """

    def __init__(self, folder: Path, rank: int, world_size: int, local_rank: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"rank-{rank:05d}"
        self.folder = folder
        self.rank = rank
        self.meta = MetaFile(folder / f"{stem}.meta.jsonl")
        self.units = UnitsFile(folder / f"{stem}.units.jsonl.gz")
        self.file = SpanFile(folder / f"{stem}.spans.gz")
        self.live = LiveFile(folder / f"{stem}.live")
        self.owner = threading.get_ident()
        self.next_id = 0
        self.parent = 0
        self.unit_id = 0
        self.unit_page = b""  # the current unit as the live page holds it
        self.prefilled = False
        self.communicating: set[int] = set()  # threads inside an outermost call
        self.entered = 0
        self.paused = False  # see harness_probe.quiet
        self.heads: dict[Any, int] = {}
        self.ordinals: dict[Any, int] = {}
        self.foreign_lock = threading.Lock()
        self.group_ids: dict[Any, int] = {}  # of torch's process groups
        self.device: Any = None  # harness_probe.device.DeviceTimeline, once a GPU is used
        self._descriptors = 0
        self._unit_ids = itertools.count(1)  # `next` is one step for all threads
        self._attrs_ids = itertools.count(1)
        self._groups: dict[tuple[tuple[int, ...], Any], int] = {}
        self._group_count: dict[tuple[int, ...], int] = {}
        self._stopping = threading.Event()
        self._write_start(world_size, local_rank)
        self._flusher = threading.Thread(target=self._flush_loop, name="harness-probe", daemon=True)
        self._flusher.start()

    def _write_start(self, world_size: int, local_rank: int) -> None:
        self.meta.write(
            "start",
            version=1,
            rank=self.rank,
            world_size=world_size,
            local_rank=local_rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            boot_id=boot_id(),
            live=self.live.ok,
        )
        self.anchor()

    # -- definitions ---------------------------------------------------------------------

    def descriptor(self, kind: int, key: Any, **fields: Any) -> int:
        """The head word for spans of this description, defined on first use."""
        found = self.heads.get(key)
        if found is None:
            with self.foreign_lock:
                self._descriptors += 1
                found = head(kind, self._descriptors)
                self.meta.write("desc", id=self._descriptors, **fields)
                self.heads[key] = found
        return found

    def define_unit(self, **key: Any) -> tuple[int, bytes]:
        """Write a unit of work's key; returns its id, and what the live page shows of it."""
        unit_id, start_ns = next(self._unit_ids), _now()
        self.units.write("unit", id=unit_id, start_ns=start_ns, **key)
        return unit_id, packed_unit(unit_id, start_ns, key)

    def define_attrs(self, fields: dict[str, Any]) -> int:
        """Write a rare span's free attributes and return their id."""
        attrs_id = next(self._attrs_ids)
        self.units.write("attrs", id=attrs_id, attrs=fields)
        return attrs_id

    def define_group(self, ranks: tuple[int, ...], token: Any = None, name: str = "") -> int:
        """Id of a communication group; `token` tells apart groups of the same ranks."""
        found = self._groups.get((ranks, token))
        if found is None:
            ordinal = self._group_count.get(ranks, 0)
            self._group_count[ranks] = ordinal + 1
            found = len(self._groups) + 1
            self._groups[(ranks, token)] = found
            self.meta.write("group", id=found, ranks=list(ranks), ordinal=ordinal, name=name)
        return found

    # -- clocks and flushing ----------------------------------------------------------------

    def anchor(self) -> None:
        """Pair the monotonic with the wall clock: the tightest of five tries, with its width."""
        best: tuple[int, int, int] | None = None
        for _ in range(5):
            before = _now()
            wall = time.time_ns()
            width = _now() - before
            if best is None or width < best[0]:
                best = (width, before + width // 2, wall)
        assert best is not None
        self.meta.write("anchor", mono_ns=best[1], wall_ns=best[2], width_ns=best[0])

    def flush(self) -> None:
        """Hand everything recorded so far to the operating system."""
        self.file.flush(self._flush_lines)
        if self.file.newest_ns:
            self.live.recorded(self.file.newest_ns)

    def _flush_lines(self) -> None:
        self.meta.flush()
        self.units.flush()

    def _flush_loop(self) -> None:
        # Jitter: ranks that flush together would all hit the same step.
        spread = random.Random(os.getpid())
        next_anchor = time.monotonic() + ANCHOR_SECONDS
        while not self._stopping.wait(FLUSH_SECONDS * spread.uniform(0.6, 1.0)):
            with contextlib.suppress(Exception):  # the recorder never harms the workload
                self.flush()
                if time.monotonic() >= next_anchor:
                    self.anchor()
                    next_anchor = time.monotonic() + ANCHOR_SECONDS

    def stop(self) -> None:
        """Write the closing line and close the files; idempotent."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._flusher.join(timeout=5)
        if self.device is not None and threading.get_ident() == self.owner:
            self.device.close()
        self.anchor()
        self.flush()
        self.file.close()
        self.units.close()
        self.meta.write(
            "end",
            mono_ns=_now(),
            records=self.file.written,
            dropped=self.file.dropped,
            dropped_meta=self.meta.dropped + self.units.dropped,
        )
        if not self.live.pending():  # a call that failed stays on record
            self.live.update(_now(), 0, entered=self.entered)
        self.meta.close()
        self.live.close()

    def abandon(self) -> None:
        """Forget the files without flushing: for a forked child, whose parent goes on."""
        # The copied event may be locked for ever by the flusher, which the child does not have.
        self._stopping = threading.Event()
        self._stopping.set()
        for file in (self.file, self.meta, self.units):
            file.abandon()
        self.live.close()
