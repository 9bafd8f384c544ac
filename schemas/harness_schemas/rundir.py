"""The run folder: who writes what where (design 4.2, docs/run-folder.md)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_schemas.errors import HarnessError, UsageError
from harness_schemas.redact import redact_tree
from harness_schemas.whole_file import whole_file


@dataclass(frozen=True)
class RunDir:
    """Paths inside one run folder. Creating a `RunDir` touches nothing."""

    path: Path

    @property
    def run_id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def run_json(self) -> Path:
        """Resolved specification, provenance, verdict."""
        return self.path / "run.json"

    @property
    def plan_json(self) -> Path:
        """What the ranks are told (model, parallel plan, hooks)."""
        return self.path / "plan.json"

    @property
    def spans(self) -> Path:
        """Spools, one set a rank; ranks append, nobody else writes."""
        return self.path / "spans"

    @property
    def logs(self) -> Path:
        """stdout and stderr of ranks and launcher."""
        return self.path / "logs"

    @property
    def artifacts(self) -> Path:
        """Files of collectors: `artifacts/<collector>/<host>/...`."""
        return self.path / "artifacts"

    @property
    def hang(self) -> Path:
        """Where a hang is watched for, and what was found: stacks and the report."""
        return self.artifacts / "hang"

    @property
    def completions(self) -> Path:
        """Generated text and tokens, JSON lines a rank."""
        return self.path / "completions"

    @property
    def database(self) -> Path:
        """The DuckDB file; appears whole or not at all."""
        return self.path / "run.duckdb"

    @property
    def command_log(self) -> Path:
        """What a wrapped command that failed said last, where its output is a file."""
        return self.logs / "command.err"

    def rank_log(self, rank: int, stream: str) -> Path:
        """`logs/rank-00003.out` or `.err`."""
        return self.logs / f"rank-{rank:05d}.{stream}"

    def collector_dir(self, collector: str, host: str) -> Path:
        """Where a collector puts its files of one host."""
        return self.artifacts / collector / host

    def pause_file(self, collector: str) -> Path:
        """While it exists, samplers of this collector take no samples."""
        return self.artifacts / collector / "paused"

    @contextlib.contextmanager
    def paused(self, collector: str) -> Iterator[None]:
        """Hold the samplers of a collector on all nodes that see the run folder."""
        file = self.pause_file(collector)
        file.parent.mkdir(exist_ok=True)
        file.touch()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            HarnessError: there is none, or it is not JSON.
        """
        try:
            data = json.loads(self.run_json.read_text())
        except FileNotFoundError:
            raise UsageError(
                f"{self.path} is not a run folder: it holds no run.json",
                "name a folder that `harness run` made, or list them with `harness list`",
            ) from None
        except (OSError, ValueError) as error:
            raise HarnessError(f"{self.run_json} cannot be read: {error}") from None
        if not isinstance(data, dict):
            raise HarnessError(f"{self.run_json} does not hold an object")
        return data

    def write(self, data: dict[str, Any]) -> None:
        """Replace run.json in one step; secrets in its texts are hidden."""
        write_json(self.run_json, redact_tree(data))


def write_json(path: Path, data: Any) -> None:
    """Write JSON under a temporary name and rename it: readers never see half a file."""
    with whole_file(path, "free space or choose another place with --output") as temporary:
        temporary.write_text(json.dumps(data, indent=2, sort_keys=False, default=str) + "\n")


def name_run(root: Path, name: str) -> RunDir:
    """`root/<time>-<name>-<id>`, a name nobody else has. Touches nothing."""
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") or "run"
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return RunDir(root / f"{stamp}-{slug[:48]}-{secrets.token_hex(2)}")


def create_run(run: RunDir) -> None:
    """Create the folder with its parts and point `latest` beside it at it.

    Raises:
        HarnessError: the place cannot be written.
    """
    try:
        run.path.mkdir(parents=True)
        for folder in (run.spans, run.logs, run.artifacts, run.completions):
            folder.mkdir()
        point_latest(run)
    except OSError as error:
        raise HarnessError(
            f"cannot create a run folder in {run.path.parent}: {error.strerror or error}",
            "choose a place you can write with --output",
        ) from None


def point_latest(run: RunDir) -> None:
    """Make `latest` beside the run a link to it, where the file system has links."""
    link = run.path.parent / "latest"
    temporary = run.path.parent / f".latest-{os.getpid()}"
    with contextlib.suppress(OSError):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(run.path.name)
        temporary.replace(link)
