"""What one look at many ranks costs: `python -m benchmarks.status`.

Writes the spools of a run of 1,024 ranks at a standstill, in groups of 8 and one of all, with one
rank missing, then times what `harness status` and the watch of `--hang-timeout` do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.status.hang_watch import look_at
from harness.status.snapshot import take_snapshot
from harness_schemas.rundir import RunDir
from tests.rank_pages import write_run

TIMES = 7
LIMIT_NS = 30_000_000_000


def main() -> None:
    """Print CPU milliseconds, the best of several."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=1024)
    ranks = parser.parse_args().ranks
    with tempfile.TemporaryDirectory() as folder:
        missing = ranks // 2
        run = RunDir(write_run(Path(folder), ranks, missing=(missing,)))
        found = take_snapshot(run, LIMIT_NS).diagnosis
        if not (found.hangs and found.culprits == (missing,)):
            sys.exit(f"it names {found.culprits}, not {missing}")
        print(f"a look of the watch at {ranks} ranks: {best(lambda: look_at(run)):.0f} ms of CPU")
        status = best(lambda: take_snapshot(run, LIMIT_NS))
        print(f"state of {ranks} ranks, and on whom they wait: {status:.0f} ms of CPU")


def best(call: Callable[[], object]) -> float:
    """The least CPU time of a call, in ms."""
    times = []
    for _ in range(TIMES):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times) * 1e3


if __name__ == "__main__":
    main()
