"""`harness run` as a user types it: real processes, real ranks, what is printed and returned."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness_analysis.store import open_database

pytestmark = pytest.mark.integration

SPEC = """
name = "small"
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
threads = 1
timeout = "4min"
"""


def harness(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "small.toml").write_text(SPEC)
    done = harness("run", "small.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_answer_is_on_stdout_and_narration_on_stderr(finished):
    _, done = finished
    for text in (
        "finished: ok",
        "tokens/s",
        "Decode",
        "wait",
        "Correctness",
        "12 of 12 tokens equal",
    ):
        assert text in done.stdout
    assert "launch 4 ranks" in done.stderr and "harness query" in done.stderr
    assert "launch" not in done.stdout and "\x1b" not in done.stdout


def test_every_rank_and_step_is_divided(finished):
    folder, _ = finished
    with open_database(folder / "runs" / "latest" / "run.duckdb") as con:
        units = con.execute(
            """
            SELECT count(*), count(DISTINCT rank), min(compute_ns), min(unresolved_ns),
              bool_and(window_ns = compute_ns + comm_transfer_ns + comm_wait_ns
                       + comm_unsplit_ns + io_ns + unresolved_ns)
            FROM step_breakdown WHERE phase = 'decode' AND NOT warmup AND perturbed_by IS NULL
            """
        ).fetchone()
        holes = con.execute(
            """
            SELECT count(*) FROM (
              SELECT start_ns - lag(start_ns + window_ns)
                OVER (PARTITION BY rank ORDER BY start_ns) AS gap FROM step_breakdown)
            WHERE gap <> 0
            """
        ).fetchone()
        spans = con.execute("SELECT count(*) FROM spans WHERE source = 'otel'").fetchone()
        reads = con.execute("SELECT sum(bytes) FROM spans WHERE category = 'io'").fetchone()
    assert units[:2] == (5 * 4, 4) and units[2] >= 0 and units[3] >= 0 and units[4] is True
    assert holes == (0,)
    assert spans[0] > 0 and reads[0] > 0


def test_ingest_can_be_repeated(finished):
    folder, _ = finished
    query = "SELECT rank, step, window_ns, comm_wait_ns FROM step_breakdown ORDER BY ALL"
    before = harness("query", "latest", query, "--csv", cwd=folder)
    assert harness("ingest", "latest", cwd=folder).returncode == 0
    assert harness("query", "latest", query, "--csv", cwd=folder).stdout == before.stdout


def test_the_report_and_the_list(finished):
    folder, _ = finished
    made = harness("report", "latest", "--html", cwd=folder)
    assert made.returncode == 0 and Path(made.stdout.strip()).stat().st_size > 1 << 20
    rows = json.loads(harness("list", "--json", cwd=folder).stdout)
    assert [(row["status"], row["verdict"]) for row in rows] == [("finished", "ok")]


def test_dry_run_prints_everything_and_makes_nothing(tmp_path: Path):
    (tmp_path / "small.toml").write_text(SPEC)
    done = harness("run", "small.toml", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in (
        "harness_runners.rank.worker",
        "HARNESS_SPOOL_DIR=",
        "HF_HUB_OFFLINE=1",
        "run.duckdb",
    ):
        assert text in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.toml"]


def test_all_mistakes_are_told_at_once_with_their_paths(tmp_path: Path):
    bad = SPEC.replace("limit = 2", "limit = 0\nlimits = 3").replace(
        'device = "cpu"', 'device = "x"'
    )
    (tmp_path / "bad.toml").write_text(bad)
    done = harness("run", "bad.toml", cwd=tmp_path)
    assert done.returncode == 2
    for path in ("device", "prompts.limit", "prompts.limits"):
        assert path in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.path='nowhere'", "no folder"),
        ("parallel.pp=9", "9 stages"),
        ("parallel.tp=3", "cannot be divided"),
        ("prompts.source='none.jsonl'", "none.jsonl"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_2(change: str, message: str, tmp_path: Path):
    text = SPEC
    if change.startswith("model.path"):
        text = SPEC.replace('synthetic = "tiny-llama"\nlayers = 2\n', "")
    (tmp_path / "small.toml").write_text(text)
    done = harness("run", "small.toml", "--set", change, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_port_that_is_taken_and_an_output_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "small.toml").write_text(SPEC)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = harness("run", "small.toml", "--set", f"launcher.port={port}", cwd=tmp_path)
    assert done.returncode == 2 and str(port) in done.stderr and "Traceback" not in done.stderr
    (tmp_path / "file").write_text("")
    done = harness("run", "small.toml", "--output", "file/runs", cwd=tmp_path)
    assert done.returncode == 125 and "cannot create a run folder" in done.stderr


def test_any_command_is_wrapped_unchanged(tmp_path: Path):
    script = (
        "from harness import probe; import sys; assert probe.start();\n"
        "for k in range(1, 4):\n"
        "    with probe.unit('decode', step=k, batch=0):\n"
        "        with probe.span('work'): sum(range(1000))\n"
        "probe.stop(); print('theirs'); sys.exit(7)\n"
    )
    (tmp_path / "theirs.py").write_text(script)
    done = harness("run", "--", sys.executable, "theirs.py", cwd=tmp_path)
    assert done.returncode == 7
    assert done.stdout.startswith("theirs\n")
    with open_database(tmp_path / "runs" / "latest" / "run.duckdb") as con:
        names = con.execute(
            "SELECT name, count(*) FROM spans GROUP BY name ORDER BY name"
        ).fetchall()
        exit_code = con.execute("SELECT exit_code FROM runs").fetchone()
    assert ("work", 3) in names and exit_code == (7,)
    missing = harness("run", "--", "no-such-command", cwd=tmp_path)
    assert missing.returncode == 2 and "no-such-command" in missing.stderr


def test_tokens_and_keys_reach_no_file(tmp_path: Path):
    secret = "hf_plantedsecretvalue123"
    done = harness(
        "run", "--", sys.executable, "-c", "pass", cwd=tmp_path, HF_TOKEN=secret, AWS_SECRET=secret
    )
    assert done.returncode == 0
    for path in (tmp_path / "runs").rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert secret.encode() not in path.read_bytes(), path
