"""What may be skipped, and where."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REQUIRED = os.environ.get("HARNESS_REQUIRE_INTEGRATION", "") not in ("", "0")
"""Set by .ci/run: an integration test that is skipped there has not passed."""

MAY_BE_ABSENT = ("shared samples are absent", "no container image is at hand")
"""What no test run makes: strangers' recordings; an image, which takes minutes to build."""


def pytest_configure(config: pytest.Config) -> None:
    """A file that may not skip itself is one failure among others, not the end of the run.

    And no example of a property fails for its time: machines are busy.
    """
    settings.register_profile(
        "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("patient")
    if REQUIRED:
        config.option.continue_on_collection_errors = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests of CUDA devices out where there is none."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    if gpu and not _has_cuda():
        config.hook.pytest_deselected(items=gpu)
        items[:] = [item for item in items if item not in gpu]


def _has_cuda() -> bool:
    if not Path("/proc/driver/nvidia/version").exists():
        return False
    import torch

    return torch.cuda.is_available()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Where integration tests are required, a skipped one is a failure."""
    report = yield
    if REQUIRED and item.get_closest_marker("integration"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """The same for a whole file that skips itself, as `importorskip` does."""
    report = yield
    if REQUIRED and "integration" in collector.path.parts:
        _refuse_skip(report)
    return report


def _refuse_skip(report):
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(MAY_BE_ABSENT):
        report.outcome = "failed"
        report.longrepr = f"a required integration test was skipped: {reason}"
