"""Decoding on GPUs: eager steps and CUDA graphs give the same tokens, and both are divided."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from harness_analysis.store import open_database

pytestmark = pytest.mark.gpu

SPEC = """
name = "modes"
device = "cuda"
dtype = "float32"
[model]
synthetic = "tiny-llama"
[prompts]
limit = 2
[parallel]
tp = {tp}
pp = {pp}
[generation]
batch_size = 2
new_tokens = 20
mode = "{mode}"
instrument_every = 4
[check]
reference = false
[collectors]
psutil = false
nvml = false
[collectors.torch_profiler]
first = 6
count = 6
[launcher]
timeout = "2min"
[output]
dir = "{runs}"
"""


def run(folder, mode, tp, pp):
    """The folder of one run."""
    runs = folder / f"{mode}-{tp}-{pp}"
    spec = folder / f"{mode}-{tp}-{pp}.toml"
    spec.write_text(SPEC.format(mode=mode, tp=tp, pp=pp, runs=runs))
    argv = [sys.executable, "-m", "harness", "run", str(spec), "--quiet"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=180, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return (runs / "latest").resolve()


def tokens(run):
    """What every prompt was answered, whichever rank wrote it down."""
    lines = [
        json.loads(line)
        for file in run.glob("completions/*.jsonl")
        for line in file.read_text().splitlines()
    ]
    return {(line["id"], line["repeat"]): line["tokens"] for line in lines}


@pytest.fixture(scope="module", params=[(1, 1), (2, 1), (1, 2)], ids=["1", "tp2", "pp2"])
def runs(request, tmp_path_factory):
    """Runs in both modes of one configuration."""
    import torch

    tp, pp = request.param
    if torch.cuda.device_count() < tp * pp:
        pytest.skip(f"{tp * pp} GPUs are needed")
    folder = tmp_path_factory.mktemp("modes")
    return {mode: run(folder, mode, tp, pp) for mode in ("eager", "graph")}


def test_both_modes_give_the_same_tokens(runs):
    assert tokens(runs["eager"]) == tokens(runs["graph"]) != {}


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_windows_with_kernels_are_divided_without_rest(runs, mode):
    with open_database(runs[mode] / "run.duckdb") as con:
        rows = con.execute(
            """
            SELECT window_ns, coalesce(unresolved_ns, 0) + coalesce(comm_unsplit_ns, 0)
            FROM step_breakdown_all WHERE phase = 'decode' AND evidence = 'torch_profiler'
            """
        ).fetchall()
    assert rows
    assert sum(rest for _, rest in rows) <= 0.01 * sum(window for window, _ in rows)


def test_stamps_and_kernels_of_a_graph_agree_on_waiting(runs):
    with open_database(runs["graph"] / "run.duckdb") as con:
        rows = con.execute(
            """
            SELECT k.duration_ns BETWEEN g.low_ns AND g.duration_ns, abs(g.wait_ns - k.wait_ns)
            FROM collectives_all g
            JOIN collectives_all k USING (rank, comm_group, seq, repeat, batch, step)
            WHERE g.source = 'graph_events' AND k.source = 'torch_profiler'
              AND g.op = 'all_reduce' AND g.phase = 'decode' AND g.wait_ns IS NOT NULL
            """
        ).fetchall()
        ranks = con.execute("SELECT any_value(tp) FROM runs").fetchone()[0]
    if ranks == 1:
        pytest.skip("without tensor parallelism there is no collective in the graph")
    assert len(rows) >= 8
    assert sum(inside for inside, _ in rows) >= 0.95 * len(rows)
    assert sorted(off for _, off in rows)[len(rows) // 2] <= 2_000
