"""Stacks of real processes: by their own handler, by py-spy, and without harm to those without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness_analysis.hang.stacks import main_stack
from harness_collectors.stacks.take import take_stacks
from harness_collectors.stacks.vitals import catches, read_vitals
from harness_probe import stacks as probe_stacks
from harness_probe.stacks import stack_file, stack_signal
from harness_schemas import hang_files

RANK = """
import sys, time
import harness_probe as probe
probe.start(sys.argv[1], rank=3, world_size=4)
def stands_here():
    print("ready", flush=True)
    time.sleep(60)
stands_here()
"""


@pytest.fixture
def processes():
    started = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(processes, folder, *, watched):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    env.pop(hang_files.VARIABLE, None)
    if watched:
        env[hang_files.VARIABLE] = str(folder / "hang")
    command = [sys.executable, "-c", RANK, str(folder / "spans")]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)
    processes.append(process)
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.fixture
def without_py_spy(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)


def test_a_rank_writes_its_own_stacks_when_asked(tmp_path, processes, without_py_spy):
    rank = start(processes, tmp_path, watched=True)
    taken = take_stacks(tmp_path / "hang", {3: rank.pid})
    assert taken["3"]["how"] == "faulthandler"
    text = stack_file(tmp_path / "hang", 3).read_text()
    assert main_stack(text)[0].name == "stands_here"
    assert rank.poll() is None


def test_a_rank_without_a_handler_is_left_alone(tmp_path, processes, without_py_spy):
    rank = start(processes, tmp_path, watched=False)
    assert not catches(rank.pid, stack_signal())
    taken = take_stacks(tmp_path, {3: rank.pid})
    assert taken["3"]["how"].startswith("none: it has no handler")
    assert rank.poll() is None


def test_a_stopped_rank_and_one_that_is_gone_say_so(tmp_path, processes, without_py_spy):
    rank = start(processes, tmp_path, watched=True)
    os.kill(rank.pid, signal.SIGSTOP)
    while read_vitals(rank.pid).get("state") != "T":
        time.sleep(0.01)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    taken = take_stacks(tmp_path / "hang", {2: gone.pid, 3: rank.pid})
    assert taken["3"]["how"].startswith("none: a stopped process") and "T" in taken["3"]["kernel"]
    assert taken["2"]["gone"] and taken["2"]["how"] == "none: there is no such process"


def test_py_spy_is_preferred_where_it_may_look(tmp_path, processes, monkeypatch):
    tool = tmp_path / "py-spy"
    tool.write_text("#!/bin/sh\nprintf 'Thread 1 (idle): \"MainThread\"\\n    f (a.py:3)\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    rank = start(processes, tmp_path, watched=True)
    assert take_stacks(tmp_path / "hang", {3: rank.pid})["3"]["how"] == "py-spy"
    assert main_stack(stack_file(tmp_path / "hang", 3).read_text())[0].short() == "f (a.py:3)"


def test_vitals_tell_work_from_standing():
    before = read_vitals(os.getpid())
    held = bytearray(os.urandom(32 << 20))
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    after = read_vitals(os.getpid())
    assert after["cpu_ns"] > before["cpu_ns"] and after["state"] == "R"
    assert after["rss_bytes"] - before["rss_bytes"] > (16 << 20) and len(held)


def test_both_sides_mean_the_same_signal_and_variable():
    assert stack_signal() == signal.SIGRTMIN + hang_files.SIGNAL_OFFSET
    assert probe_stacks.VARIABLE == hang_files.VARIABLE
    assert stack_file(Path("x"), 3) == hang_files.stack_file(Path("x"), 3)
