"""A real nsys: it wraps programs with NVTX ranges, and its reports come back as steps.

Without a GPU nsys records ranges and calls of the system; all of the path is there but kernels.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness_analysis.store import open_database
from harness_collectors.nsys import COLLECTOR, command
from harness_schemas.spi import CaptureRequest, IngestContext

pytest.importorskip("nvtx")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        command.find_nsys() is None,
        reason="nsys is not on PATH (tests/integration/tools/install_nsys.sh)",
    ),
]

STEPS = """
import json, sys, time
import nvtx
times = []
for step in range(1, 6):
    before = time.time_ns()
    with nvtx.annotate(f"decode_step_{step}"):
        times.append((before, time.time_ns()))
        open(sys.executable, "rb").read(1 << 20)
        time.sleep(0.004)
    with nvtx.annotate("between"):
        pass
json.dump(times, open(sys.argv[1], "w"))
"""
HOOKED = """
import json, sys, time
from pathlib import Path
from harness_collectors.nsys.hook import NsysHook
from harness_schemas.spi import UnitKey
options = json.loads(sys.argv[1])
hook = NsysHook(**options)
hook.start(3, 4, Path("."))
told = []
for step in range(7):
    key = UnitKey("decode" if step else "prefill", 0, 0, 0, step)
    before = time.monotonic_ns()
    perturbed = hook.before_unit(key)
    told.append((step, perturbed, before, time.monotonic_ns()))
    time.sleep(0.004)
    hook.after_unit(key)
hook.stop()
json.dump(told, open(sys.argv[2], "w"))
"""


def tables(paths, root):
    found = {}
    for batch in COLLECTOR.ingest(list(paths), IngestContext(root)):
        found.setdefault(batch.table, []).extend(batch.data.to_pylist())
    return found


def units(found):
    return [row for row in found["spans"] if row["category"] == "unit"]


def nsys(*arguments):
    done = subprocess.run(
        [command.find_nsys(), *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A report of a program with ranges, and between which times, by itself, its steps began."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "steps.py").write_text(STEPS)
    flags = command.profile_flags((2023, 4), "cpu", command.complete_options({"window": False}))
    target = [sys.executable, folder / "steps.py", folder / "times.json"]
    nsys("profile", f"--output={folder}/report", *flags, *target)
    return folder / "report.nsys-rep", json.loads((folder / "times.json").read_text())


def test_check_knows_this_nsys():
    answer = COLLECTOR.check("cpu")
    assert answer.available
    assert answer.facts["version"].count(".") >= 2


def test_a_report_is_exported_and_its_steps_are_found(recorded):
    path, times = recorded
    found = tables([path], path.parent)
    assert [(row["phase"], row["step"]) for row in units(found)] == [
        ("decode", step) for step in range(1, 6)
    ]
    # nsys reads Unix time once a session; 50 us are usual, 2 ms a loaded machine's.
    for row, (before, after) in zip(units(found), times, strict=True):
        assert before - 2_000_000 < row["start_ns"] < after + 2_000_000
    assert all(4_000_000 < row["end_ns"] - row["start_ns"] < 400_000_000 for row in units(found))
    (state,) = found["collection"]
    assert (state["state"], state["reason"]) == ("ok", None)
    reads = [row for row in found["spans"] if row["category"] == "io" and row["name"] == "read"]
    assert {row["step"] for row in reads} >= set(range(1, 6))


@pytest.mark.parametrize(
    ("kind", "folder"), [("sqlite", ""), ("parquetdir", "_pqtdir"), ("arrowdir", "_arwdir")]
)
def test_every_export_of_a_report_gives_the_same_rows(kind, folder, recorded, tmp_path):
    path, _ = recorded
    target = tmp_path / (f"report{folder}" if folder else "report.sqlite")
    nsys("export", "--type", kind, "--quiet", "true", "--output", target, path)
    files = sorted(target.iterdir()) if folder else [target]
    found, expected = tables(files, tmp_path), tables([path], path.parent)
    assert found["spans"] == expected["spans"]
    assert found["collection"][0]["state"] == "ok"


@pytest.mark.parametrize(
    ("options", "steps", "disturbed"),
    [
        ({"first": 2, "count": 2}, [2, 3], [1, 2, 3, 4]),
        ({"first": 1, "count": 1, "every": 3}, [1, 4], list(range(7))),
        ({"window": False}, list(range(7)), list(range(7))),
    ],
)
def test_the_wrapped_hook_records_its_window(options, steps, disturbed, tmp_path):
    request = CaptureRequest(tmp_path / "run", 4, "cpu", COLLECTOR.options(options))
    plan = COLLECTOR.prepare(request)
    (tmp_path / "rank.py").write_text(HOOKED)
    hook_options = json.dumps(dict(plan.rank_hooks[0].options))
    told_path = tmp_path / "told.json"
    argv = [sys.executable, str(tmp_path / "rank.py"), hook_options, str(told_path)]
    environment = {**os.environ, "RANK": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([*plan.argv_prefix, *argv], env=environment, check=True, timeout=120)
    folder = tmp_path / "run" / "artifacts" / "nsys" / socket.gethostname()
    found = tables(sorted(folder.iterdir()), tmp_path)
    told = json.loads(told_path.read_text())
    assert [step for step, by, *_ in told if by] == disturbed
    assert [(row["rank"], row["step"]) for row in units(found)] == [(3, step) for step in steps]
    # On the clock of the program itself, which it read before and after.
    began = {step: (before, after) for step, _, before, after in told}
    for row in units(found):
        before, after = began[row["step"]]
        assert before - 100_000 < row["start_ns"] < after + 100_000
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert {row["clock_domain"] for row in found["clock_anchors"]} == {boot}


SPEC = """
name = "wrapped"
device = "cpu"
[model]
synthetic = "tiny-llama"
layers = 2
[prompts]
limit = 1
[generation]
batch_size = 1
new_tokens = 8
[check]
reference = false
[launcher]
threads = 1
timeout = "4min"
[collectors]
nsys = {first = 3, count = 2}
"""


def test_harness_run_wraps_its_ranks(tmp_path):
    (tmp_path / "run.toml").write_text(SPEC)
    done = subprocess.run(
        [sys.executable, "-m", "harness", "run", "run.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    with open_database(tmp_path / "runs" / "latest" / "run.duckdb") as con:
        query = "SELECT state, reason FROM collection WHERE collector = 'nsys'"
        assert con.execute(query).fetchall() == [("ok", None)]
        units = """
            SELECT DISTINCT step FROM spans WHERE source = '{}' AND phase = 'decode'
              AND perturbed_by = 'nsys' ORDER BY step
        """
        assert con.execute(units.format("nsys")).fetchall() == [(3,), (4,)]
        assert con.execute(units.format("app_timers")).fetchall() == [(2,), (3,), (4,), (5,)]
        divided = con.execute("SELECT DISTINCT evidence FROM step_breakdown").fetchall()
        assert divided == [("app_timers",)]
    shutil.rmtree(tmp_path / "runs")
