"""The printed answer: its numbers, its width, the same bytes everywhere."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from example_run import LATE, example_database
from hypothesis import given
from hypothesis import strategies as st
from truth.simulate import Scenario

from harness.cli.printing.answer import GLYPHS, bar, render_answer
from harness.cli.printing.rows import WIDTH
from harness_analysis.answer import Parts, load_answer
from harness_analysis.store import open_database
from harness_schemas.vocabulary import PARTS


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    with open_database(example_database(tmp_path_factory.mktemp("render"))) as con:
        return load_answer(con)


def test_the_whole_answer_is_there(answer):
    text = render_answer(answer, "utf-8")
    assert "example  finished: ok" in text
    assert "TP 2 x PP 2, 4 ranks on node0, cpu, float32" in text
    assert answer.findings[0].text.split(";")[0] in " ".join(text.split())
    assert "tokens/s (164 tokens of 4 requests in " in text
    assert "163 of 164 tokens equal (99.4 %), 1 declared tie" in text
    assert "nvml skipped: no NVIDIA driver" in text
    assert "no evidence for fused, memcpy, idle" in text
    for row in answer.of_phase("decode"):
        share = f"{100 * row.parts.share('comm_wait_ns'):.1f} %"
        assert any(
            line.split()[:3] == [str(row.rank), str(row.stage), str(row.tp_rank)] and share in line
            for line in text.splitlines()
        )


def test_lines_fit_and_hold_no_escape(answer):
    text = render_answer(answer, "utf-8")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text and text.endswith("\n")
    assert all(line == line.rstrip() for line in text.splitlines())


def test_ascii_where_the_output_is_not_unicode(answer):
    text = render_answer(answer, "latin-1")
    assert text.isascii() and "/////" in text and "# compute" in text


def test_hostile_text_is_not_obeyed(answer):
    run = dataclasses.replace(answer.run, name="[red]x[/red]\x1b[2J\u202e", verdict_detail="a\x07b")
    finding = dataclasses.replace(answer.findings[0], text="\x1b]0;title\x07[bold]\\[/]")
    text = render_answer(dataclasses.replace(answer, run=run, findings=(finding,)), "utf-8")
    assert "[red]x[/red]" in text and "[bold]" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_an_end_that_the_evidence_does_not_tell_is_said_once(answer):
    run = dataclasses.replace(
        answer.run, status=None, verdict="unknown", verdict_detail="read logs"
    )
    first, second = render_answer(dataclasses.replace(answer, run=run), "utf-8").splitlines()[:2]
    assert first.endswith("  status unknown") and second.startswith("TP ")


def test_unknown_is_a_dash_never_zero(tmp_path):
    path = example_database(tmp_path, Scenario(steps=2), bare=True, tp=None, correctness=None)
    with open_database(path) as con:
        text = render_answer(load_answer(con), "utf-8")
    assert "TP - x PP 2" in text
    assert "- tokens/s: no measured batch ended" in text
    assert "not compared with a reference" in text


def test_a_failed_comparison_says_why(answer):
    found = dataclasses.replace(answer.correctness, verdict="fail", why="prompt-1 differs at 3")
    text = render_answer(dataclasses.replace(answer, correctness=found), "utf-8")
    assert "  fail, 163 of 164" in text and "  prompt-1 differs at 3\n" in text
    assert "prompt-1 differs" not in render_answer(answer, "utf-8")


def test_of_many_ranks_the_extremes_are_shown_and_the_rest_announced(answer):
    (row,) = answer.of_phase("decode")[:1]
    rows = []
    for rank in range(64):
        wait = 1_000_000 * (rank + 1)
        ns = {**row.parts.ns, "comm_wait_ns": wait, "compute_ns": 75_789_601 - wait}
        rows.append(dataclasses.replace(row, rank=rank, parts=Parts(79_789_601, ns)))
    text = render_answer(dataclasses.replace(answer, breakdown=tuple(rows)), "utf-8")
    shown = [
        int(line.split()[0])
        for line in text.splitlines()
        if line.endswith("\u2571") and "%" in line and line.split()[0].isdigit()
    ]
    assert shown == [0, 1, 2, 3, 60, 61, 62, 63]
    assert "8 of 64 ranks" in text and "FROM rank_breakdown" in text


@given(st.lists(st.integers(0, 10**12), min_size=9, max_size=9), st.integers(1, 60))
def test_a_bar_has_its_width_and_each_part_its_share(values, width):
    parts = Parts(sum(values), dict(zip(PARTS, values, strict=True)))
    text = bar(parts, width)
    assert len(text) == (width if sum(values) else 0)
    for part in PARTS:
        if sum(values):
            assert (
                abs(text.count(GLYPHS[part][0]) - width * values[PARTS.index(part)] / sum(values))
                <= 1
            )


def test_bars_tell_every_part_apart():
    for index in (0, 1):
        assert len({glyphs[index] for glyphs in GLYPHS.values()}) == len(PARTS)
    assert set(GLYPHS) == set(PARTS)


def test_the_same_bytes_on_a_terminal_and_in_a_pipe(tmp_path):
    import pty

    path = example_database(tmp_path, dataclasses.replace(LATE, steps=12))
    code = f"""
import sys
from pathlib import Path
from harness_analysis.answer import load_answer
from harness_analysis.store import open_database
from harness.cli.printing.answer import render_answer
with open_database(Path({str(path)!r})) as con:
    sys.stdout.write(render_answer(load_answer(con)))
"""
    command = [sys.executable, "-c", code]
    environment = {"PYTHONUTF8": "1", "TERM": "xterm-256color", "COLUMNS": "60"}
    piped = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    parent, child = pty.openpty()
    with subprocess.Popen(command, stdout=child, env=environment) as process:
        import os

        os.close(child)
        shown = b""
        while True:
            try:
                block = os.read(parent, 65536)
            except OSError:
                break
            if not block:
                break
            shown += block
        process.wait()
    os.close(parent)
    assert shown.replace(b"\r\n", b"\n") == piped and len(piped) > 1000
