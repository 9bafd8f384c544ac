"""GPU samples: one poller a node, one thread, NVML's cheap calls at a fixed interval.

What a GPU supports and what each call costs differ by model and driver, so every reading is
tried and timed once at the start; the outcome is kept in `collection.detail`. Measured on an
H100 (driver 580): most calls take 1 to 6 us, the two PCIe counters 80 us each, the energy
counter 2.4 ms and at times 17 ms. Calls take a lock of the driver that applications need too,
so what is dear is read every five seconds, and at the start and the end.

Two readings are often taken for what they are not. `busy` is the share of the last sixth of a
second to second in which any kernel ran: 100 % while NCCL waits in a loop. `power_usage` is a
one-second average on Ampere (GA100 aside) and later and a momentary value before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from harness_collectors import sampling
from harness_collectors.nvml import smi_text
from harness_collectors.nvml.api import ALL_LINKS, Device, Library, NvmlError, open_library
from harness_collectors.reading.text_evidence import Tally, batch
from harness_collectors.reading.wrapped import printed, read_printed
from harness_collectors.sampling import PeriodicSampler, Reading, Unavailable
from harness_collectors.sampling.collector import SampledCollector
from harness_schemas.spi import (
    Availability,
    Batch,
    IngestContext,
)

SOURCE = "nvml"
DEAR_NS: Final = 1_000_000
"""A reading that takes longer than this is read every `SLOW_NS` only."""
SLOW_NS: Final = 5_000_000_000
_HEAD_BYTES: Final = 4096
_UINT32: Final = 1 << 32
_GPU_IS_LOST: Final = 15
_AMPERE: Final = 7


@dataclass(frozen=True)
class Metric:
    """A reading: how it is obtained, and how it becomes the value that is stored.

    Exactly one of `call` and `field` (field id and scope) is given. `wraps`: the counter has 32
    bits and is unrolled by differences.
    """

    name: str
    unit: str
    call: str = ""
    field: tuple[int, int] | None = None
    factor: float = 1.0
    wraps: bool = False


METRICS: Final = (
    Metric("power_instant", "W", field=(186, 0), factor=1e-3),
    Metric("power_average", "W", field=(185, 0), factor=1e-3),
    Metric("power_usage", "W", call="power_usage", factor=1e-3),
    Metric("energy", "J", field=(83, 0), factor=1e-3),
    Metric("clock_sm", "MHz", call="clock_sm"),
    Metric("clock_memory", "MHz", call="clock_memory"),
    Metric("clock_event_reasons", "bits", call="clock_reasons"),
    Metric("memory_used", "bytes", call="memory_used"),
    Metric("busy", "1", call="busy", factor=1e-2),
    Metric("temperature_gpu", "C", call="temperature"),
    Metric("temperature_memory", "C", field=(82, 0)),
    Metric("nvlink_tx_bytes", "bytes", field=(138, ALL_LINKS), factor=1024),
    Metric("nvlink_rx_bytes", "bytes", field=(139, ALL_LINKS), factor=1024),
    Metric("pcie_tx_bytes", "bytes", field=(197, 0), wraps=True),
    Metric("pcie_rx_bytes", "bytes", field=(198, 0), wraps=True),
)


@dataclass
class Gpu:
    """One GPU: what it supports, what that costs, and where its 32-bit counters stand."""

    device: Device
    identity: dict[str, Any]
    support: dict[str, str] = field(default_factory=dict)
    cost_us: dict[str, float] = field(default_factory=dict)
    fast: list[Metric] = field(default_factory=list)
    slow: list[Metric] = field(default_factory=list)
    unrolled: dict[str, tuple[float, float]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    lost: bool = False

    @property
    def index(self) -> int:
        """NVML's index."""
        return int(self.identity["index"])

    def survey(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """Try every metric; keep what works, by what it costs (the second try is timed)."""
        for metric in METRICS:
            try:
                self._value(metric)
                before = clock()
                self._value(metric)
                cost_ns = clock() - before
            except NvmlError as error:
                self.support[metric.name] = str(error)
                continue
            self.support[metric.name] = "ok"
            self.cost_us[metric.name] = round(cost_ns / 1000, 1)
            (self.slow if cost_ns > DEAR_NS else self.fast).append(metric)

    def _value(self, metric: Metric) -> float:
        if metric.call:
            return self.device.call(metric.call)
        assert metric.field is not None
        (value,) = self.device.fields([metric.field])
        if isinstance(value, NvmlError):
            raise value
        return value

    def read(self, metrics: Sequence[Metric]) -> Iterator[Reading]:
        """Values of these metrics: one call for all fields, one for each of the others."""
        together = {metric.field: metric for metric in metrics if metric.field is not None}
        values: list[float | NvmlError] = []
        if together:
            try:
                values = self.device.fields(list(together))
            except NvmlError as error:
                values = [error] * len(together)
        yield from self._readings(zip(together.values(), values, strict=True))
        alone = [metric for metric in metrics if metric.call]
        yield from self._readings((metric, self._outcome(metric)) for metric in alone)

    def _outcome(self, metric: Metric) -> float | NvmlError:
        try:
            return self.device.call(metric.call)
        except NvmlError as error:
            return error

    def _readings(self, outcomes: Iterable[tuple[Metric, float | NvmlError]]) -> Iterator[Reading]:
        for metric, value in outcomes:
            if isinstance(value, NvmlError):
                self.lost = self.lost or value.code == _GPU_IS_LOST
                self.failures[metric.name] = self.failures.get(metric.name, 0) + 1
                continue
            if metric.wraps:
                value = self._unroll(metric.name, value)
            yield Reading(metric.name, metric.unit, value * metric.factor, device=self.index)

    def _unroll(self, name: str, raw: float) -> float:
        """Total since the first reading, of a counter that starts again at 2**32."""
        before, total = self.unrolled.get(name, (raw, 0.0))
        total += (raw - before) % _UINT32
        self.unrolled[name] = (raw, total)
        return total

    def describe(self) -> dict[str, Any]:
        """Identity and support matrix."""
        return {
            **self.identity,
            "support": self.support,
            "cost_us": self.cost_us,
            "slow": [metric.name for metric in self.slow],
            "failures": self.failures,
            "power_usage_kind": power_usage_kind(self.identity),
        }


def power_usage_kind(identity: Mapping[str, Any]) -> str:
    """What nvmlDeviceGetPowerUsage means on this GPU (documentation of NVML, same call)."""
    architecture = identity.get("architecture")
    if not isinstance(architecture, int):
        return "unknown"
    is_ga100 = any(model in str(identity.get("name")) for model in ("A100", "A30", "A800"))
    averages = architecture >= _AMPERE and not (architecture == _AMPERE and is_ga100)
    return "average over one second" if averages else "momentary"


class GpuSource:
    """Reads all GPUs of this host."""

    def __init__(
        self, library: Library, slow_ns: int = SLOW_NS, clock: Callable[[], int] | None = None
    ) -> None:
        self._library = library
        self._clock = clock or time.monotonic_ns
        self._slow_ns = slow_ns
        self._slow_due = 0
        self._facts = library.facts()
        self._gpus = [Gpu(device, device.identity()) for device in library.devices()]
        if not self._gpus:
            library.close()
            raise Unavailable("NVML sees no GPU", "check CUDA_VISIBLE_DEVICES and the cgroup")
        for gpu in self._gpus:
            gpu.survey(self._clock)

    def describe(self) -> Mapping[str, Any]:
        """Versions, and every GPU's identity and support matrix."""
        return {
            **self._facts,
            "pcie_counters": "32 bits: a lower bound where 4 GiB pass between two samples",
            "slow_interval_ns": self._slow_ns,
            "devices": [gpu.describe() for gpu in self._gpus],
        }

    def problems(self) -> list[str]:
        """GPUs that were lost, and readings that failed after they had worked."""
        found = [f"GPU {gpu.index} is lost" for gpu in self._gpus if gpu.lost]
        for gpu in self._gpus:
            if gpu.failures and not gpu.lost:
                names = ", ".join(f"{name} {n} times" for name, n in sorted(gpu.failures.items()))
                found.append(f"GPU {gpu.index} did not answer: {names}")
        return found

    def read(self) -> Iterable[Reading]:
        """Cheap values of every GPU; the dear ones too when they are due."""
        now = self._clock()
        slow = now >= self._slow_due
        if slow:
            self._slow_due = now + self._slow_ns
        for gpu in self._gpus:
            if not gpu.lost:
                yield from gpu.read(gpu.fast + gpu.slow if slow else gpu.fast)

    def finish(self) -> None:
        """The next sample is the last: take the dear values with it."""
        self._slow_due = 0

    def close(self) -> None:
        """Let go of NVML."""
        self._library.close()


def sampler(run_dir: Path, host: str, options: Mapping[str, Any]) -> PeriodicSampler:
    """The sampler that the agent runs once a node."""
    interval = options.get("interval", sampling.DEFAULT_INTERVAL)
    return PeriodicSampler(SOURCE, run_dir, host, interval, lambda: GpuSource(open_library()))


class Nvml(SampledCollector):
    """Power, energy, clocks, memory, link bytes and temperatures of every GPU."""

    name = SOURCE
    title = "GPU power, energy, clocks, memory, link bytes"
    sources = (SOURCE, smi_text.SOURCE)

    def check(self, device: str) -> Availability:
        """Whether NVML starts and sees a GPU."""
        try:
            library = open_library()
        except Unavailable as missing:
            return Availability(False, missing.reason, missing.hint)
        try:
            facts = {**library.facts(), "gpus": [gpu.identity() for gpu in library.devices()]}
        except Exception as error:  # noqa: BLE001 (a driver half gone fails in many ways)
            return Availability(False, f"NVML does not answer: {error}", "try nvidia-smi")
        finally:
            library.close()
        if not facts["gpus"]:
            return Availability(False, "NVML sees no GPU", "check the job's GPU allocation", facts)
        return Availability(True, facts=facts)

    def recognise(self, path: Path, head: bytes) -> bool:
        """A samples or state file that names this collector, or a table of nvidia-smi's."""
        ours = sampling.recognise(self.name, head)
        return ours or smi_text.is_listing(printed(head)[:_HEAD_BYTES].decode("utf-8", "replace"))

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Samples, clock anchors and the collector's state, host by host, then nvidia-smi's."""
        from harness_collectors.sampling.rows import ingest_samples

        names = (sampling.SAMPLES_FILE, sampling.STATE_FILE)
        yield from ingest_samples(self.name, [path for path in files if path.name in names])
        for path in sorted(path for path in files if path.name not in names):
            yield from _ingest_listing(path, context.root)


def _ingest_listing(path: Path, root: Path) -> Iterator[Batch]:
    name = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    tally = Tally(SOURCE)
    try:
        read = read_printed(path)
    except OSError as error:
        tally.unreadable, tally.reason = 1, f"{name}: {error.strerror or error}"
        yield batch("collection", [tally.row({"files": [name]})])
        return
    found = smi_text.read_listing(read.text)
    tally.bytes, tally.records, tally.unreadable = read.size, len(found.rows), found.unreadable
    tally.reason = found.problem
    if clocks := list(smi_text.anchors(found.rows)):
        yield batch("clock_anchors", clocks)
    if found.rows:
        yield batch("samples", ({**row, "source": smi_text.SOURCE} for row in found.rows))
    detail: dict[str, Any] = {"files": [name], "columns_left_out": found.left_out}
    if clocks:
        detail["time_zone"] = "assumed UTC: the times do not say theirs"
    yield batch("collection", [tally.row(detail)])


COLLECTOR = Nvml()
