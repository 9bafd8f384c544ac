"""A look at the topology once a node: `nvidia-smi topo -m`, and the state of every NVLink."""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from pathlib import Path
from typing import Any, Final

from harness_collectors.nvml.api import Library, NvmlError, open_library
from harness_collectors.sampling import Unavailable
from harness_schemas.rundir import RunDir

LINKS_FORMAT: Final = "harness-nvlinks"
_SECONDS: Final = 30


class TopologySampler:
    """Writes `topo.txt` and `nvlinks.json` of its host; looks once, beside the ranks' start."""

    def __init__(self, run_dir: Path, host: str) -> None:
        self._folder = RunDir(run_dir).collector_dir("topology", host)
        self._thread = threading.Thread(target=self._look, name="topology", daemon=True)

    def start(self) -> None:
        """Begin to look; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Give a look that is under way two seconds."""
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def _look(self) -> None:
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            matrix = _matrix()
            if matrix:
                (self._folder / "topo.txt").write_bytes(matrix)
            links = nvlinks()
            if links:
                data = {"format": LINKS_FORMAT, "version": 1, "devices": links}
                (self._folder / "nvlinks.json").write_text(json.dumps(data))


def _matrix() -> bytes:
    """What nvidia-smi prints; empty where it fails."""
    command = ["nvidia-smi", "topo", "-m"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def nvlinks(library: Library | None = None) -> list[dict[str, Any]]:
    """Index, PCI address and NVLinks of every GPU; empty where NVML does not answer."""
    try:
        opened = library or open_library()
    except Unavailable:
        return []
    found = []
    try:
        for device in opened.devices():
            try:
                identity = device.identity()
                links = device.links()
            except NvmlError:
                continue
            found.append({"index": identity["index"], "pci": identity["pci"], "links": links})
    finally:
        opened.close()
    return found
