"""What a capture plan needs of the run before ranks start."""

from __future__ import annotations

from harness.setup.capture import Capture
from harness_schemas.spi import CapturePlan


def test_every_collector_has_its_folder_and_its_say(tmp_path):
    """NCCL writes its log to stdout where the folder of NCCL_DEBUG_FILE is absent."""
    plans = {"nccl_log": CapturePlan(notes=("NCCL_DEBUG is kept",)), "psutil": CapturePlan()}
    capture = Capture(plans)
    capture.make_folders(tmp_path)
    capture.make_folders(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nccl_log", "psutil"]
    assert capture.notes == ("NCCL_DEBUG is kept",)
