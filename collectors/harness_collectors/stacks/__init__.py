"""Beside the ranks of a node: what they use, for the watch against hangs, and their stacks.

Started as a sampler where `launcher.hang_timeout` is set. It reads /proc only, until the session
asks for stacks (harness_schemas/hang_files.py).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness_collectors.psutil_host import RankFinder
from harness_collectors.sampling import boot_id
from harness_collectors.stacks.take import take_stacks
from harness_collectors.stacks.vitals import read_vitals
from harness_schemas import hang_files, spool
from harness_schemas.live import read_page
from harness_schemas.rundir import RunDir, write_json

STOP_SECONDS = 2.0


class StackSampler:
    """The watch's hand on one node (spi.Sampler). Options: `limit_s`."""

    def __init__(self, run_dir: Path, host: str, options: Mapping[str, Any]) -> None:
        run = RunDir(run_dir)
        self.folder = run.hang
        self.host = host
        self.interval_s = hang_files.look_interval_s(float(options["limit_s"]))
        self._spans = run.spans
        self._finder = RankFinder(run.spans, host, boot_id())
        self._ranks: dict[int, int] = {}
        self._answered: object = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; called once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._run, name="harness-stacks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; idempotent."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._stopping.wait(self.interval_s):
            with contextlib.suppress(Exception):  # a sampler never harms the run
                self._ranks.update(self._finder.new_ranks())
                self._write_vitals()
                self._answer()

    def _write_vitals(self) -> None:
        ranks = {
            str(rank): {**read_vitals(pid), "mark": self._mark(rank)}
            for rank, pid in self._ranks.items()
        }
        now = {"host": self.host, "mono_ns": time.monotonic_ns(), "wall_ns": time.time_ns()}
        write_json(hang_files.vitals_file(self.folder, self.host), {**now, "ranks": ranks})

    def _mark(self, rank: int) -> list[int]:
        """What changes when the rank records something: this node sees it at once, which over NFS
        others do not."""
        path = self._spans / f"rank-{rank:05d}.live"
        page, size = read_page(path), spool.records_size(path)
        return [page.updated_ns, page.entered, size] if page else [size]

    def _answer(self) -> None:
        asked = hang_files.read_object(self.folder / hang_files.ASKED).get("id")
        if asked is None or asked == self._answered:
            return
        self._answered = asked
        taken = take_stacks(self.folder, self._ranks)
        write_json(
            hang_files.done_file(self.folder, self.host),
            {"id": asked, "host": self.host, "ranks": taken},
        )
