"""What the capture half sets, and which files are logs of NCCL."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness_collectors.nccl_log import COLLECTOR
from harness_schemas.spi import CaptureRequest

VARIABLES = (
    "NCCL_DEBUG",
    "NCCL_DEBUG_SUBSYS",
    "NCCL_DEBUG_FILE",
    "NCCL_DEBUG_TIMESTAMP_FORMAT",
    "NCCL_DEBUG_TIMESTAMP_LEVELS",
)


@pytest.fixture
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def plan(options=None, device="cuda"):
    given = COLLECTOR.options(options or {})
    return COLLECTOR.prepare(CaptureRequest(Path("/run"), 2, device, given))


def test_capture_asks_for_a_file_a_process(clean):
    made = plan()
    assert made.env == {
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,ENV,GRAPH,COLL,TUNING",
        "NCCL_DEBUG_FILE": "/run/artifacts/nccl_log/nccl.%h.%p.log",
        "NCCL_DEBUG_TIMESTAMP_FORMAT": "[%s.%6f]_",
        "NCCL_DEBUG_TIMESTAMP_LEVELS": "VERSION,WARN,INFO",
    }
    assert made.notes == ()
    assert "NCCL_DEBUG_TIMESTAMP_FORMAT" not in plan({"stamps": False}).env
    assert plan(device="cpu").env == {}


def test_settings_of_the_user_are_kept_and_said(clean):
    clean.setenv("NCCL_DEBUG", "WARN")
    clean.setenv("NCCL_DEBUG_SUBSYS", "INIT,ENV,GRAPH,COLL,TUNING")
    made = plan()
    assert "NCCL_DEBUG" not in made.env
    assert made.env["NCCL_DEBUG_SUBSYS"] == "INIT,ENV,GRAPH,COLL,TUNING"
    [note] = made.notes
    assert "NCCL_DEBUG=WARN" in note
    assert "INFO" in note
    assert plan({"override": True}).env["NCCL_DEBUG"] == "INFO"
    assert "NCCL_DEBUG=WARN" in COLLECTOR.check("cuda").reason


def test_options_say_every_mistake():
    with pytest.raises(ValueError, match="level") as caught:
        COLLECTOR.options({"level": "LOUD", "subsystems": "INIT,FOO", "stamps": 1})
    assert str(caught.value).count("\n") == 2
    assert COLLECTOR.options({"subsystems": "all, ^coll"})["subsystems"] == "ALL,^COLL"


def test_recognise():
    assert COLLECTOR.recognise(Path("x"), b"app\nnode:1:2 [0] NCCL INFO Using network IB\n")
    assert COLLECTOR.recognise(Path("x"), b"NCCL WARN NET/IB : Unable to open device\n")
    assert not COLLECTOR.recognise(Path("x"), b"the NCCL library is great\n")
    assert not COLLECTOR.recognise(Path("x"), b'{"log": "a NCCL INFO b"}')
