"""A study as a small standalone SVG: speed-up and efficiency, ideal lines, intervals.

Plain shapes and text, no script, no font of its own; light and dark by the reader's scheme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from harness_analysis.report.palette import SERIES_DARK, SERIES_LIGHT
from harness_analysis.scaling.intervals import Estimate
from harness_analysis.scaling.model import Point, Study
from harness_analysis.scaling.rows import title

WIDTH, HEIGHT = 720, 312
PLOT_TOP, PLOT_BOTTOM = 66, 250
PANELS = ((62, 340), (422, 700))
"""Left and right edges of the two plots."""
COLORS = {
    "page": ("#ffffff", "#12171d"),
    "rule": ("#dfe4ea", "#2b343e"),
    "text": ("#17202a", "#e6ebf0"),
    "muted": ("#586472", "#9aa7b4"),
    "data": (SERIES_LIGHT[0], SERIES_DARK[0]),
}


@dataclass(frozen=True)
class Axes:
    """One plot: places of sizes from left to right, and of values from bottom to top."""

    left: float
    right: float
    low: float
    high: float
    sizes: Sequence[int]
    logarithmic: bool

    def x(self, size: int) -> float:
        """Sizes stand at equal distances where each is twice the one before."""
        first, last = math.log2(self.sizes[0]), math.log2(self.sizes[-1])
        share = (math.log2(size) - first) / (last - first) if last > first else 0.5
        return self.left + 22 + share * (self.right - self.left - 44)

    def y(self, value: float) -> float:
        """Values outside the plot lie on its edge."""
        value = min(max(value, self.low), self.high)
        scale: Callable[[float], float] = math.log2 if self.logarithmic else float
        low, high = scale(self.low), scale(self.high)
        return PLOT_BOTTOM - (scale(value) - low) / (high - low) * (PLOT_BOTTOM - PLOT_TOP)

    def ticks(self) -> list[float]:
        """Values that the axis names."""
        if self.logarithmic:
            first, last = round(math.log2(self.low)), round(math.log2(self.high))
            step = max(1, -(-(last - first) // 6))
            return [2.0**power for power in range(first, last + 1, step)]
        return [self.low + (self.high - self.low) * share / 4 for share in range(5)]


def draw_study(study: Study) -> str | None:
    """The picture as text; None where there is nothing to draw: no axis, or one size only."""
    known = [point for point in study.points if point.size and point.speedup and point.efficiency]
    sizes = sorted({point.size for point in known if point.size})
    if study.kind == "grid" or len(sizes) < 2:
        return None
    said = f"{title(study)}: " + "; ".join(
        f"{point.label} speed-up {point.speedup.value:.2f}" for point in known if point.speedup
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{escape(said, _QUOTE)}">',
            f"<title>{escape(said)}</title>",
            _style(),
            f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
            *_speedups(study, known, sizes),
            *_efficiencies(study, known, sizes),
            _text(24, HEIGHT - 14, _foot(known), "muted"),
            "</svg>",
            "",
        ]
    )


_QUOTE = {'"': "&quot;"}


def _speedups(study: Study, known: Sequence[Point], sizes: Sequence[int]) -> list[str]:
    values = [point.speedup for point in known if point.speedup]
    ideal = {size: size / sizes[0] for size in sizes}
    reach = [*(v.value for v in values), *ideal.values()]
    low = 2.0 ** math.floor(math.log2(min(reach)))
    high = max(2.0 ** math.ceil(math.log2(max(reach))), 2 * low)
    axes = Axes(*PANELS[0], low, high, sizes, True)
    base = f"{sizes[0]} {'rank' if sizes[0] == 1 else 'ranks'}"
    against = f"batch {sizes[0]}" if study.kind == "batch" else base
    word = "throughput" if study.kind == "batch" else "speed-up"
    frame = _frame(axes, study.axis, f"{word}, times that of {against}", lambda v: f"{v:g}")
    line = [(axes.x(size), axes.y(value)) for size, value in ideal.items()]
    marks = [(point.size or 0, point.speedup) for point in known if point.speedup]
    return [*frame, *_ideal(line), *_marks(axes, marks), *_labels(axes, known, marks)]


def _efficiencies(study: Study, known: Sequence[Point], sizes: Sequence[int]) -> list[str]:
    values = [point.efficiency for point in known if point.efficiency]
    high = 1.0 if max(value.value for value in values) <= 1.0 else 2.0
    axes = Axes(*PANELS[1], 0.0, high, sizes, False)
    word = "batch efficiency" if study.kind == "batch" else "parallel efficiency"
    frame = _frame(axes, study.axis, word, lambda v: f"{100 * v:.0f} %")
    line = [(axes.x(sizes[0]), axes.y(1.0)), (axes.x(sizes[-1]), axes.y(1.0))]
    marks = [(point.size or 0, point.efficiency) for point in known if point.efficiency]
    return [*frame, *_ideal(line), *_marks(axes, marks), *_labels(axes, known, marks)]


def _frame(axes: Axes, along: str, name: str, show: Callable[[float], str]) -> list[str]:
    parts = [_text(axes.left, 34, name, "head"), _text(axes.left, 52, "dashed: ideal", "muted")]
    for value in axes.ticks():
        y = axes.y(value)
        parts.append(f'<path class="rule" d="M{axes.left} {y:.1f}H{axes.right}"/>')
        parts.append(_text(axes.left - 8, y + 4, show(value), "muted", "end"))
    for size in axes.sizes:
        parts.append(_text(axes.x(size), PLOT_BOTTOM + 18, str(size), "muted", "middle"))
    parts.append(_text(axes.right, PLOT_BOTTOM + 34, along, "muted", "end"))
    return parts


def _ideal(places: Sequence[tuple[float, float]]) -> list[str]:
    return [f'<path class="ideal" d="{_path(places)}"/>']


def _marks(axes: Axes, values: Sequence[tuple[int, Estimate]]) -> list[str]:
    """Points with their intervals; the best of each size are joined."""
    places = [(axes.x(size), axes.y(value.value)) for size, value in values]
    best: dict[float, float] = {}
    for x, y in places:
        best[x] = min(y, best.get(x, y))
    parts = [f'<path class="joined" d="{_path(sorted(best.items()))}"/>']
    for (x, y), (_, value) in zip(places, values, strict=True):
        if value.low is not None and value.high is not None:
            top, bottom = axes.y(value.high), axes.y(value.low)
            # An end without a cap leaves the plot.
            ends = [(top, value.high <= axes.high), (bottom, value.low >= axes.low)]
            caps = "".join(f"M{x - 5:.1f} {end:.1f}h10" for end, inside in ends if inside)
            parts.append(f'<path class="whisker" d="M{x:.1f} {top:.1f}V{bottom:.1f}{caps}"/>')
        parts.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>')
    return parts


def _labels(
    axes: Axes, known: Sequence[Point], values: Sequence[tuple[int, Estimate]]
) -> list[str]:
    """Where several points have one size: how each cuts the model, from the best down."""
    found = []
    for size in axes.sizes:
        alike = sorted(
            (axes.y(value.value), f"TP {point.tp or '-'} x PP {point.pp or '-'}")
            for point, (at, value) in zip(known, values, strict=True)
            if at == size
        )
        for row, (_, text) in enumerate(alike if len(alike) > 1 else []):
            y = min(alike[-1][0] + 24, PLOT_BOTTOM - 15 * len(alike)) + 15 * row
            found.append(_text(axes.right, y, f"{row + 1}. {text}", "muted", "end"))
    return found


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _foot(known: Sequence[Point]) -> str:
    counts = sorted({point.runs for point in known})
    runs = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    bars = "; bars: 95 % intervals" if counts[-1] > 1 else "; single runs, no intervals"
    return f"{runs} {'run' if counts[-1] == 1 else 'runs'} a point{bars}"


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {where}>{escape(text)}</text>'


def _style() -> str:
    def scheme(which: int) -> str:
        page, rule, text, muted, data = (COLORS[name][which] for name in COLORS)
        return (
            f".page{{fill:{page};stroke:{rule}}}.rule{{stroke:{rule}}}.head{{fill:{text}}}"
            f".muted{{fill:{muted}}}.ideal{{stroke:{muted}}}"
            f".joined,.whisker{{stroke:{data}}}.dot{{fill:{data}}}"
        )

    return (
        "<style>text{font:13px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
        ".head{font-weight:700}path{fill:none}.ideal{stroke-dasharray:5 4;stroke-width:1.5}"
        ".joined{stroke-width:2}.whisker{stroke-width:1.5}"
        f"{scheme(0)}@media(prefers-color-scheme:dark){{{scheme(1)}}}</style>"
    )
