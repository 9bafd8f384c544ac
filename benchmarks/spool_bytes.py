"""What recording leaves on disk in an hour, and what its thread takes to write it.

    python benchmarks/spool_bytes.py [--seconds 30] [--keep FOLDER]

Two loads, recorded in real time by the recorder itself and extrapolated to a node and hour:

`toy`    eager decode steps of two layers with a message in and out, as `slurm_costs.py` runs them;
`graph`  decode steps of a model of 80 layers from CUDA graphs, one in 32 of them instrumented: two
         all-reduces a layer. The GPU's times are drawn, everything else is the recorder's own.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import harness_probe as probe
from harness_probe.device import DeviceTimeline, Interval
from harness_probe.device_calls import device_head
from harness_probe.recorder import KIND_DEVICE, Recorder
from harness_probe.spans import next_ordinal

STAMP_NS = 32
"""The GPU's clock advances in steps of this size."""
CALLS, EVERY = 160, 32


@dataclass(frozen=True)
class Load:
    """Decode steps a second and rank, ranks a node, and what one step records."""

    name: str
    steps_per_s: float
    ranks: int
    step: Callable[[Recorder, int, random.Random], None]


def toy_step(rec: Recorder, number: int, noise: random.Random) -> None:
    """A unit, two layers with a part each, and a message in and out: seven records."""
    with probe.unit("decode", step=number % 12, batch=0, microbatch=0, repeat=number // 12):
        with probe.p2p("recv", 1, 256, "float32", 1):
            time.sleep(0.0005)
        for layer in range(2):
            with probe.span("layer", "layer", layer):
                sum(range(noise.randrange(500, 5000)))
        with probe.span("logits", "compute"):
            sum(range(noise.randrange(500, 5000)))
        with probe.p2p("send", 1, 256, "float32", 1):
            pass
        with probe.span("sample"):
            pass
        tell(number, 1)


def graph_step(rec: Recorder, number: int, noise: random.Random) -> None:
    """A unit, its graph and its time on the device; of an instrumented one also every call."""
    marked = number % EVERY == 0
    with probe.unit(
        "decode",
        step=number % 512,
        batch=number // 512,
        microbatch=0,
        repeat=0,
        perturbed_by="graph_events" if marked else None,
    ):
        begin = time.monotonic_ns()
        sum(range(noise.randrange(500, 5000)))
        returned = time.monotonic_ns()
        tell(number, 32)
    timeline = Device(rec)
    device = (begin // STAMP_NS + 40_000_000) * STAMP_NS
    whole = device
    words = (rec.unit_id, begin, returned)
    if marked:
        for _ in range(CALLS):
            device += STAMP_NS * noise.randrange(1500, 2000)
            lasts = STAMP_NS * int(300 + noise.expovariate(1 / 40))
            op, group = "all_reduce", 2
            where = (64 * 8192, group << 32, next_ordinal(rec, op, group, -1))
            head = device_head(rec, op, "bfloat16", "graph_events")
            timeline.put(head, (number, begin, returned), where, device, device + lasts)
            device += lasts
    device += STAMP_NS * noise.randrange(1500, 200_000)
    for name in ("graph", "decode"):
        fields = {"name": name, "category": "graph", "timeline": "device", "source": "app_timers"}
        head = rec.descriptor(KIND_DEVICE, (name, "device"), **fields)
        timeline.put(head, (number, *words[1:]), (-1, 0, -1), whole, device)


class Device:
    """Writes records as the device timeline does, of times that are given."""

    def __init__(self, rec: Recorder) -> None:
        self._rec = rec

    def put(
        self,
        head: int,
        host: tuple[int, int, int],
        where: tuple[int, int, int],
        start: int,
        end: int,
    ) -> None:
        """One record: `host` is the unit and the host's call, `where` bytes, group and ordinal."""
        item = Interval(None, None, None, head, *host, *where)  # type: ignore[arg-type]
        DeviceTimeline.write(self, item, start, end)  # type: ignore[arg-type]


def tell(number: int, rows: int) -> None:
    """What the runner says of a step beside its spans."""
    probe.step_info(
        batch_size=rows,
        padded_batch=rows,
        prefill_tokens=0,
        decode_tokens=rows,
        kv_tokens=rows * (500 + number % 512),
    )
    now = time.monotonic_ns()
    probe.tokens([1] * rows, device_ns=now, host_ns=now + 20_000)


LOADS = (Load("toy", 29.0, 4, toy_step), Load("graph", 40.0, 8, graph_step))


def measure(load: Load, seconds: float, folder: Path) -> str:
    """A row of the table: records and bytes of one rank, MB of a node and hour, CPU share."""
    assert probe.start(folder, rank=0, world_size=load.ranks)
    rec = probe.recorder()
    assert rec is not None
    for _ in range(2):
        probe.group(list(range(load.ranks)), token=_)
    noise, clock = random.Random(1), time.pthread_getcpuclockid(rec._flusher.ident or 0)
    sizes = []
    begin, cpu = time.monotonic(), time.clock_gettime(clock)
    for number in range(round(seconds * load.steps_per_s)):
        time.sleep(max(0.0, begin + number / load.steps_per_s - time.monotonic()))
        load.step(rec, number, noise)
    took, cpu = time.monotonic() - begin, time.clock_gettime(clock) - cpu
    probe.stop()
    sizes = [path.stat().st_size for path in sorted(folder.iterdir()) if path.suffix != ".live"]
    hour = sum(sizes) / took * 3600 * load.ranks / 1e6
    names = ", ".join(str(size) for size in sizes)
    rate = rec.file.written / took
    return (
        f"| {load.name} | {load.ranks} x {load.steps_per_s:.0f}/s | {rate:,.0f} | {names} "
        f"| {hour:,.0f} | {100 * cpu / took:.2f} % |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="bytes of a spool, as a Markdown table")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--keep", type=Path, help="leave the spools here")
    given = parser.parse_args()
    print("| load | ranks and steps | records a second | bytes a file | MB/node/h | flusher |")
    print("|---|---|---:|---|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        for load in LOADS:
            folder = (given.keep or Path(scratch)) / load.name
            print(measure(load, given.seconds, folder), flush=True)


if __name__ == "__main__":
    main()
