"""The scenes that benchmarks/ends.py plays: how each end is brought about."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import slurm_jobs as jobs
from slurm_ends import (
    EAT,
    RAISE,
    RAISE_GPU_OOM,
    SPEC,
    Answer,
    Scene,
)

TOOLS = Path(__file__).parents[1] / "tests" / "integration" / "tools"
SLURM_ROOT = Path(os.environ.get("HARNESS_SLURM_ROOT", "/var/lib/harness-slurm"))
SHORT = SPEC.replace("repeats = 2000", "repeats = 60")
FOUR = SHORT.replace("tp = 1", "tp = 2").replace('"1500M"', '"3000M"')
Play = Callable[[Scene], Answer]


@dataclass(frozen=True)
class Plot:
    """A scene to play: how its run ends, how that is brought about, what is run."""

    play: Play
    end: str
    how: str
    spec: str = SPEC
    until: str = "blow"


PLOTS: dict[str, Plot] = {}


def plot(end: str, how: str, spec: str = SPEC, until: str = "blow") -> Callable[[Play], Play]:
    """Register a scene under its function's name."""

    def register(play: Play) -> Play:
        PLOTS[play.__name__.replace("_", "-")] = Plot(play, end, how, spec, until)
        return play

    return register


# -- by themselves, or by a rank ---------------------------------------------------------------


@plot("completed", "4 ranks, TP 2 x PP 2 on two nodes", FOUR, "exit")
def completed(scene: Scene) -> Answer:
    scene.start()
    return scene.end()


@plot("a rank raises", "RuntimeError in rank 1, in the middle of a step")
def rank_raises(scene: Scene) -> Answer:
    return _signalled(scene, RAISE)


@plot("a rank is killed", "SIGKILL of rank 1")
def rank_killed(scene: Scene) -> Answer:
    return _signalled(scene, signal.SIGKILL)


@plot("a rank crashes", "SIGSEGV of rank 1")
def rank_crashes(scene: Scene) -> Answer:
    return _signalled(scene, signal.SIGSEGV)


@plot("a rank hangs", "SIGSTOP of rank 1, --hang-timeout 10s")
def rank_hangs(scene: Scene) -> Answer:
    scene.start("--hang-timeout", "10s")
    scene.to_decode()
    scene.signal(1, signal.SIGSTOP)
    return scene.end()


@plot("out of memory, GPU", "torch.OutOfMemoryError raised in rank 1 (no GPU here)")
def gpu_oom(scene: Scene) -> Answer:
    return _signalled(scene, RAISE_GPU_OOM)


@plot("out of memory, host", "rank 1 eats memory up to the cgroup's limit: OUT_OF_MEMORY")
def host_oom(scene: Scene) -> Answer:
    return _signalled(scene, EAT)


@plot("out of memory, host", "rank 1 eats memory up to an address limit (prlimit --as)")
def host_oom_limit(scene: Scene) -> Answer:
    scene.start()
    scene.to_decode()
    size = f"--as={(_virtual_bytes(scene.pid(1)) + (256 << 20))}"
    subprocess.run(["prlimit", "--pid", str(scene.pid(1)), size], check=True)
    scene.signal(1, EAT)
    return scene.end()


def _virtual_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _signalled(scene: Scene, number: int) -> Answer:
    scene.start()
    scene.to_decode()
    scene.signal(1, number)
    return scene.end()


# -- by Slurm ------------------------------------------------------------------------------------


@plot("time limit", "a limit of one minute", SPEC.replace("5min", "1min"), "exit")
def time_limit(scene: Scene) -> Answer:
    scene.start("--set", "slurm.warn=10s")
    return scene.end()


@plot("cancelled", "scancel while it runs", until="exit")
def cancelled(scene: Scene) -> Answer:
    scene.start()
    scene.to_decode()
    scene.provoke(lambda: _run("scancel", scene.job))
    return scene.end()


@plot("cancelled", "scancel while it waits (begins in an hour)")
def cancelled_pending(scene: Scene) -> Answer:
    scene.start("--set", 'slurm.directives=["--begin=now+1hour"]')
    jobs.wait_for(scene.folder / "runs" / "latest" / "job" / "job.json")
    time.sleep(2)
    scene.provoke(lambda: _run("scancel", scene.job))
    return scene.end()


@plot("preempted for good", "a job in a partition of higher priority, --no-requeue", until="exit")
def preempted(scene: Scene) -> Answer:
    scene.start("--set", "slurm.gpus_per_node=2")
    scene.to_decode()
    scene.provoke(lambda: _urgent_job(scene))
    return scene.end()


@plot("preempted, goes on", "the same, slurm.requeue = true: attempt 1 ends well", SHORT, "exit")
def preempted_requeued(scene: Scene) -> Answer:
    more = ("--set", "slurm.gpus_per_node=2", "--set", "generation.repeats=400")
    scene.start("--set", "slurm.requeue=true", *more)
    scene.to_decode()
    run = scene.run
    _shorten(scene)
    scene.provoke(lambda: _urgent_job(scene))
    return _second_attempt(scene, run)


@plot("requeued", "scontrol requeue: attempt 1 ends well", SHORT, "exit")
def requeued(scene: Scene) -> Answer:
    scene.start("--set", "slurm.requeue=true", "--set", "generation.repeats=400")
    scene.to_decode()
    run = scene.run
    _shorten(scene)
    scene.provoke(lambda: _run("scontrol", "requeue", scene.job))
    return _second_attempt(scene, run)


def _shorten(scene: Scene) -> None:
    """The next attempt is to end by itself."""
    text = scene.run.joinpath("run.json").read_text()
    scene.run.joinpath("run.json").write_text(text.replace('"repeats": 400', '"repeats": 5'))


def _second_attempt(scene: Scene, run: Path) -> Answer:
    blow = scene.provoked_ns
    job = scene.job
    time.sleep(3)  # slurmd refuses a job that it killed within the same second
    jobs.wait_for(run / "attempts" / "0" / "run.json", 120, lambda: _begin_now(job))
    answer = scene.end()
    first = run / "attempts" / "0"
    scene.provoked_ns = blow
    lost = scene.lost_seconds(first, "exit")
    scene.note = f"attempt 0: `{scene.verdict(first)[0]}`, last span {lost:.2f} s before its end"
    scene.provoked_ns = 0
    return answer


def _begin_now(job: str) -> None:
    """A requeued job would wait for two minutes."""
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], capture_output=True)


def _urgent_job(scene: Scene) -> None:
    # By GPUs, so that nobody else's job on this Slurm has to go.
    words = ("sbatch", "--partition=urgent", "--nodes=2", "--gres=gpu:2", "--mem=100", "--time=1")
    _run(*words, "--output=/dev/null", "--wrap=srun sleep 5", cwd=scene.folder)


@plot("a node fails", "slurmd, slurmstepd and rank of node2 killed -9, node2 set down")
def node_fails(scene: Scene) -> Answer:
    return _node_fails(scene, "node2")


@plot("a node fails", "the same of node1, where the job's script runs: no end mark")
def first_node_fails(scene: Scene) -> Answer:
    return _node_fails(scene, "node1")


@plot("a node fails, goes on", "node2 as above, slurm.requeue = true: attempt 1 ends well", SHORT)
def node_fails_requeued(scene: Scene) -> Answer:
    scene.start("--set", "slurm.requeue=true", "--set", "generation.repeats=400")
    scene.to_decode()
    run = scene.run
    _shorten(scene)
    with node_restored("node2"):
        scene.provoke(lambda: _kill_node("node2"))
        _run("scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=ends.py")
        time.sleep(2)
    return _second_attempt(scene, run)


def _node_fails(scene: Scene, node: str) -> Answer:
    scene.start()
    scene.to_decode()
    with node_restored(node):
        scene.provoke(lambda: _kill_node(node))
        # What the controller does by itself after SlurmdTimeout (300 s where nobody sets it).
        _run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=ends.py")
        return scene.end()


def _kill_node(node: str) -> None:
    """Everything on one of the two nodes, which are told apart by their UTS namespaces."""
    pid = int((SLURM_ROOT / "run" / f"slurmd.{node}.pid").read_text())
    space = Path(f"/proc/{pid}/ns/uts").readlink()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "ns" / "uts").readlink() == space:
                os.kill(int(entry.name), signal.SIGKILL)


@contextlib.contextmanager
def node_restored(node: str) -> Iterator[None]:
    """Start the node's slurmd again afterwards."""
    try:
        yield
    finally:
        slurm_up()
        _run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and _states() != ["idle", "idle"]:
            time.sleep(0.5)


def _states() -> list[str]:
    return _run("sinfo", "-hN", "-p", "debug", "-o", "%T").split()


def slurm_up() -> None:
    """Start what does not run."""
    subprocess.run([str(TOOLS / "slurm_up.sh")], capture_output=True, timeout=120)


# -- the accounting ------------------------------------------------------------------------------


@plot("accounting down", "slurmdbd stopped before the job ends", SHORT, "exit")
def accounting_down(scene: Scene) -> Answer:
    with accounting_stopped():
        scene.start()
        return scene.end()


@plot("accounting late", "slurmdbd started again 20 s after the job's end", SHORT, "exit")
def accounting_late(scene: Scene) -> Answer:
    with accounting_stopped():
        scene.start()
        jobs.wait_for(scene.folder / "runs" / "latest" / "job" / "end.json", 200)
        time.sleep(20)
    return scene.end()


@contextlib.contextmanager
def accounting_stopped() -> Iterator[None]:
    """No slurmdbd inside."""
    pid = int((SLURM_ROOT / "run" / "slurmdbd.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(OSError):
        for _ in range(100):
            os.kill(pid, 0)
            time.sleep(0.1)
    try:
        yield
    finally:
        slurm_up()


@plot("accounting disabled", "a sacct on PATH that says so", SHORT, "exit")
def accounting_disabled(scene: Scene) -> Answer:
    said = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
    return _fake_sacct(scene, said)


@plot("accounting wrong", "a sacct on PATH that calls the job FAILED, exit 1:0", SHORT, "exit")
def accounting_wrong(scene: Scene) -> Answer:
    real = shutil.which("sacct")
    return _fake_sacct(scene, f"{real} \"$@\" | sed 's/COMPLETED/FAILED/g'")


def _fake_sacct(scene: Scene, body: str) -> Answer:
    fake = scene.folder / "bin" / "sacct"
    log = f'echo "$(date +%s.%N) sacct $*" >>{scene.folder / "calls.log"}\n'
    fake.write_text(f"#!/bin/sh\n{log}{body}\n")
    scene.start()
    return scene.end()


# -- the file system -----------------------------------------------------------------------------


@plot("scratch full", "the run folder on a tmpfs of 4 MB, filled while the ranks work", SHORT)
def scratch_full(scene: Scene) -> Answer:
    scratch = scene.folder / "scratch"
    scratch.mkdir()
    _run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(scratch))
    try:
        scene.start("--output", str(scratch), "--set", "generation.repeats=100")
        scene.root = scratch
        scene.to_decode()
        scene.provoke(lambda: _fill(scratch / "filler"))
        answer = scene.end()
        (scratch / "filler").unlink()
        shutil.copytree(scratch, scene.folder / "kept", symlinks=True)
        scene.root = scene.folder / "kept"
        # The small scratch had no room for the database; where it is was said.
        said = re.search(r"the database is (\S+)", answer.err)
        if said:
            shutil.move(said[1], scene.run / "run.duckdb")
        return answer
    finally:
        _run("umount", "--lazy", str(scratch))


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        while stream.write(b"x" * 4096):
            pass


SLOW = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>
static void wait_for(int fd) {
    char link[64], path[4096], *root = getenv("SLOW_ROOT");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (!root || n < 0) return;
    path[n] = 0;
    if (strncmp(path, root, strlen(root))) return;
    struct timespec t = {0, 300000000};
    nanosleep(&t, 0);
}
ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    wait_for(fd);
    return real(fd, data, size);
}
"""


@plot("slow file system", "every write into the run folder takes 0.3 s (LD_PRELOAD)", SHORT, "exit")
def slow_files(scene: Scene) -> Answer:
    source, library = scene.folder / "slow.c", scene.folder / "slow.so"
    source.write_text(SLOW)
    _run("gcc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl")
    prologue = f"export LD_PRELOAD={library} SLOW_ROOT={scene.folder / 'runs'}"
    scene.start("--set", f'slurm.prologue=["{prologue}"]')
    return scene.end()


# -- the harness itself --------------------------------------------------------------------------


@plot("Ctrl-C, no terminal", "SIGINT of `harness run`; the job goes on, then --attach", SHORT)
def interrupted(scene: Scene) -> Answer:
    scene.start()
    scene.to_decode(steps=5)
    assert scene.process is not None
    scene.process.send_signal(signal.SIGINT)
    first = scene.end()
    scene.note = f"`harness run` returned {first.code}"
    return scene.harness("run", "--attach", scene.job)


@plot("Ctrl-C, on a terminal", "SIGINT, and `cancel` typed at the question", until="exit")
def interrupted_cancels(scene: Scene) -> Answer:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "harness", "run", "spec.toml"]
    env = {**os.environ, **scene.env, "TERM": "xterm"}
    process = subprocess.Popen(
        words, cwd=scene.folder, env=env, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    scene.to_decode()
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    scene.provoke(lambda: os.write(ours, b"cancel\n"))
    out, _ = process.communicate(timeout=200)
    answer = Answer(process.returncode, out.decode(), "", time.time_ns())
    os.close(ours)
    return answer


@plot("the harness is killed", "kill -9 of `harness run`; --attach after the job's end", SHORT)
def harness_killed(scene: Scene) -> Answer:
    scene.start()
    scene.to_decode(steps=5)
    assert scene.process is not None
    scene.process.kill()
    scene.process.communicate()
    jobs.wait_for(scene.run / "job" / "end.json", 200)
    time.sleep(2)
    began = time.time_ns()
    answer = scene.harness("run", "--attach", scene.job)
    scene.ended_ns = began
    return answer


@plot("the harness in the job is killed", "kill -9 of the job's script, `harness run --in-job`")
def inner_harness_killed(scene: Scene) -> Answer:
    scene.start()
    scene.to_decode()
    scene.provoke(lambda: scene.kill_named("--in-job"))
    return scene.end()


@plot("the samplers are killed", "kill -9 of the agents of both nodes", SHORT, "exit")
def samplers_killed(scene: Scene) -> Answer:
    scene.start()
    scene.to_decode(steps=5)
    scene.kill_named("harness_collectors.agent")
    return scene.end()


def _run(*words: str, cwd: Path | None = None, check: bool = True) -> str:
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=check).stdout
