"""Ctrl-C on a terminal in which `harness run -- srun` runs: srun's own way, then an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

SRUN = """#!/bin/sh
# Like srun, it goes on after the first interrupt and ends at the second.
n=0
trap 'n=$((n+1)); echo $n >seen; [ $n -lt 2 ] || exit 3' INT
echo 0 >seen
while :; do sleep 0.05; done
"""


def test_srun_is_interrupted_twice_and_the_run_is_kept(tmp_path):
    program = tmp_path / "bin" / "srun"
    program.parent.mkdir()
    program.write_text(SRUN)
    program.chmod(0o755)
    env = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    argv = (sys.executable, "-m", "harness", "run", "--", "srun", "mine")
    process = subprocess.Popen(
        argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for count in ("0", "1"):
        _await(tmp_path / "seen", count)
        os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "interrupted" in out
    assert (tmp_path / "runs" / "latest" / "run.duckdb").is_file()


def _await(path, text):
    for _ in range(600):
        if path.exists() and path.read_text().strip() == text:
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} never said {text}")
