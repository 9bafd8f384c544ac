"""What the sections of `benchmarks/gpu/tables.py` share: one machine, its runs, their databases."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cli.printing.rows import render_rows
from harness.ingest import ingest_run
from harness.progress import Narrator
from harness.session import run_spec
from harness_analysis.store import open_database
from harness_runners.shipped import load_passages
from harness_schemas.rundir import RunDir
from harness_schemas.spec import RunSpec

WINDOW = {"first": 6, "count": 12}
"""Decode steps whose kernels are recorded, on every rank."""
INSTRUMENT_EVERY = 2
"""So that half of the window's steps have both kernels and events inside the graph."""


@dataclass
class Bench:
    """A machine to measure: what is run on it, and what has been run already."""

    folder: Path
    device: str
    tp: int
    pp: int
    tokens: int
    model: dict[str, Any]
    budget_s: float
    narrator: Narrator
    batch: int = 1
    prompt_words: int | None = None
    cases: tuple[tuple[str, str, str], ...] = ()
    delays_us: tuple[int, ...] = ()
    floors: Path | None = None
    _runs: dict[str, Path] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        """Whether kernels and graphs can be had."""
        return self.device == "cuda"

    @property
    def modes(self) -> tuple[str, ...]:
        """Ways to decode here."""
        return ("eager", "graph") if self.on_gpu else ("eager",)

    @property
    def where(self) -> str:
        """The configuration in words."""
        name = self.model["synthetic"]
        layers = f" with {self.model['layers']} layers" if "layers" in self.model else ""
        words = f" of {self.prompt_words} words" if self.prompt_words else ""
        shape = f"TP={self.tp} x PP={self.pp}, {self.device}, {name}{layers}"
        return f"{shape}, batch {self.batch}{words}"

    def plain(self, mode: str) -> Path:
        """The database of the run without a delay, made once."""
        if mode not in self._runs:
            self._runs[mode] = self.run(mode)
        return self._runs[mode]

    def run(self, mode: str, inject: dict[str, Any] | None = None) -> Path:
        """Run once with kernels of a window of steps; returns the database.

        Raises:
            RuntimeError: the run failed, or left no database.
        """
        spec = RunSpec.model_validate(self._spec(mode, inject))
        started = time.monotonic()
        result = run_spec(spec, Narrator(quiet=True))
        if result.exit_code != 0 or result.problems:
            said = " / ".join(result.outcome.tail[-3:])
            raise RuntimeError(f"{mode} run: {result.outcome.detail} {said} {result.problems}")
        self.narrator.say(f"  {time.monotonic() - started:.0f} s for {spec.name}")
        self.compare(result.run.database)
        return result.run.database

    def compare(self, database: Path) -> None:
        """Build the database anew with the floors, where they have been measured."""
        if self.floors is not None:
            run = RunDir(database.parent)
            folder = run.collector_dir("floors", "here")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.floors, folder / "floors.json")
            ingest_run(run)

    def _spec(self, mode: str, inject: dict[str, Any] | None) -> dict[str, Any]:
        collectors: dict[str, Any] = {"psutil": False, "nvml": False}
        if self.on_gpu:
            collectors["torch_profiler"] = WINDOW
        every = INSTRUMENT_EVERY if mode == "graph" else 0
        return {
            "name": "-".join(["table", mode, *(str(value) for value in (inject or {}).values())]),
            "device": self.device,
            "dtype": "bfloat16" if self.on_gpu else "float32",
            "model": self.model,
            "prompts": self._prompts(),
            "parallel": {"tp": self.tp, "pp": self.pp},
            "generation": {
                "batch_size": self.batch,
                "new_tokens": self.tokens,
                "stop_at_eos": False,
                "mode": mode,
                "instrument_every": every,
            },
            "launcher": {"threads": None if self.on_gpu else 1, "timeout": "4min"},
            "check": {"reference": False},
            "collectors": collectors,
            "output": {"dir": str(self.folder)},
            "inject": inject,
        }

    def _prompts(self) -> dict[str, Any]:
        if self.prompt_words is None:
            return {"limit": self.batch}
        passages = [passage.text for passage in load_passages()]
        words = itertools.cycle(" ".join(passages).split())
        path = self.folder / "prompts.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            for number in range(self.batch):
                text = " ".join(itertools.islice(words, self.prompt_words))
                file.write(json.dumps({"id": str(number), "prompt": text}) + "\n")
        return {"source": str(path), "limit": self.batch}


def rows_of(database: Path, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Rows of a query over one run."""
    with open_database(database) as con:
        return con.execute(sql, list(parameters)).fetchall()


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Markdown; a line that says so where there are no rows."""
    return render_rows(columns, rows, "markdown") if rows else "(no rows)\n"


def micro(value: float | None, digits: int = 1) -> str | None:
    """Nanoseconds as microseconds."""
    return None if value is None else f"{value / 1e3:.{digits}f}"


def percent(value: float | None) -> str | None:
    """A share in percent."""
    return None if value is None else f"{100 * value:.2f} %"
