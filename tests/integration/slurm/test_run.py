"""A specification on a real Slurm: two nodes, TP x PP over gloo, the reference's tokens."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import slurm_jobs as jobs

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("overlong_job")]

SPEC = """
name = "two-nodes"
device = "cpu"
[model]
synthetic = "tiny-llama"
layers = 2
[prompts]
limit = 2
[parallel]
tp = 2
pp = 2
[generation]
batch_size = 2
new_tokens = 6
[launcher]
kind = "slurm"
threads = 1
[slurm]
nodes = 2
time = "5min"
prologue = ["echo from the prologue >&2"]
"""


@pytest.fixture(scope="module")
def submitted(tmp_path_factory, slurm):
    """Detached first, attached to later: two processes see one job through."""
    folder = tmp_path_factory.mktemp("spec")
    (folder / "spec.toml").write_text(SPEC)
    code, script, err = jobs.harness("run", "spec.toml", "--dry-run", cwd=folder)
    assert code == 0, err
    assert not (folder / "runs").exists()
    code, job, err = jobs.harness("run", "spec.toml", "--detach", cwd=folder)
    assert code == 0, err
    done = jobs.harness("run", "--attach", job.strip(), cwd=folder)
    return folder, job.strip(), script, done


def test_tokens_of_two_nodes_match_the_reference(submitted):
    folder, job, _, (code, out, err) = submitted
    assert code == 0, err
    assert "12 of 12 tokens equal" in out and f"Slurm job {job}" in out and "2 hosts" in out
    assert "from the prologue" in err and "launch 4 ranks" in err
    hosts = jobs.rows(jobs.latest(folder), "SELECT stage, host FROM ranks ORDER BY rank")
    assert hosts == [(0, "node1"), (0, "node1"), (1, "node2"), (1, "node2")]


def test_what_was_submitted_is_what_dry_run_showed(submitted):
    folder, _, script, _ = submitted
    run = jobs.latest(folder)
    shown = [line for line in script.splitlines() if run.parent.name not in line]
    sent = (run / "job" / "script.sh").read_text().splitlines()
    assert [line for line in sent if run.parent.name not in line] == shown and len(shown) > 8


def test_accounting_has_the_steps_of_ranks_and_samplers(submitted):
    folder, job, _, _ = submitted
    code, out, err = jobs.harness(
        "query", job, "SELECT name, state FROM slurm_steps ORDER BY name", "--csv", cwd=folder
    )
    assert code == 0, err
    steps = out.split()
    assert "harness-ranks,COMPLETED" in steps and "harness-samplers,COMPLETED" in steps
    assert "two-nodes,COMPLETED" in steps


def test_a_run_inside_an_allocation_uses_it(submitted):
    folder, _, _, _ = submitted
    spec = SPEC.replace('kind = "slurm"', "").replace("tp = 2", "tp = 1").replace("two", "in")
    (folder / "inside.toml").write_text(spec)
    done = subprocess.run(
        [
            *("salloc", "-N2", "--ntasks-per-node=1", "-t3", "--mem=1G", "sh", "-c"),
            f"{jobs.COMMAND} run inside.toml --set check.reference=false",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    run = jobs.latest(folder)
    job = json.loads((run / "run.json").read_text())["job_id"]
    assert f"Granted job allocation {job}" in done.stderr
    hosts = jobs.rows(run, "SELECT host FROM ranks ORDER BY rank")
    assert hosts == [("node1",), ("node2",)]


def test_a_stage_across_nodes_is_refused_before_anything_is_sent(tmp_path: Path, slurm):
    (tmp_path / "spec.toml").write_text(SPEC)
    layout = ("--set", "slurm.nodes=4", "--set", "slurm.ntasks_per_node=1")
    code, _, err = jobs.harness("run", "spec.toml", *layout, cwd=tmp_path)
    assert code == 2 and "tp_across_nodes" in err and not (tmp_path / "runs").exists()
    code, out, _ = jobs.harness(
        "run",
        "spec.toml",
        "--dry-run",
        *layout,
        "--set",
        "slurm.tp_across_nodes=true",
        cwd=tmp_path,
    )
    assert code == 0 and "--nodes=4" in out


def test_a_sweep_is_an_array_whose_tasks_are_its_runs(tmp_path: Path, slurm):
    spec = SPEC.replace("tp = 2", "tp = 1").replace("pp = 2", "pp = 1").replace("nodes = 2", "")
    (tmp_path / "spec.toml").write_text(spec)
    grid = ("--grid", "generation.batch_size=1,2", "--set", "check.reference=false")
    code, out, err = jobs.harness("sweep", "spec.toml", *grid, "--array", cwd=tmp_path)
    assert code == 0, err
    assert "throughput" in out
    sweep = jobs.latest(tmp_path)
    for task, size in ((0, 1), (1, 2)):
        run = sweep / f"task-{task}"
        assert jobs.rows(run, "SELECT batch_size, verdict FROM runs") == [(size, "ok")]
    code, _, err = jobs.harness("sweep", "spec.toml", *grid, "--array", cwd=tmp_path)
    assert code == 0 and "0 to run" in err
