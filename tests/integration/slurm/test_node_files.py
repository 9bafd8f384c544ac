"""Files on a cluster: weights and spools on the nodes' own disks, and no network at all."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_jobs as jobs

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("slurm")]

SPEC = """
name = "staged"
device = "cpu"
[model]
synthetic = "tiny-llama"
layers = 2
[prompts]
limit = 2
[parallel]
pp = 2
[generation]
batch_size = 2
new_tokens = 6
[launcher]
threads = 1
[stage]
weights = "$NODE_DISK"
spool = "$NODE_DISK"
every = "1h"
"""

# Told of every look-up and connection of every Python process of the job.
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("began", "socket.getaddrinfo", "socket.connect", "urllib.Request"):
        with open(os.environ["NETWORK_LOG"], "a") as log:
            log.write(repr((os.environ.get("RANK"), event, str(arguments))) + chr(10))
watch("began", sys.argv)
sys.addaudithook(watch)
"""


@pytest.fixture(scope="module")
def staged(tmp_path_factory, slurm):
    folder = tmp_path_factory.mktemp("staged")
    (folder / "spec.toml").write_text(SPEC)
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    (folder / "disk").mkdir()
    log = folder / "network.log"
    log.touch()
    places = {"disk": "NODE_DISK", "watch": "PYTHONPATH", "network.log": "NETWORK_LOG"}
    done = subprocess.run(
        [
            *("salloc", "-N2", "--ntasks-per-node=1", "-t3", "--mem=1500M"),
            *(sys.executable, "-m", "harness", "run", "spec.toml"),
        ],
        cwd=folder,
        env={**os.environ, **{name: str(folder / place) for place, name in places.items()}},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return folder, log


def test_all_that_was_recorded_on_the_nodes_is_in_the_database(staged):
    folder, _ = staged
    run = jobs.latest(folder)
    assert list((folder / "disk").iterdir()) == [], "the nodes' disks are as they were"
    ends = [path.read_text().splitlines()[-1] for path in run.glob("spans/rank-*.meta.jsonl")]
    assert [json.loads(line)["t"] for line in ends] == ["end", "end"]
    [(lost,)] = jobs.rows(run, "SELECT sum(dropped) FROM collection WHERE collector = 'app_timers'")
    assert lost == 0
    found = jobs.rows(run, "SELECT DISTINCT state FROM collection WHERE collector LIKE 'stage%'")
    assert found == [("ok",)]


def test_copies_are_timed_as_io(staged):
    folder, _ = staged
    copies = jobs.rows(
        jobs.latest(folder),
        """
        SELECT name, count(DISTINCT coalesce(rank::VARCHAR, attrs ->> 'host')),
          min(end_ns > start_ns)
        FROM spans WHERE category = 'io' AND name IN ('copy', 'bring spools')
        GROUP BY name ORDER BY name
        """,
    )
    assert copies == [("bring spools", 2, True), ("copy", 2, True)]
    [(io_ns,)] = jobs.rows(
        jobs.latest(folder), "SELECT min(io_ns) FROM step_breakdown WHERE phase = 'load'"
    )
    assert io_ns > 0


def test_no_rank_looks_anything_up_or_connects_to_anything_but_the_nodes(staged):
    _, log = staged
    calls = [ast.literal_eval(line) for line in log.read_text().splitlines()]
    assert {rank for rank, event, _ in calls if event == "began"} >= {"0", "1"}
    asked = [str(call) for call in calls if call[1] != "began"]
    assert [call for call in asked if not any(name in call for name in NODES)] == []


NODES = ("node1", "node2", "127.0.0.1", "localhost", "'::1'", "/run/", "/tmp/", "/dev/")
"""The nodes themselves, and sockets of this machine's file system."""


def test_ranks_are_told_that_there_is_no_network(staged):
    folder, _ = staged
    launch = json.loads((jobs.latest(folder) / "launch.json").read_text())
    assert launch["env"]["HF_HUB_OFFLINE"] == launch["env"]["TRANSFORMERS_OFFLINE"] == "1"
    assert Path(launch["run_dir"]) == jobs.latest(folder)
