"""What a span costs: the recorder, switched off and on, against an OpenTelemetry SDK span.

    python benchmarks/recorder.py [--rounds 100] [--spans 2000]

The variants take turns within every round, so that a machine that slows down slows all of
them. A figure is the mean CPU time of the recording thread for `with ...: pass` in a round, the
loop around it included; wall time would measure what else the machine does.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
import timeit
from collections.abc import Sequence
from pathlib import Path

from opentelemetry import version as otel_version
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

import harness_probe as probe

REFERENCE = "OpenTelemetry span"
SWITCHED_OFF = {
    "span, switched off": 'probe.span("x")',
    "collective, switched off": 'probe.collective("all_reduce", 1, 64)',
}
SWITCHED_ON = {
    "span": 'probe.span("x")',
    "collective": 'probe.collective("all_reduce", 1, 64)',
    "file read": 'probe.io("read", "x")',
    "unit of work": 'probe.unit("decode", step=1)',
    REFERENCE: 'tracer.start_as_current_span("x")',
}


class NullExporter(SpanExporter):
    """Takes spans and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Report success."""
        return SpanExportResult.SUCCESS


def measure(rounds: int, count: int) -> dict[str, list[float]]:
    """Cost of every variant in every round, in ns."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(NullExporter(), max_queue_size=1 << 18))
    names = {"probe": probe, "tracer": provider.get_tracer("benchmark")}
    costs: dict[str, list[float]] = {}

    def run(variants: dict[str, str]) -> None:
        for name, expression in variants.items():
            timer = timeit.Timer(f"with {expression}: pass", globals=names, timer=time.thread_time)
            costs.setdefault(name, []).append(timer.timeit(count) / count * 1e9)

    for number in range(rounds):
        run(SWITCHED_OFF)
        with tempfile.TemporaryDirectory() as folder:
            probe.start(folder, rank=number, world_size=1)
            probe.group([0])
            run(SWITCHED_ON)
            probe.stop()
    provider.shutdown()
    return costs


def table(costs: dict[str, list[float]]) -> str:
    """Median, lowest and highest round of every variant, as a Markdown table."""
    reference = statistics.median(costs[REFERENCE])
    lines = [
        f"| what | median ns | lowest | highest | {REFERENCE} / this |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, values in costs.items():
        middle = statistics.median(values)
        lines.append(
            f"| {name} | {middle:,.0f} | {min(values):,.0f} | {max(values):,.0f} "
            f"| {reference / middle:,.1f} |"
        )
    return "\n".join(lines)


def processor() -> str:
    """The CPU's own name, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="cost of a span, as a Markdown table")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--spans", type=int, default=2000)
    given = parser.parse_args()
    print(table(measure(given.rounds, given.spans)))
    print(
        f"\n{processor()}, Python {platform.python_version()}, "
        f"opentelemetry-sdk {otel_version.__version__}, "
        f"{given.rounds} rounds of {given.spans:,} spans"
    )


if __name__ == "__main__":
    main()
