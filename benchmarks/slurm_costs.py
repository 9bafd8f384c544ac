"""What a run under Slurm costs besides its work: `python benchmarks/slurm_costs.py`.

On a real Slurm (tests/integration/tools/slurm_up.sh): submitting through `harness run` against a
bare sbatch, following a job whose log grows, and what a run leaves on the shared file system,
a rank and decode step, a node and hour. CPU seconds are those of the process and its children.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import slurm_jobs as jobs
from slurm_ends import SPEC, Scene

FOLLOWED_SECONDS = 30
CHATTY = """
i=0
while [ $i -lt {lines} ]; do echo "line $i of a log that somebody follows"; i=$((i+1)); sleep 0.01
done
"""
TICKS = os.sysconf("SC_CLK_TCK")


def timed(*words: str, cwd: Path, env: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(words, cwd=cwd, env={**os.environ, **env}, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def submitting(folder: Path, tries: int) -> str:
    """Rows of the table: bare sbatch, and `harness run --detach` of a specification."""
    scene = Scene.make(folder, "submit", SPEC)
    jobs.script(folder, "bare.sbatch", "true\n")
    later = ("--set", 'slurm.directives=["--begin=now+1hour"]')
    harness = (sys.executable, "-m", "harness", "run")
    commands = {
        "sbatch": ("sbatch", "--begin=now+1hour", "bare.sbatch"),
        "harness run SPEC --detach": (*harness, "spec.toml", "--detach", *later),
        "harness run --detach -- sbatch": (
            *(*harness, "--detach", "--", "sbatch", "--begin=now+1hour", "bare.sbatch"),
        ),
        "harness --version": (sys.executable, "-m", "harness", "--version"),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(tries):
        for name, words in commands.items():
            found[name].append(timed(*words, cwd=folder, env=scene.env))
    for name in ("submit", "bare.sbatch", "ends"):
        subprocess.run(["scancel", "--quiet", f"--name={name}"], check=False)
    lines = ["| what | s (best) | CPU s (median) |", "|---|---:|---:|"]
    for name, pairs in found.items():
        wall = min(wall for wall, _ in pairs)
        cpu = statistics.median(cpu for _, cpu in pairs)
        lines.append(f"| `{name}` | {wall:.2f} | {cpu:.2f} |")
    return "\n".join(lines)


def following(folder: Path) -> str:
    """CPU of `harness run -- sbatch` while a job writes some 70 lines a second."""
    body = CHATTY.format(lines=FOLLOWED_SECONDS * 150)
    folder.mkdir()
    name = jobs.script(folder, "chatty.sbatch", body)
    process = jobs.start("run", "--", "sbatch", name, cwd=folder)
    jobs.wait_for(folder / "runs" / "latest" / "job" / "begin.json")
    time.sleep(2)
    begin, before = time.monotonic(), cpu_of(process.pid)
    time.sleep(FOLLOWED_SECONDS)
    share = (cpu_of(process.pid) - before) / (time.monotonic() - begin)
    subprocess.run(["scancel", jobs.job_of(jobs.latest(folder))], check=True)
    _, _, err = jobs.end(process)
    said = err.count("of a log that somebody follows")
    return f"Following: {100 * share:.2f} % of a core while {said:,} lines came"


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def leaving(folder: Path, seconds: float) -> str:
    """What a run leaves while it decodes, measured between two looks at its folder."""
    scene = Scene.make(folder, "files", SPEC.replace("repeats = 2000", "repeats = 20000"))
    try:
        scene.start()
        scene.to_decode()
        first, files = sizes(scene.run), len(sizes(scene.run))
        steps = sum(scene.steps(rank) for rank in range(2))
        time.sleep(seconds)
        last = sizes(scene.run)
        did = sum(scene.steps(rank) for rank in range(2)) - steps
        subprocess.run(["scancel", scene.job], check=True)
        scene.end()
    finally:
        scene.clear()
    parts = {"spans": "spans/", "samples": "artifacts/", "logs": "logs/", "texts": "completions/"}
    grown = {
        name: sum(size - first.get(path, 0) for path, size in last.items() if path.startswith(at))
        for name, at in parts.items()
    }
    lines = ["| part | bytes a rank and decode step | bytes a node and second |", "|---|---:|---:|"]
    for name, size in grown.items():
        lines.append(f"| {name} | {size / did:.0f} | {size / seconds / 2:.0f} |")
    rate = did / seconds / 2
    hour = sum(grown.values()) / seconds * 3600 / 2 / 1e6
    lines += ["", f"{did:,} rank-steps in {seconds:.0f} s, {rate:.0f} a second and node"]
    lines.append(f"{len(last)} files of two nodes, {len(last) - files} of them new meanwhile")
    lines.append(f"an hour at this rate (extrapolated): {hour:.0f} MB a node")
    return "\n".join(lines)


def sizes(run: Path) -> dict[str, int]:
    """Bytes of every file of a run."""
    return {str(p.relative_to(run)): p.stat().st_size for p in run.rglob("*") if p.is_file()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="harness-costs-") as name:
        folder = Path(name)
        print(submitting(folder / "submit", options.tries), flush=True)
        print(following(folder / "follow"), flush=True)
        print(leaving(folder / "files", options.seconds), flush=True)


if __name__ == "__main__":
    main()
