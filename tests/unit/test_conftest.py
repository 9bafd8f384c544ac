"""The rules of tests/conftest.py, tried on a small test folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import pytest

@pytest.mark.integration
def test_tool():
    pytest.skip("no such tool")

@pytest.mark.integration
@pytest.mark.skipif(True, reason="no such port")
def test_marked():
    pass

@pytest.mark.integration
def test_samples():
    pytest.skip("shared samples are absent")

@pytest.mark.integration
@pytest.mark.xfail(reason="known")
def test_known():
    assert False

def test_plain():
    pytest.skip("not today")

@pytest.mark.gpu
def test_gpu():
    import torch
    assert torch.cuda.is_available()
"""


@pytest.fixture
def outcome(tmp_path):
    def run(required):
        folder = tmp_path / "integration"
        folder.mkdir(exist_ok=True)
        shutil.copy(CONFTEST, tmp_path)
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  integration\n  gpu\n")
        (folder / "test_some.py").write_text(TESTS)
        (folder / "test_whole.py").write_text(
            "import pytest\npytest.importorskip('no_such_module')"
        )
        env = {**os.environ, "HARNESS_REQUIRE_INTEGRATION": required}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", str(tmp_path)],
            env=env,
            capture_output=True,
            text=True,
        )
        return done.returncode, done.stdout

    return run


@pytest.mark.parametrize("required", ["", "0"])
def test_outside_ci_skips_are_skips(outcome, required):
    code, text = outcome(required)
    assert code == 0
    assert "no such tool" in text
    assert not re.search(r"\d (failed|error)", text.splitlines()[-1])


def test_in_ci_a_skipped_integration_test_fails(outcome):
    code, text = outcome("1")
    assert code != 0
    failed = set(re.findall(r"^(?:FAILED|ERROR) \S*::(\w+)", text, re.MULTILINE))
    assert {"test_tool", "test_marked"} <= failed
    assert not failed & {"test_samples", "test_plain", "test_known", "test_gpu"}
    assert "skipped: no such tool" in text
    assert "no_such_module" in text
