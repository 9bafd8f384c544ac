"""Colours and hatchings of the report, and the words for the nine parts.

Chosen so that every two parts differ for readers with protanopia, deuteranopia and tritanopia
(tests/unit/analysis/report/test_palette.py simulates them), and so that what is lost to waiting,
what cannot be told and what is not classified stay apart in greyscale: they are hatched.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness_schemas.vocabulary import PART_LABELS, PARTS


@dataclass(frozen=True)
class PartStyle:
    """How a part is drawn: fill in light and dark, and plotly's pattern (empty: solid)."""

    light: str
    dark: str
    pattern: str
    meaning: str


STYLES: dict[str, PartStyle] = {
    "compute_ns": PartStyle(
        "#005eb7", "#6f9ee4", "", "Computing: kernels, or on a CPU run the thread's CPU time."
    ),
    "fused_ns": PartStyle(
        "#31285e", "#7a43c0", "", "Kernels that compute and communicate at the same time."
    ),
    "comm_transfer_ns": PartStyle(
        "#39b782",
        "#88efda",
        "",
        "Exposed transfer: data moves between ranks while this rank computes nothing. An upper "
        "bound: a network delay of the last rank to arrive is in it.",
    ),
    "comm_wait_ns": PartStyle(
        "#eb4925",
        "#f57a00",
        "/",
        "Exposed waiting: this rank is inside a call that another rank has not reached yet.",
    ),
    "comm_unsplit_ns": PartStyle(
        "#e7bd0c",
        "#fbe86e",
        "x",
        "Exposed communication whose waiting and transfer cannot be told apart.",
    ),
    "memcpy_ns": PartStyle(
        "#cf7bba", "#cb6280", "", "Exposed copying between host and device memory."
    ),
    "io_ns": PartStyle(
        "#552c00", "#966b3b", "", "Reading and writing files on the unit's own path."
    ),
    "idle_ns": PartStyle(
        "#e1e6ed", "#333a42", "", "Nothing ran, and the evidence is complete enough to say so."
    ),
    "unresolved_ns": PartStyle(
        "#6f7279", "#97a5b0", ".", "Time that the evidence at hand cannot classify."
    ),
}

SERIES_LIGHT = (
    "#005eb7",
    "#eb4925",
    "#39b782",
    "#31285e",
    "#b58900",
    "#cf7bba",
    "#6f7279",
    "#552c00",
)
SERIES_DARK = (
    "#6f9ee4",
    "#f57a00",
    "#88efda",
    "#b48cf0",
    "#fbe86e",
    "#cb6280",
    "#97a5b0",
    "#d8a878",
)
SCALE_LIGHT = ("#f3f5f8", "#fde3cf", "#fbb27c", "#f0711f", "#8f2d04")
SCALE_DARK = ("#1c222b", "#4a2a17", "#9a4a16", "#f0802f", "#ffe3c4")
"""Sequential, for heat maps: nothing to much."""


def part_color(part: str) -> str:
    """The theme's colour of a part."""
    return f"var(--{css_name(part)})"


def css_name(part: str) -> str:
    """`comm_wait_ns` -> `part-comm-wait`."""
    return "part-" + part.removesuffix("_ns").replace("_", "-")


SCALE_PLACES = (0, 0.04, 0.18, 0.5, 1)
"""Where the colours lie: much of them for the small values, which one peak would hide."""


def color_scale() -> list[list[object]]:
    """Plotly's sequential colour scale in colours of the theme."""
    return [[place, f"var(--scale-{index})"] for index, place in enumerate(SCALE_PLACES)]


def variables(dark: bool) -> dict[str, str]:
    """CSS custom properties of the drawn colours."""
    found = {css_name(part): style.dark if dark else style.light for part, style in STYLES.items()}
    series = SERIES_DARK if dark else SERIES_LIGHT
    found |= {f"series-{index}": color for index, color in enumerate(series)}
    scale = SCALE_DARK if dark else SCALE_LIGHT
    return found | {f"scale-{index}": color for index, color in enumerate(scale)}


def part_names() -> list[tuple[str, str, str, str]]:
    """(part, CSS name, label, meaning) of the nine parts in order."""
    return [(part, css_name(part), PART_LABELS[part], STYLES[part].meaning) for part in PARTS]
