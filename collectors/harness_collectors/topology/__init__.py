"""How GPUs and network adapters of a host are linked: `nvidia-smi topo -m`, and NVML's NVLinks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from harness_collectors.options import no_options
from harness_collectors.reading.text_evidence import Tally, batch, by_host
from harness_collectors.reading.wrapped import printed, read_printed
from harness_collectors.topology.capture import LINKS_FORMAT, TopologySampler
from harness_collectors.topology.matrix import is_matrix, read_matrix
from harness_schemas.spi import (
    Availability,
    Batch,
    CapturePlan,
    CaptureRequest,
    IngestContext,
    SamplerSpec,
)

NAME: Final = "topology"
_MOST_LINKS: Final = 4096


def sampler(run_dir: Path, host: str, options: Mapping[str, Any]) -> TopologySampler:
    """What the agent runs once a node: it looks once, at the start."""
    return TopologySampler(run_dir, host)


class Topology:
    """Links between the devices of each host."""

    name = NAME
    title = "links between GPUs and network adapters"
    sources = (NAME,)

    def check(self, device: str) -> Availability:
        """Whether nvidia-smi is here."""
        if shutil.which("nvidia-smi") is None:
            hint = "run on a GPU node, or ingest somebody's `nvidia-smi topo -m`"
            return Availability(False, "nvidia-smi is not on PATH", hint)
        return Availability(True)

    def options(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """No options.

        Raises:
            ValueError: one was given.
        """
        return no_options(NAME, given)

    def prepare(self, request: CaptureRequest) -> CapturePlan:
        """A look once a node."""
        return CapturePlan(samplers=(SamplerSpec("harness_collectors.topology:sampler"),))

    def recognise(self, path: Path, head: bytes) -> bool:
        """The matrix of `nvidia-smi topo`, or our own file of NVLinks."""
        text = printed(head).decode("utf-8", "replace")
        return LINKS_FORMAT in text[:200] or is_matrix(text)

    def ingest(self, files: Sequence[Path], context: IngestContext) -> Iterator[Batch]:
        """Rows of `topology`, and one row of `collection` a host."""
        for host, paths in by_host(files, NAME):
            tally = Tally(NAME, host)
            for path in paths:
                rows = _read(path, tally)
                tally.records += len(rows)
                if rows:
                    yield batch(NAME, ({"host": host, "source": NAME, **row} for row in rows))
            yield batch("collection", [tally.row({"files": [path.name for path in paths]})])


def _read(path: Path, tally: Tally) -> list[dict[str, Any]]:
    try:
        read = read_printed(path, 1 << 20)
    except OSError as error:
        tally.unreadable += 1
        tally.reason = f"{path.name}: {error.strerror or error}"
        return []
    tally.bytes += read.size
    if LINKS_FORMAT in read.text[:200]:
        rows, unreadable = _read_links(read.text)
    else:
        rows, unreadable = read_matrix(read.text)
    tally.unreadable += unreadable + read.cut
    return rows


def _read_links(text: str) -> tuple[list[dict[str, Any]], int]:
    """Rows of NVLinks between the same two devices in the same state, with their number."""
    try:
        data = json.loads(text)
        devices = {str(item["pci"]): f"GPU{int(item['index'])}" for item in data["devices"]}
        count: dict[tuple[str, str, str], int] = {}
        for item in data["devices"]:
            for link in item["links"][:_MOST_LINKS]:
                remote = str(link["remote"] or "unknown")
                state = "active" if link["active"] is True else "inactive"
                key = (devices[str(item["pci"])], devices.get(remote, remote)[:40], state)
                count[key] = count.get(key, 0) + 1
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return [], 1
    return [
        {"a": a, "b": b, "link": "nvlink", "lanes": lanes, "state": state}
        for (a, b, state), lanes in sorted(count.items())
    ], 0


COLLECTOR = Topology()
