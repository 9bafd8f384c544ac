"""The agent: real processes, real signals, and nobody left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

SAMPLER = "harness_collectors.psutil_host:sampler"


def argv(run_dir, *more, targets=(SAMPLER,)):
    specs = [{"target": target, "options": {"interval": "100ms"}} for target in targets]
    command = [sys.executable, "-m", "harness_collectors.agent", "--run-dir", str(run_dir)]
    return [*command, "--samplers", json.dumps(specs), *more]


@pytest.fixture
def agent(tmp_path):
    started = []

    def start(*more, stdin=subprocess.PIPE, **kwargs):
        process = subprocess.Popen(
            argv(tmp_path, *more, **kwargs), stdin=stdin, stderr=subprocess.PIPE
        )
        started.append(process)
        wait_for(lambda: list(tmp_path.glob("artifacts/*/*/samples.jsonl")))
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stderr):
            if stream is not None:
                stream.close()


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def state(run_dir):
    (path,) = run_dir.glob("artifacts/psutil/*/state.json")
    return json.loads(path.read_text())


def test_end_of_stdin_ends_it(agent, tmp_path):
    process = agent()
    process.stdin.close()
    assert process.wait(5) == 0
    assert state(tmp_path)["samples"] >= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it(agent, tmp_path, number):
    process = agent()
    process.send_signal(number)
    assert process.wait(5) == 0
    assert state(tmp_path)["samples"] >= 1


def test_interrupt_is_left_to_the_parent(agent):
    process = agent()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGUSR1)  # the death of the starter's thread, not of the starter
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)


def test_stdin_that_is_no_pipe_is_not_watched(agent):
    process = agent(stdin=subprocess.DEVNULL)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)


def test_stdin_can_be_ignored(agent):
    process = agent("--ignore-stdin")
    process.stdin.close()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)


def test_death_of_the_parent_ends_it(tmp_path):
    """A parent killed with SIGKILL, its agent's stdin held open by somebody else."""
    keep_open, theirs = os.pipe()
    code = "import subprocess, sys; subprocess.Popen(sys.argv[1:], stdin=0); sys.stdin.read()"
    parent = subprocess.Popen([sys.executable, "-c", code, *argv(tmp_path)], stdin=keep_open)
    os.close(keep_open)
    wait_for(lambda: list(tmp_path.glob("artifacts/*/*/samples.jsonl")))
    (child,) = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    try:
        _, alive = psutil.wait_procs([child], timeout=5)
        assert not alive
        assert state(tmp_path)["samples"] >= 1
    finally:
        os.close(theirs)


def test_a_sampler_that_cannot_start_is_said_and_the_others_run(agent, tmp_path):
    process = agent(targets=("no_such_module:sampler", "os:no_such_attribute", SAMPLER))
    process.stdin.close()
    assert process.wait(5) == 0
    said = process.stderr.read().decode().splitlines()
    assert [line.split(": ")[1].split()[1] for line in said] == [
        "no_such_module:sampler",
        "os:no_such_attribute",
    ]
    assert state(tmp_path)["state"] in ("ok", "degraded")
