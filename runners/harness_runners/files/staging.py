"""Files on the node's own disk: weights copied there before they are read, spools written there.

Every node gets the weight files that its own ranks need. Its ranks copy them together, each its
share, and each copy is a span of category io. A copy that fails leaves the file where it was:
staging may make a run faster, never impossible.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness_probe as probe
from harness_runners.files.storage import storage_bytes_read, storage_bytes_since
from harness_runners.plan import RunPlan, StagePlan

PIECE = 64 << 20
KEEP_FREE = 1 << 30
"""Bytes that a copy leaves free on the node's disk."""
Needs = tuple[str, Mapping[str, int]]
"""A rank's host, and the files that it reads with their sizes."""
Locate = Callable[[Sequence[Path]], Mapping[Path, Path]]


def spool_folder(plan: RunPlan) -> tuple[Path, str]:
    """Where this rank records; and, where that is not where it was to be, why."""
    if plan.stage.spool is None:
        return plan.run.spans, ""
    # A folder a host: were the disk a shared one after all, each would bring its own only.
    folder = Path(plan.stage.spool) / socket.gethostname()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder, ""
        return plan.run.spans, f"{folder} cannot be written"
    except OSError as error:
        return plan.run.spans, f"{folder}: {error.strerror or error}"


@contextlib.contextmanager
def weights_on_node(stage: StagePlan) -> Iterator[Locate]:
    """Yields what says where each of some files is to be read; all ranks ask it, once.

    Copies that are not kept are removed when all ranks have read them.
    """
    if stage.weights is None:
        yield lambda files: {file: file for file in files}
        return
    import torch.distributed as dist

    made: list[Path] = []
    try:
        yield lambda files: _bring(Path(str(stage.weights)), files, made)
        dist.barrier()
    finally:
        if not stage.keep:
            for copy in made:
                copy.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # the last one of this host
                    copy.parent.rmdir()
                    copy.parent.parent.rmdir()


def _bring(folder: Path, files: Sequence[Path], made: list[Path]) -> Mapping[Path, Path]:
    host = socket.gethostname()
    needs: list[Needs] = _gather((host, {str(file): file.stat().st_size for file in files}))
    problems: dict[str, str] = {}
    for file in share(needs, _own_rank()):
        problem = _copy(file, folder, made)
        if problem:
            problems[str(file)] = problem
    failed: dict[str, str] = {}
    for where, found in _gather((host, problems)):
        failed |= found if where == host else {}
    if failed:
        name, why = next(iter(failed.items()))
        reason = f"{len(failed)} weight files are read where they lie: {Path(name).name}: {why}"
        probe.collection("stage_weights", "degraded", reason)
    else:
        probe.collection("stage_weights", "ok")
    return {file: file if str(file) in failed else folder / file.name for file in files}


def share(needs: Sequence[Needs], rank: int) -> list[Path]:
    """The files that a rank copies: the largest first, always to the rank with least. Pure."""
    host = needs[rank][0]
    peers = [number for number, (where, _) in enumerate(needs) if where == host]
    sizes: dict[str, int] = {}
    for number in peers:
        sizes |= needs[number][1]
    loads = dict.fromkeys(peers, 0)
    mine = []
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        least = min(peers, key=lambda number: (loads[number], number))
        loads[least] += size
        if least == rank:
            mine.append(Path(name))
    return mine


def _copy(file: Path, folder: Path, made: list[Path]) -> str:
    """Copy a file into the folder unless it is there; returns what went wrong."""
    target, size = folder / file.name, file.stat().st_size
    if target.is_file() and target.stat().st_size == size:
        return ""
    temporary = target.with_name(f".{file.name}-{secrets.token_hex(4)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size + KEEP_FREE:
            return f"{folder} has {free} bytes free, the file {size}"
        _copy_bytes(file, temporary, target)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    made.append(target)
    return ""


def _copy_bytes(file: Path, temporary: Path, target: Path) -> None:
    before = storage_bytes_read()
    with probe.io("copy", file) as span, file.open("rb") as source, temporary.open("wb") as sink:
        while sent := os.sendfile(sink.fileno(), source.fileno(), None, PIECE):
            span.add(sent)
        temporary.rename(target)
        span.note(to=str(target), storage_bytes=storage_bytes_since(before))


def _own_rank() -> int:
    import torch.distributed as dist

    return int(dist.get_rank())


def _gather(mine: Any) -> list[Any]:
    import torch.distributed as dist

    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, mine)
    return everyone
