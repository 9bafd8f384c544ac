"""The launcher inside an allocation of a real Slurm: places, ends, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness_slurm.step.nodelist import expand_nodes

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("slurm")]

# Runs in the allocation: each scenario is one step of it.
DRIVER = """
import json, sys
from pathlib import Path
from harness_schemas.rundir import RunDir, create_run
from harness_schemas.spec.slurm import SlurmSpec
from harness_schemas.spi import LaunchPlan
from harness_slurm.step.launcher import SrunLauncher
from harness_slurm.step.placement import Allocation
import os

root = Path(sys.argv[1])
found = {}
for name, (tp, stages, code, timeout) in json.loads(sys.argv[2]).items():
    run = RunDir(root / name)
    create_run(run)
    launcher = SrunLauncher(Allocation.read(os.environ), tp, stages, SlurmSpec())
    hangs = timeout == "hang"
    plan = LaunchPlan((sys.executable, "-c", code), {"SAID": "yes"}, tp * stages, run.path, None,
                      None if hangs else timeout)
    stands = (len(list(run.logs.glob("rank-*.out"))) == 4 for _ in iter(int, 1))
    result = launcher.launch(plan, stands if hangs else None)
    found[name] = {
        "exit_code": result.exit_code,
        "timed_out": result.timed_out,
        "hung": result.hung,
        "failures": [[f.rank, f.exit_code, f.message] for f in result.failures],
        "hosts": launcher.hosts,
    }
print(json.dumps(found))
"""

TELL = """
import os, socket, json
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "SAID")
print(json.dumps({**{n: os.environ[n] for n in names}, "host": socket.gethostname(),
                  "port": os.environ["MASTER_PORT"]}))
"""
FAIL = """
import os, sys, time, signal
if os.environ["RANK"] == "1":
    time.sleep(0.5)
    {how}
time.sleep({marker})
"""
WARNED = """
import signal, time
signal.signal(signal.SIGUSR2, lambda *_: print("flushed", flush=True))
time.sleep({marker})
"""
STOPS = """
import os, signal, time
os.kill(os.getpid(), signal.SIGSTOP)
time.sleep({marker})
"""
MARKER = 517.25


@pytest.fixture(scope="module")
def steps(tmp_path_factory, slurm):
    folder = tmp_path_factory.mktemp("steps")
    exits = FAIL.format(how="os._exit(7)", marker=MARKER)
    killed = FAIL.format(how="os.kill(os.getpid(), signal.SIGSEGV)", marker=MARKER)
    waits = WARNED.format(marker=MARKER)
    scenarios = {
        "even": (2, 2, TELL, None),
        "uneven": (1, 3, TELL, None),
        "exits": (2, 2, exits, None),
        "killed": (2, 2, killed, None),
        "endless": (2, 2, waits, 3.0),
        "hangs": (2, 2, STOPS.format(marker=MARKER), "hang"),
    }
    done = subprocess.run(
        [
            *("salloc", "-N2", "--ntasks-per-node=2", "-t2", "--mem=600"),
            *(sys.executable, "-c", DRIVER, str(folder), json.dumps(scenarios)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def told(folder: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("logs/rank-*.out"))]


def test_a_stage_lies_within_a_node(steps):
    folder, found = steps
    ranks = told(folder / "even")
    assert found["even"]["exit_code"] == 0
    assert [rank["host"] for rank in ranks] == ["node1", "node1", "node2", "node2"]
    assert [rank["host"] for rank in ranks] == found["even"]["hosts"]
    assert [rank["RANK"] for rank in ranks] == ["0", "1", "2", "3"]
    assert [rank["LOCAL_RANK"] for rank in ranks] == ["0", "1", "0", "1"]
    assert {(r["WORLD_SIZE"], r["MASTER_ADDR"], r["SAID"]) for r in ranks} == {
        ("4", "node1", "yes")
    }
    assert len({rank["port"] for rank in ranks}) == 1


def test_nodes_may_hold_different_numbers_of_ranks(steps):
    folder, found = steps
    ranks = told(folder / "uneven")
    assert found["uneven"]["exit_code"] == 0
    assert (
        [rank["host"] for rank in ranks] == ["node1", "node1", "node2"] == found["uneven"]["hosts"]
    )
    assert [rank["LOCAL_WORLD_SIZE"] for rank in ranks] == ["2", "2", "1"]


def test_the_failed_rank_is_named_and_its_code_returned(steps):
    _, found = steps
    assert found["exits"]["exit_code"] == 7
    assert found["exits"]["failures"][0][:2] == [1, 7]
    assert found["killed"]["exit_code"] == 139
    assert found["killed"]["failures"][0][:2] == [1, -11]


def test_a_step_that_does_not_end_is_ended(steps):
    folder, found = steps
    said = [path.read_text() for path in (folder / "endless").glob("logs/rank-*.out")]
    assert len(said) == 4 and all("flushed" in text for text in said)
    assert found["endless"] == {
        "exit_code": 124,
        "timed_out": True,
        "hung": False,
        "failures": [],
        "hosts": ["node1", "node1", "node2", "node2"],
    }


def test_a_step_whose_ranks_stand_is_ended_when_progress_asks_for_it(steps):
    """Its ranks are stopped: no signal but the last reaches them."""
    _, found = steps
    assert (found["hangs"]["hung"], found["hangs"]["exit_code"]) == (True, 124)


def test_no_process_is_left(steps):
    mark = f"time.sleep({MARKER})".encode()
    assert _running(mark, {os.getpid(), os.getppid()}) == {}


def _running(mark: bytes, own: set[int]) -> dict[int, tuple[str, str]]:
    """State, parent and session, and the command line, of processes that have the mark in it."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            if mark in words and int(entry.name) not in own:
                state = (entry / "stat").read_text().rpartition(")")[2].split()
                found[int(entry.name)] = (" ".join(state[:4]), words.decode(errors="replace"))
    return found


LISTS = ["node[1-2]", "n[01-03,7],login2", "r[1-2]n[08-11]", "a,b[2-3],b9", "gpu5-ib"]


@pytest.mark.parametrize("text", LISTS)
def test_lists_expand_as_scontrol_expands_them(slurm, text):
    done = subprocess.run(["scontrol", "show", "hostnames", text], capture_output=True, text=True)
    assert expand_nodes(text) == done.stdout.split()


def test_lists_that_scontrol_folds_expand_to_the_same_names(slurm):
    names = [f"n{i:03d}" for i in (1, 2, 3, 9, 10, 11, 40)] + ["fat7", "fat8", "login", "r2c10s1"]
    names += [f"r{rack}c{chassis}" for rack in (1, 2) for chassis in (9, 10, 11)]
    folded = subprocess.run(
        ["scontrol", "show", "hostlist", ",".join(names)], capture_output=True, text=True
    ).stdout.strip()
    assert "[" in folded and sorted(expand_nodes(folded)) == sorted(names)
