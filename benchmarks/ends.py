"""Every way a Slurm job can end, provoked for real: `python benchmarks/ends.py [NAME...]`.

Needs the Slurm of tests/integration/tools/slurm_up.sh for itself, as root: daemons are stopped,
nodes taken down and put back. Prints the table of docs/reliability.md, a row as soon as it is
known; `--list` names the scenes, `--keep DIR` keeps their folders.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from ends_scenes import PLOTS
from slurm_ends import Scene, remedy

COLUMNS = (
    *("end", "how provoked", "verdict", "what it says to do", "last span before the end, s"),
    *("exit code", "answer after (of which ingest), s", "processes left", "asked of Slurm"),
)


def play(name: str, folder: Path) -> str:
    """Play one scene; returns its line of the table."""
    what = PLOTS[name]
    scene = Scene.make(folder, name, what.spec)
    try:
        answer = what.play(scene)
        (folder / "stdout").write_text(answer.out)
        (folder / "stderr").write_text(answer.err)
        verdict, detail = scene.verdict()
        lost = scene.lost_seconds(until=what.until)
        ended = scene.ended_ns or max(scene.rank_ends().values(), default=scene.provoked_ns)
        left = scene.left()
        soon = scene.asked_too_often()
        for problem in (*left, *soon):
            sys.stderr.write(f"{name}: {problem}\n")
        how = what.how + (f"; {scene.note}" if scene.note else "")
        cells = (
            what.end,
            how,
            f"`{verdict}`",
            remedy(detail) or "-",
            "-" if lost is None else f"{lost:.2f}",
            answer.code,
            f"{(answer.at_ns - ended) / 1e9:.1f} ({scene.ingest_seconds():.1f})" if ended else "-",
            len(left),
            scene.asked(),
        )
        return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |"
    finally:
        scene.clear()


def main() -> int:
    """Play the scenes and print the table; returns 1 where one could not be played."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    # A shell that started this in the background has it ignored, and children would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.list:
        print("\n".join(f"{name}: {one.end}: {one.how}" for name, one in PLOTS.items()))
        return 0
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    root = options.keep or Path(tempfile.mkdtemp(prefix="harness-ends-"))
    failed = 0
    for name in options.names or PLOTS:
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        try:
            print(play(name, folder), flush=True)
        except Exception:  # noqa: BLE001 (the other scenes go on)
            failed += 1
            sys.stderr.write(f"{name} could not be played:\n{traceback.format_exc()}")
    if not options.keep:
        shutil.rmtree(root, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
