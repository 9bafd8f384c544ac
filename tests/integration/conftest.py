"""Real components that several files share."""

from __future__ import annotations

import shutil
import subprocess

import pytest


@pytest.fixture(scope="session")
def slurm() -> None:
    """A real Slurm of two nodes with accounting (tests/integration/tools/slurm_up.sh)."""
    if shutil.which("sbatch") is None:
        pytest.skip("no Slurm here: tests/integration/tools/slurm_up.sh makes one")
    try:
        nodes = subprocess.run(
            ["sinfo", "-hN", "-o", "%N %T"], capture_output=True, text=True, timeout=20
        ).stdout
    except subprocess.TimeoutExpired:
        nodes = ""
    if sum(line.endswith(("idle", "mixed", "allocated")) for line in nodes.splitlines()) < 2:
        pytest.skip("Slurm does not run: tests/integration/tools/slurm_up.sh starts it")
