from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from unit.probe.spool import read, rows

from harness_runners.files.storage import storage_bytes_read, storage_bytes_since
from harness_runners.plan import InjectPlan
from harness_runners.rank import inject
from harness_runners.rank.process import RankEnv
from harness_schemas.errors import UsageError

# A rank that says it is ready and then blocks in C: reading a pipe into a buffer holds no
# bytecode loop in which a Python signal handler could run.
STUCK = """
import ctypes, pathlib, sys, time
import harness_probe as probe
from harness_runners.rank import process as rank_process
from harness_schemas.rundir import RunDir
run = RunDir(pathlib.Path(sys.argv[1]))
rank_process.redirect_output(run, 3)
rank_process.watch_signals()
probe.start(run.spans, 3, 4, 0)
with probe.span("before the hang"):
    pass
pathlib.Path(sys.argv[1], "ready").touch()
%s
"""


@pytest.fixture
def rank(tmp_path):
    """Starts a stuck rank and waits until it is stuck."""
    (tmp_path / "logs").mkdir()
    started = []

    def start(body):
        command = [sys.executable, "-c", STUCK % body, str(tmp_path)]
        process = subprocess.Popen(command)
        started.append(process)
        until = time.monotonic() + 20
        while not (tmp_path / "ready").exists() and time.monotonic() < until:
            time.sleep(0.02)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def meta(folder, kind):
    return rows(folder / "spans", kind, rank=3)


def test_sigterm_ends_a_rank_whose_main_thread_is_in_c(tmp_path, rank):
    process = rank("ctypes.CDLL(None).sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == -signal.SIGTERM
    assert meta(tmp_path, "error")[0]["message"] == "ended by SIGTERM"
    assert len(read(tmp_path / "spans", 3).records) == 1


def test_sigusr2_flushes_and_shows_the_stacks_and_the_rank_goes_on(tmp_path, rank):
    process = rank("ctypes.CDLL(None).sleep(60)")
    process.send_signal(signal.SIGUSR2)
    log = tmp_path / "logs" / "rank-00003.err"
    until = time.monotonic() + 5
    while "most recent call first" not in log.read_text() and time.monotonic() < until:
        time.sleep(0.02)
    assert "most recent call first" in log.read_text()
    assert process.poll() is None


def test_output_goes_to_the_ranks_own_files_below_python_too(tmp_path, rank):
    process = rank("print('said'); sys.stdout.flush(); ctypes.CDLL(None).write(2, b'below', 5)")
    assert process.wait(10) == 0
    assert (tmp_path / "logs" / "rank-00003.out").read_text() == "said\n"
    assert (tmp_path / "logs" / "rank-00003.err").read_text() == "below"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, RankEnv(0, 0, 1)),
        ({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}, RankEnv(3, 1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}, RankEnv(2, 0, 8)),
        ({"RANK": "3", "SLURM_PROCID": "0", "WORLD_SIZE": "4"}, RankEnv(3, 0, 4)),
    ],
)
def test_the_launchers_environment(monkeypatch, variables, expected):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert RankEnv.read() == expected


def test_a_broken_environment_is_a_usage_error(monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UsageError, match="first"):
        RankEnv.read()


CPU = SimpleNamespace(type="cpu")


def elapsed_ns(call):
    start = time.monotonic_ns()
    call()
    return time.monotonic_ns() - start


def pass_layer(injector):
    with injector.layer(0):
        pass


@pytest.mark.parametrize(("every", "step_ms", "layer_ms"), [("step", 5, 0), ("layer", 0, 5)])
def test_a_delay_is_where_it_was_asked_for(every, step_ms, layer_ms):
    injector = inject.make_injector(InjectPlan(1, 5_000_000, every), rank=1, device=CPU)
    assert elapsed_ns(injector.host_step) // 1_000_000 >= step_ms
    assert elapsed_ns(lambda: pass_layer(injector)) // 1_000_000 >= layer_ms
    unhurried = elapsed_ns(injector.host_step) if every == "layer" else 0
    assert unhurried < 4_000_000


@pytest.mark.parametrize("plan", [None, InjectPlan(1, 5_000_000), InjectPlan(0, 0)])
def test_other_ranks_and_no_delay_are_left_alone(plan):
    injector = inject.make_injector(plan, rank=0, device=CPU)
    assert type(injector) is inject.Injector
    assert elapsed_ns(injector.host_step) < 4_000_000


def test_storage_reads_are_counted_or_unknown():
    before = storage_bytes_read()
    assert before is None or before >= 0
    assert storage_bytes_since(None) is None
    if before is not None:
        assert storage_bytes_since(before) >= 0
