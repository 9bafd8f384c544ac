"""A sweep end to end: two cells, of which one fails; tables, page, resumption, catalogue."""

from __future__ import annotations

import json

import pytest
from browser import open_browser
from click.testing import CliRunner

from harness.cli.main import cli

pytestmark = pytest.mark.integration

SPEC = """
name = "small"
device = "cpu"
model.synthetic = "tiny-llama"
prompts.limit = 1
generation = { batch_size = 1, new_tokens = 4, warmup = 0 }
launcher = { threads = 1, timeout = "100s" }
check.reference = false
"""
GRID = ("--grid", "launcher.timeout=100s,1ms")


def harness(*arguments):
    result = CliRunner().invoke(cli, [str(part) for part in arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The sweep, run once: a cell that succeeds, and one that hits its time limit."""
    folder = tmp_path_factory.mktemp("sweep")
    spec = folder / "small.toml"
    spec.write_text(SPEC)
    runs = folder / "runs"
    return spec, runs, harness("sweep", spec, *GRID, "--output", runs)


def test_a_sweep_from_the_command_to_the_page(swept, tmp_path, monkeypatch):
    spec, runs, result = swept
    assert result.return_value == 1  # some failed, and the rest were run
    assert "timeout=1ms, repeat 0" in result.stderr and "timeout after" in result.stderr
    assert "runs left out: timeout=1ms: timeout" in result.stdout
    (folder,) = runs.glob("*-small-sweep-*")
    cells = json.loads((folder / "sweep.json").read_text())["cells"]
    assert [cell["runs"][0]["verdict"] for cell in cells] == ["ok", "timeout"]

    again = harness("sweep", spec, *GRID, "--output", runs, "--dry-run", "--json")
    listed = json.loads(again.stdout)
    assert [(cell["done"], cell["failed"]) for cell in listed] == [(1, 0), (0, 1)]
    assert [cell["seconds_from"] for cell in listed] == [
        "median of earlier runs",
        "launcher.timeout, an upper bound",
    ]
    assert "0 to run" in again.stderr

    rows = json.loads(harness("report", folder, "--json").stdout)
    assert [row["failures"] for row in rows] == [None, "timeout"]
    assert rows[0]["throughput"] > 0 and rows[1]["throughput"] is None

    asked = "SELECT cell, repeat, sweep_id, verdict FROM runs ORDER BY cell"
    both = json.loads(harness("query", folder, asked, "--json").stdout)
    identity = folder.name.rpartition("-")[2]
    assert both == [
        {"cell": "timeout=100s", "repeat": 0, "sweep_id": identity, "verdict": "ok"},
        {"cell": "timeout=1ms", "repeat": 0, "sweep_id": identity, "verdict": "timeout"},
    ]
    monkeypatch.setenv("HARNESS_OUTPUT", str(runs))
    assert json.loads(harness("query", "catalogue", asked, "--json").stdout) == both

    page = tmp_path / "page.html"
    harness("report", folder, "-o", page)
    with open_browser() as browser:
        browser.look_as(1200, 900)
        browser.open(page)
        assert browser.complaints() == []
        assert browser.requests() == [page.absolute().as_uri()]
        assert browser.evaluate("document.querySelectorAll('.js-plotly-plot').length") == 1


def test_a_budget_is_kept_before_anything_is_started(swept, tmp_path):
    from harness_schemas.errors import UsageError

    spec, *_ = swept
    runs = tmp_path / "runs"
    arguments = ("--preset", "strong", "--budget-gpuh", "0.01", "--output", runs)
    with pytest.raises(UsageError, match="nothing was started"):
        harness("sweep", spec, *arguments)
    assert not runs.exists()
