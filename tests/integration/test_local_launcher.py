"""The local launcher with real processes: how ranks end, and that none is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from harness_schemas.errors import LaunchError
from harness_schemas.spi import LaunchPlan
from harness_slurm.local import LocalLauncher
from harness_slurm.processes import LAUNCH_ID, look, sweep

pytestmark = pytest.mark.integration

SLEEP = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def plan(folder, script, world_size=3, **options):
    return LaunchPlan(
        argv=(sys.executable, "-c", f"import os; rank = int(os.environ['RANK'])\n{script}"),
        env={"HARNESS_TEST_FOLDER": str(folder), "OMP_NUM_THREADS": "1"},
        world_size=world_size,
        run_dir=folder,
        **options,
    )


def alive(folder):
    """Living processes whose environment names this test's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get("HARNESS_TEST_FOLDER") == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(condition, seconds=60.0):  # a busy machine takes long to import torch
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def rank_process(folder, rank):
    """The rank itself, once it has become the command of the plan."""
    for process in alive(folder):
        try:
            command = process.cmdline()
            if "-c" in command and process.environ().get("RANK") == str(rank):
                return process
        except psutil.Error:
            continue
    return None


def test_words_of_a_command_reach_the_shell_as_they_are(folder):
    """torch's agent takes a $$ for a $ that was escaped."""
    words = (
        "sh",
        "-c",
        'printf "%s|" "$$" "$1" >"$HARNESS_TEST_FOLDER/said.$RANK"',
        "x",
        "$$ ${n}",
    )
    env = {"HARNESS_TEST_FOLDER": str(folder)}
    assert LocalLauncher().launch(LaunchPlan(words, env, 1, folder)).exit_code == 0
    process, word, _ = (folder / "said.0").read_text().split("|")
    assert process.isdigit() and word == "$$ ${n}"


@pytest.fixture
def folder(tmp_path):
    yield tmp_path
    left = alive(tmp_path)
    for process in left:
        process.kill()
    assert left == []


def log(folder, rank, stream="out"):
    return (folder / "logs" / f"rank-{rank:05d}.{stream}").read_text()


def test_success_gives_each_rank_its_place_and_its_files(folder):
    script = (
        "print(rank, os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK'], "
        "os.environ['MASTER_ADDR'], os.environ['MASTER_PORT'].isdigit())\n"
        "os.write(2, b'narration')"
    )
    result = LocalLauncher().launch(plan(folder, script))
    assert (result.exit_code, result.failures) == (0, ())
    assert not result.timed_out and not result.interrupted
    for rank in range(3):
        assert log(folder, rank) == f"{rank} 3 {rank} 127.0.0.1 True\n"
        assert log(folder, rank, "err") == "narration"


def test_progress_is_advanced_while_ranks_run(folder):
    seen = []
    ticks = (seen.append(i) for i in range(1000))
    LocalLauncher().launch(plan(folder, "", world_size=1), progress=ticks)
    assert len(seen) >= 2


def test_failing_rank_ends_all_and_is_named_with_its_last_words(folder):
    script = (
        "import sys, time\n"
        "if rank == 1: print('no such layer', file=sys.stderr); sys.exit(3)\n"
        "time.sleep(60)"
    )
    began = time.monotonic()
    result = LocalLauncher().launch(plan(folder, script))
    assert time.monotonic() - began < 15
    assert result.exit_code == 3
    first, *others = result.failures
    assert (first.rank, first.exit_code, first.message) == (1, 3, "no such layer")
    assert {(f.rank, f.exit_code) for f in others} == {(0, -15), (2, -15)}
    assert all("another rank" in f.message for f in others)
    assert abs(first.noticed_ns - time.time_ns()) < 15e9


def test_killed_rank_is_the_cause_though_peers_complain_first(folder):
    # Rank 0 notices that its peer has gone, as gloo does, before torch's agent looks.
    script = (
        "import time\n"
        "if rank == 0:\n"
        f"    while not os.path.exists({str(folder / 'killed')!r}): time.sleep(0.001)\n"
        "    raise RuntimeError('gloo/transport/tcp/pair.cc: Connection closed by peer')\n"
        "time.sleep(60)"
    )

    def kill_rank_2():
        wait_until(lambda: rank_process(folder, 2))
        time.sleep(0.3)
        rank_process(folder, 2).kill()
        (folder / "killed").touch()

    killer = threading.Thread(target=kill_rank_2)
    killer.start()
    result = LocalLauncher().launch(plan(folder, script))
    killer.join()
    assert result.exit_code == 128 + 9
    assert (result.failures[0].rank, result.failures[0].exit_code) == (2, -9)
    assert result.failures[0].message == "killed by SIGKILL"


@pytest.mark.parametrize("left", ["", '{"message": ', "[]", '{"message": {}}'])
def test_a_rank_killed_while_it_writes_why_is_told_all_the_same(folder, left):
    """Another program's error file may be torn, or no such file at all."""
    script = (
        "import pathlib, signal, time\n"
        "if rank == 1:\n"
        f"    pathlib.Path(os.environ['TORCHELASTIC_ERROR_FILE']).write_text({left!r})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(60)"
    )
    result = LocalLauncher().launch(plan(folder, script))
    assert result.exit_code == 128 + signal.SIGKILL
    assert result.failures[0].rank == 1


def test_real_gloo_peers_of_a_killed_rank_are_not_the_cause(folder):
    script = (
        "import signal, torch, torch.distributed as dist\n"
        "dist.init_process_group('gloo')\n"
        "for step in range(10**9):\n"
        "    dist.all_reduce(torch.ones(4))\n"
        "    if rank == 2 and step == 50: os.kill(os.getpid(), signal.SIGKILL)"
    )
    result = LocalLauncher().launch(plan(folder, script))
    assert result.exit_code == 128 + 9
    assert (result.failures[0].rank, result.failures[0].exit_code) == (2, -9)
    assert {f.rank for f in result.failures[1:]} <= {0, 1}


def test_rank_that_ignores_sigterm_is_ended_within_seconds(folder):
    script = f"import sys, time\nif rank == 0: time.sleep(1); sys.exit(5)\n{DEAF}"
    began = time.monotonic()
    result = LocalLauncher().launch(plan(folder, script))
    assert time.monotonic() - began < 15
    assert result.exit_code == 5
    assert result.failures[0].rank == 0
    assert {f.exit_code for f in result.failures[1:]} == {-9}


def test_timeout_ends_ranks_and_what_they_started(folder):
    script = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', {DEAF!r}], start_new_session=True)\n" + DEAF
    )
    result = LocalLauncher().launch(plan(folder, script, timeout_s=4.0))
    assert result.timed_out
    assert result.exit_code == 124


def test_daemon_left_by_a_rank_is_swept(folder):
    script = (
        "import subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"
    )
    assert LocalLauncher().launch(plan(folder, script, world_size=1)).exit_code == 0


def test_taken_port_is_one_line_and_nothing_starts(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError) as caught:
            LocalLauncher().launch(plan(folder, SLEEP, port=port))
    assert f"port {port}" in caught.value.message
    assert "\n" not in caught.value.message
    assert list(folder.iterdir()) == []


def test_given_port_is_used(folder):
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    script = "print(os.environ['MASTER_PORT'])"
    assert LocalLauncher().launch(plan(folder, script, 1, port=port)).exit_code == 0
    assert log(folder, 0) == f"{port}\n"


def test_missing_command_is_told(folder):
    missing = LaunchPlan(("no-such-command",), {}, 1, folder)
    result = LocalLauncher().launch(missing)
    assert result.exit_code == 127
    assert "no-such-command" in result.failures[0].message


def test_agent_that_is_killed_is_a_launch_error(folder):
    def kill_agent():
        wait_until(lambda: rank_process(folder, 0))
        rank_process(folder, 0).parent().kill()

    killer = threading.Thread(target=kill_agent)
    killer.start()
    with pytest.raises(LaunchError, match="code -9"):
        LocalLauncher().launch(plan(folder, DEAF))
    killer.join()


HARNESS = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the tests inherit that it is ignored
from harness_schemas.spi import LaunchPlan
from harness_slurm.local import LocalLauncher
folder = Path(sys.argv[1])
env = {"HARNESS_TEST_FOLDER": str(folder)}
plan = LaunchPlan((sys.executable, "-c", sys.argv[2]), env, 2, folder)
result = LocalLauncher().launch(plan)
assert "torch" not in sys.modules
sys.exit(result.exit_code if result.interrupted else 99)
"""


@pytest.fixture
def harness(folder):
    """A process that launches two ranks deaf to SIGTERM, both of them running."""
    process = subprocess.Popen([sys.executable, "-c", HARNESS, str(folder), DEAF])
    assert wait_until(lambda: rank_process(folder, 0) and rank_process(folder, 1), 30)
    yield process
    process.kill()
    process.wait()


def test_sigint_ends_everything(harness, folder):
    harness.send_signal(signal.SIGINT)
    assert harness.wait(15) == 130
    assert alive(folder) == []


def test_second_sigint_ends_everything_at_once(harness, folder):
    harness.send_signal(signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    harness.send_signal(signal.SIGINT)
    assert harness.wait(10) == 130
    assert time.monotonic() - began < 2.5
    assert alive(folder) == []


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_no_orphan_when_the_harness_dies(harness, folder, signum):
    harness.send_signal(signum)
    harness.wait(10)
    assert wait_until(lambda: alive(folder) == [], 12)


def test_no_orphan_when_harness_and_agent_are_killed_together(harness, folder):
    agent = rank_process(folder, 0).parent()
    harness.kill()
    agent.kill()
    harness.wait(10)
    assert wait_until(lambda: alive(folder) == [], 5)


def test_mark_finds_only_its_own(folder):
    env = {**os.environ, LAUNCH_ID: "mine", "HARNESS_TEST_FOLDER": str(folder)}
    with subprocess.Popen([sys.executable, "-c", SLEEP], env=env) as process:
        try:
            assert wait_until(lambda: look("mine")[0] == [process.pid])
            assert look("min")[0] == []
        finally:
            process.kill()


RESTARTING = "import os, sys; os.execv(sys.executable, sys.orig_argv)"


def test_a_process_in_the_middle_of_exec_is_not_overlooked(folder):
    # It shows no environment then, and was taken for somebody else's in 2 % of looks.
    env = {LAUNCH_ID: "again", "HARNESS_TEST_FOLDER": str(folder)}
    command = [sys.executable, "-I", "-S", "-c", RESTARTING]
    with subprocess.Popen(command, env=env) as process:
        try:
            for _ in range(300):
                marked, doubtful = look("again")
                assert process.pid in (*marked, *doubtful)
                time.sleep(0.003)
            sweep("again")
            assert process.wait(5) == -signal.SIGKILL
        finally:
            process.kill()
