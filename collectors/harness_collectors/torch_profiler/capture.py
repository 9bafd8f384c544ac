"""The capture half of torch_profiler: a rank hook that opens torch.profiler over some units.

The events are taken from torch in the process, without its JSON. What is written, line by line:
docs/formats-torch-profiler.md. Costs measured on H100 and H200 with torch 2.11: the first start
of a process 20 to 40 ms, a later one 12 to 19 ms, of which the first launch in a window takes 3
(so the hook makes one itself); the stop 2 to 14 ms; taking the events 4 to 9 us each.
torch.profiler.profile, one layer up, needs 5 to 7 s for its first start: it imports the inductor.

Left attached, CUPTI made every later launch 5 us slower (7.4 to 12.5 us, eager); detached after
each window it left nothing that could be measured. Before CUDA 12.6 detaching crashes with CUDA
graphs (torch.profiler says so in its source), so there it stays attached, and all units after
the first window are marked perturbed.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from harness_collectors.sampling import boot_id, read_anchor
from harness_collectors.torch_profiler.schedule import Schedule, Verdict, WindowOptions
from harness_schemas.spi import UnitKey

NAME: Final = "torch_profiler"
FORMAT: Final = "harness-torch-profiler"
VERSION: Final = 1
COLUMNS: Final = ("act", "name", "start", "dur", "device", "stream", "corr", "linked")
CHUNK_EVENTS: Final = 4096
_DETACHABLE_CUDA: Final = (12, 6)
_RUNTIME = re.compile(r"(cuda|cu|hip)[A-Z]")
_SYNC: Final = frozenset({"Context Sync", "Stream Sync", "Event Sync", "Stream Wait Event"})
_OVERHEAD: Final = frozenset(
    {
        "Activity Buffer Request",
        "Buffer Flush",
        "Command Buffer Full",
        "Instrumentation",
        "Lazy Function Loading",
        "Resource",
        "Runtime Triggered Module Loading",
        "Unrecognized",
    }
)
_UNKNOWN_VERDICT: Final = Verdict()


class ProfilerHook:
    """Records chosen units of chosen ranks (harness_schemas.spi.RankHook)."""

    name = NAME

    def __init__(
        self,
        *,
        device: str = "cpu",
        host: bool = False,
        ranks: str = "all",
        steps: Iterable[int] = (),
        first: int = 3,
        count: int = 3,
        every: int | None = None,
    ) -> None:
        self._device = device
        self._host = host or device == "cpu"
        self._ranks = ranks
        self._options = WindowOptions(tuple(steps), first, count, every)
        self._verdict = _UNKNOWN_VERDICT
        self._selected: bool | None = None
        self._primed = False
        self._began_ns = 0

    def start(self, rank: int, world_size: int, folder: Path) -> None:
        """Learn the rank; nothing is opened yet."""
        import torch

        self._rank = rank
        self._world_size = world_size
        self._folder = folder
        detach = self._device != "cuda" or _cuda_version(torch) >= _DETACHABLE_CUDA
        if detach and self._device == "cuda":
            os.environ["TEARDOWN_CUPTI"] = "1"  # read by Kineto whenever a window closes
        self._detach = detach
        self._schedule = Schedule(self._options, residual=not detach)
        self._window: Window | None = None
        self._file: EventFile | None = None

    def before_unit(self, key: UnitKey) -> str | None:
        """Close a window that `key` is not part of, or open one; says whether it is disturbed."""
        verdict = self._verdict = self._schedule.enter(key)
        if self._records_here():
            if not self._primed and (key.warmup or key.phase == "warmup"):
                self._prime()
            if self._window is not None and not verdict.record:
                self._close()
            elif self._window is None and verdict.record:
                self._open()
        self._began_ns = time.monotonic_ns()
        return NAME if verdict.perturbed else None

    def after_unit(self, key: UnitKey) -> None:
        """Note the unit; open a window if the next one is to be recorded."""
        ended_ns = time.monotonic_ns()
        if self._window is not None:
            self._window.units.append((key, self._began_ns, ended_ns))
        elif self._verdict.lead and self._records_here():
            self._open()

    def pause(self) -> None:
        """Close a window that is still open."""
        self._schedule.pause()
        if self._window is not None:
            self._close()

    def stop(self) -> None:
        """Close a window that is still open; idempotent."""
        if self._window is not None:
            self._close()
        if self._records_here():
            self._events()  # a chosen rank that had nothing to record says so

    def _records_here(self) -> bool:
        if self._selected is None:
            self._selected = is_selected(self._ranks, self._rank, self._folder)
        return self._selected

    def _prime(self) -> None:
        """Pay for the first start while the run is warming up."""
        self._primed = True
        window = Window(self._device, self._host)
        window.stop()
        self._events().write([{"t": "prime", **window.cost()}])

    def _open(self) -> None:
        self._primed = True
        self._window = Window(self._device, self._host)

    def _close(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            window.stop()
            self._events().write_window(window)

    def _events(self) -> EventFile:
        if self._file is None:
            self._file = EventFile(self._folder / f"rank-{self._rank:05d}.jsonl.gz", self._header())
        return self._file

    def _header(self) -> dict[str, Any]:
        import torch

        return {
            "t": "header",
            "format": FORMAT,
            "version": VERSION,
            "rank": self._rank,
            "world_size": self._world_size,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "boot_id": boot_id(),
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "device": self._device,
            "host_ops": self._host,
            "detached": self._detach,
            "options": asdict(self._options),
        }


class Window:
    """torch.profiler, open from construction to `stop`."""

    def __init__(self, device: str, host: bool) -> None:
        from torch.autograd.profiler import profile

        self.units: list[tuple[UnitKey, int, int]] = []
        self.anchors = [read_anchor()]
        self.opened_ns = time.monotonic_ns()
        # The layer under torch.profiler.profile: the same recording, without its schedule and
        # without a Python object an event. `kineto_results` is where both leave them.
        on = "cuda" if device == "cuda" else None
        self._profile: Any = profile(use_cpu=host, use_device=on, use_kineto=True)
        self._profile.__enter__()
        if device == "cuda":
            _touch_device()  # the first launch pays for CUPTI's buffers: let it be ours
        self.started_ns = time.monotonic_ns()
        self.stopping_ns = self.stopped_ns = 0
        self._device = device

    def stop(self) -> None:
        """End the recording; waits for the device (torch does)."""
        self.stopping_ns = time.monotonic_ns()
        self._profile.__exit__(None, None, None)
        if self._device == "cuda":
            _touch_device()  # CUPTI detaches at the next call of CUDA: let it be ours
        self.stopped_ns = time.monotonic_ns()
        self.anchors.append(read_anchor())

    def events(self) -> list[Any]:
        """Kineto's events."""
        return list(self._profile.kineto_results.events())

    def cost(self) -> dict[str, int]:
        """When it was opened and closed, on CLOCK_MONOTONIC."""
        return {
            "opened_ns": self.opened_ns,
            "started_ns": self.started_ns,
            "stopping_ns": self.stopping_ns,
            "stopped_ns": self.stopped_ns,
        }


class EventFile:
    """Appends windows, each a gzip member of its own: a killed rank loses no earlier one."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self._path = path
        self._names: dict[str, int] = {}
        self._windows = 0
        path.unlink(missing_ok=True)
        self.write([header])

    def write(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines."""
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        with self._path.open("ab") as stream:
            stream.write(gzip.compress(text.encode(), compresslevel=4))

    def write_window(self, window: Window) -> None:
        """Append a window: its cost, anchors, units and events."""
        self._windows += 1
        events = window.events()
        known = len(self._names)
        every = [self._row(event) for event in events if not _hidden(event)]
        rows = [row for row in every if row[3] >= 0]  # negative: it had not ended
        clock = _clock(rows, window.anchors[0])
        head: dict[str, Any] = {
            "t": "window",
            "id": self._windows,
            "events": len(rows),
            "clock": clock,
        }
        head["dropped"] = len(every) - len(rows)
        lines: list[dict[str, Any]] = [{**head, **window.cost(), "anchors": window.anchors}]
        lines += [
            {"t": "unit", "window": self._windows, **asdict(key), "start_ns": start, "end_ns": end}
            for key, start, end in window.units
        ]
        lines.append({"t": "names", "first": known, "names": list(self._names)[known:]})
        lines += list(_chunks(rows, self._windows))
        self.write(lines)
        # Written last and apart: what it cost to get here is not known before.
        self.write([{"t": "written", "window": self._windows, "at_ns": time.monotonic_ns()}])

    def _row(self, event: Any) -> tuple[int, ...]:
        name = event.name()
        return (
            self._name(activity_of(event, name)),
            self._name(name),
            event.start_ns(),
            event.duration_ns(),
            event.device_index(),
            event.device_resource_id(),
            event.correlation_id(),
            event.linked_correlation_id(),
        )

    def _name(self, text: str) -> int:
        return self._names.setdefault(text, len(self._names))


def _chunks(rows: list[tuple[int, ...]], window: int) -> Iterable[dict[str, Any]]:
    base = min((row[2] for row in rows), default=0)
    for first in range(0, len(rows), CHUNK_EVENTS):
        columns = [list(column) for column in zip(*rows[first : first + CHUNK_EVENTS], strict=True)]
        columns[2] = [start - base for start in columns[2]]
        named = dict(zip(COLUMNS, columns, strict=True))
        yield {"t": "events", "window": window, "base_ns": base, **named}


def activity_of(event: Any, name: str) -> str:
    """Kineto's name of an event's kind; torch before 2.13 does not tell, its name does."""
    if hasattr(event, "activity_type"):
        return str(event.activity_type())
    import torch

    annotated = event.is_user_annotation()
    if event.device_type() != torch.autograd.DeviceType.CPU:
        if annotated:
            return "gpu_user_annotation"
        if name.startswith(("Memcpy", "Memset")):
            return f"gpu_{name[:6].lower()}"
        return "cuda_sync" if name in _SYNC else "kernel"
    if annotated:
        return "user_annotation"
    if name in _OVERHEAD:
        return "overhead"
    return "cuda_runtime" if _RUNTIME.match(name) else "cpu_op"


def _hidden(event: Any) -> bool:
    return hasattr(event, "is_hidden_event") and bool(event.is_hidden_event())


def _clock(rows: list[tuple[int, ...]], anchor: tuple[int, int, int]) -> str:
    """Kineto turns its times into Unix time; should that change, the distances tell."""
    if not rows:
        return "unix"
    start = rows[0][2]
    return "unix" if abs(start - anchor[1]) <= abs(start - anchor[0]) else "monotonic"


def _touch_device() -> None:
    import torch

    torch.zeros(1, device="cuda")
    torch.cuda.current_stream().synchronize()


def _cuda_version(torch: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", torch.version.cuda or "0")[:2])


def is_selected(ranks: str, rank: int, folder: Path) -> bool:
    """Whether a rank is among `all`, `0,2`, `tp:0` or `stage:1`.

    The place in a stage is what the rank itself stated (the `fact` lines of its spool); a rank
    that stated none is not selected.
    """
    if ranks == "all":
        return True
    kind, _, text = ranks.rpartition(":")
    wanted = {int(part) for part in text.split(",")}
    if not kind:
        return rank in wanted
    meta = folder.parents[2] / "spans" / f"rank-{rank:05d}.meta.jsonl"
    return _stated(meta, {"tp": "tp_rank", "stage": "stage"}[kind]) in wanted


def _stated(meta: Path, field: str) -> int | None:
    found = None
    try:
        lines = meta.read_bytes().splitlines()
    except OSError:
        return None
    for line in lines:
        if b'"t":"fact"' in line:
            try:
                found = json.loads(line).get(field, found)
            except ValueError:
                continue
    return found if isinstance(found, int) else None
