"""The nine parts stay apart for everybody: simulated colour-blindness, greyscale, contrast."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness_analysis.report.palette import STYLES, variables
from harness_schemas.vocabulary import PARTS

# Machado, Oliveira, Fernandes 2009: severity 1.0, on linear RGB.
VISION = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array(
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
) / np.array([[0.95047], [1.0], [1.08883]])


def linear(color: str) -> np.ndarray:
    rgb = np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(rgb, 0, 1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def distance(a: str, b: str, vision: np.ndarray) -> float:
    """CIE76 difference; 2.3 is just noticeable."""
    return float(np.linalg.norm(lab(vision @ linear(a)) - lab(vision @ linear(b))))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_every_two_parts_differ(theme, vision):
    for a, b in itertools.combinations(PARTS, 2):
        colors = getattr(STYLES[a], theme), getattr(STYLES[b], theme)
        assert distance(*colors, VISION[vision]) > 15, (a, b)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_wait_and_transfer_are_unmistakable(theme, vision):
    wait, transfer = STYLES["comm_wait_ns"], STYLES["comm_transfer_ns"]
    assert distance(getattr(wait, theme), getattr(transfer, theme), VISION[vision]) > 30
    assert wait.pattern and not transfer.pattern


def test_hatchings_differ_where_colours_are_gone():
    patterns = [style.pattern for style in STYLES.values() if style.pattern]
    assert len(set(patterns)) == len(patterns) == 3


def test_both_themes_define_the_same_names():
    assert set(variables(dark=False)) == set(variables(dark=True))
    assert set(STYLES) == set(PARTS)
