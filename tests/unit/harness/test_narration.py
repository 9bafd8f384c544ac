"""What the harness says while a run goes on, from rank 0's live page."""

from __future__ import annotations

import io
import re

from harness.progress import Narrator, follow
from harness_probe.live import LiveFile, packed_unit


def test_each_change_of_phase_is_a_line_and_steps_are_none(tmp_path):
    said, path = io.StringIO(), tmp_path / "rank-00000.live"
    looks = follow(path, Narrator(stream=said))
    next(looks)  # no page yet
    page = LiveFile(path)
    units = ["startup", "load", "load", "preprocess", "prefill", "decode", "decode", "postprocess"]
    for number, phase in enumerate(units, 1):
        key = {"phase": phase, "step": number, "batch": 0, "microbatch": None, "repeat": None}
        page.unit(packed_unit(number, 5, key | {"warmup": number == 5, "perturbed_by": None}))
        page.update(6, number)
        next(looks)
        next(looks)
    page.close()
    lines = [re.sub(r" +\d+\.\d s +", "", line) for line in said.getvalue().splitlines()]
    assert lines == ["startup", "load", "preprocess", "warm-up", "generate"]
