"""Samples of hosts and GPUs over the run, gathered into bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

BINS = 240
MOST_LINES = 16
"""Of more series, their mean, smallest and largest are kept."""

CURVES = (
    ("cpu_seconds", "CPU cores in use", "cores", 1.0, True),
    ("cpu_share", "CPU of the host", "%", 100.0, False),
    ("rss", "Resident memory", "GiB", 1 / (1 << 30), False),
    ("power_instant", "GPU power", "W", 1.0, False),
    ("power_average", "GPU power, averaged by the driver", "W", 1.0, False),
    ("power_usage", "GPU power as NVML reports it", "W", 1.0, False),
    ("memory_used", "GPU memory in use", "GiB", 1 / (1 << 30), False),
    ("clock_sm", "GPU clock", "MHz", 1.0, False),
    ("temperature_gpu", "GPU temperature", "C", 1.0, False),
)
"""Metrics that are drawn: name, title, unit shown, factor, cumulative (drawn as a rate)."""
ONE_OF = ("power_instant", "power_average", "power_usage")
"""Readings of the same thing: the first that is there is drawn."""


@dataclass(frozen=True)
class Line:
    """Values of one series over time: seconds since the run's first sample."""

    name: str
    seconds: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Curves:
    """The lines of one metric; `series` of them were recorded."""

    metric: str
    title: str
    unit: str
    series: int
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class MetricSummary:
    """All samples of a metric by one collector."""

    metric: str
    unit: str | None
    source: str | None
    series: int
    samples: int
    least: float | None
    mean: float | None
    most: float | None
    increase: float | None
    """Last minus first, summed over series: what a cumulative counter counted."""


@dataclass(frozen=True)
class Samples:
    """Everything that was sampled."""

    metrics: tuple[MetricSummary, ...]
    curves: tuple[Curves, ...]


def load_samples(con: duckdb.DuckDBPyConnection) -> Samples | None:
    """Summaries of every metric and curves of the well-known ones; None without samples."""
    metrics = _summaries(con)
    if not metrics:
        return None
    present = {metric.metric for metric in metrics}
    powers = [name for name in ONE_OF if name in present][1:]
    curves = [
        _curves(con, *curve) for curve in CURVES if curve[0] in present and curve[0] not in powers
    ]
    return Samples(metrics, tuple(curve for curve in curves if curve.lines))


def _summaries(con: duckdb.DuckDBPyConnection) -> tuple[MetricSummary, ...]:
    rows = con.execute(
        """
        WITH series AS (
          SELECT metric, unit, source, host, rank, device, count(value) AS n, min(value) AS low,
            sum(value) AS total, max(value) AS high,
            arg_max(value, ts_ns) - arg_min(value, ts_ns) AS increase
          FROM samples WHERE isfinite(value) GROUP BY ALL
        )
        SELECT metric, unit, source, count(*), sum(n)::BIGINT, min(low), sum(total) / sum(n),
          max(high), sum(increase)
        FROM series WHERE metric IS NOT NULL GROUP BY metric, unit, source ORDER BY source, metric
        """
    ).fetchall()
    return tuple(MetricSummary(*row) for row in rows)


def _curves(
    con: duckdb.DuckDBPyConnection,
    metric: str,
    title: str,
    unit: str,
    factor: float,
    cumulative: bool,
) -> Curves:
    value = "(value - lag(value) OVER s) * 1e9 / nullif(ts_ns - lag(ts_ns) OVER s, 0)"
    rows = con.execute(
        f"""
        WITH axis AS (SELECT min(ts_ns) AS t0, max(ts_ns) - min(ts_ns) + 1 AS span FROM samples),
        series AS (
          SELECT host, rank, device, ts_ns - t0 AS t,
            (ts_ns - t0)::HUGEINT * {BINS} // span AS bin, {value if cumulative else "value"} AS v
          FROM samples, axis WHERE metric = ? AND isfinite(value) AND ts_ns IS NOT NULL
          WINDOW s AS (PARTITION BY host, rank, device ORDER BY ts_ns)
        )
        SELECT host, rank, device, avg(t) / 1e9 AS seconds, avg(v) * {factor} AS v
        FROM series WHERE v IS NOT NULL GROUP BY host, rank, device, bin
        ORDER BY host NULLS FIRST, rank NULLS FIRST, device NULLS FIRST, seconds
        """,
        [metric],
    ).fetchall()
    lines: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for host, rank, device, seconds, number in rows:
        lines.setdefault((host, rank, device), []).append((seconds, number))
    several = len({key[0] for key in lines}) > 1
    drawn = [Line(_series_name(key, several), *_columns(points)) for key, points in lines.items()]
    if len(drawn) > MOST_LINES:
        drawn = _band(drawn)
    return Curves(metric, title, unit, len(lines), tuple(drawn))


def _columns(points: list[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(point[0] for point in points), tuple(point[1] for point in points)


def _series_name(key: tuple[object, ...], several_hosts: bool) -> str:
    host, rank, device = key
    if rank is not None:
        return f"rank {rank}"
    where = f" of {host}" if several_hosts else ""
    return f"GPU {device}{where}" if device is not None else str(host or "host")


def _band(lines: list[Line]) -> list[Line]:
    """Smallest, mean and largest over series whose samples lie close in time."""
    last = max(line.seconds[-1] for line in lines)
    bins: dict[int, list[tuple[float, float]]] = {}
    for line in lines:
        for seconds, value in zip(line.seconds, line.values, strict=True):
            place = int(seconds / last * (BINS - 1)) if last else 0
            bins.setdefault(place, []).append((seconds, value))
    points = [bins[place] for place in sorted(bins)]
    times = tuple(sum(t for t, _ in each) / len(each) for each in points)
    return [
        Line("largest", times, tuple(max(v for _, v in each) for each in points)),
        Line("mean", times, tuple(sum(v for _, v in each) / len(each) for each in points)),
        Line("smallest", times, tuple(min(v for _, v in each) for each in points)),
    ]
