"""The plan of a sweep, what is left of it, what it costs, and how it goes on."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from harness.progress import Narrator
from harness.sweep.estimate import check_budget, estimate
from harness.sweep.execute import run_sweep
from harness.sweep.folder import CellRun, done_runs, pending, sweep_folder
from harness.sweep.plan import parse_grid, plan_sweep
from harness_schemas.errors import ExitCode, HarnessError, SpecError, UsageError
from harness_schemas.spec.sweep import SweepSpec

SOURCE = Path("study.toml")
QUIET = Narrator(stream=io.StringIO())


def data(**more):
    return {
        "name": "study",
        "model": {"synthetic": "tiny-llama"},
        "prompts": {"limit": 4},
        **more,
    }


def plan(base=None, **sweep):
    return plan_sweep(base or data(), SweepSpec(**sweep), SOURCE)


def test_a_grid_is_every_combination():
    found = plan(grid={"parallel.tp": [1, 2], "generation.batch_size": [1, 4]})
    assert [cell.label for cell in found.cells] == [
        "tp=1 batch_size=1",
        "tp=1 batch_size=4",
        "tp=2 batch_size=1",
        "tp=2 batch_size=4",
    ]
    assert found.cells[3].spec.parallel.tp == 2 and found.cells[3].spec.generation.batch_size == 4


def test_points_change_keys_together():
    points = [{"parallel.tp": 2, "parallel.pp": 1}, {"parallel.tp": 1, "parallel.pp": 2}]
    found = plan(points=points, grid={"generation.batch_size": [1, 2]})
    assert [cell.label for cell in found.cells][::2] == [
        "tp=2 pp=1 batch_size=1",
        "tp=1 pp=2 batch_size=1",
    ]


def test_presets():
    strong = plan(preset="strong", ranks=[1, 2, 4])
    assert [(c.spec.world_size, c.spec.prompts.limit) for c in strong.cells] == [
        (1, 4),
        (2, 4),
        (4, 4),
    ]
    weak = plan(preset="weak", ranks=[2, 4], axis="pp")
    assert [(c.spec.parallel.pp, c.spec.prompts.limit) for c in weak.cells] == [(2, 4), (4, 8)]
    batch = plan(preset="batch", batches=[1, 2, 4])
    assert [c.spec.generation.batch_size for c in batch.cells] == [1, 2, 4]


@pytest.mark.parametrize(
    ("base", "sweep", "said"),
    [
        (None, {}, "nothing to vary"),
        (None, {"preset": "batch", "batches": [3]}, "does not fill batches of 3"),
        (data(prompts={}), {"preset": "weak"}, "needs prompts.limit"),
        (None, {"preset": "strong", "grid": {"prompts.limit": [1, 2]}}, "do not vary it"),
        (None, {"grid": {"prompts.limit.deep": [1]}}, "limit is not a table"),
    ],
)
def test_what_cannot_be_planned_is_said(base, sweep, said):
    with pytest.raises(UsageError, match=said):
        plan(base, **sweep)


def test_all_mistakes_of_all_cells_are_reported_at_once():
    with pytest.raises(SpecError) as caught:
        plan(grid={"parallel.tp": [0, 1, -1], "workload.batch_size": [1]})
    text = caught.value.message
    assert "[tp=0 batch_size=1] parallel.tp" in text
    assert "[tp=-1 batch_size=1] parallel.tp" in text
    assert "workload: unknown key" in text


def test_repeats_are_interleaved():
    found = plan(grid={"parallel.tp": [1, 2]}, repeats=2)
    order = [(item.repeat, item.cell.spec.world_size) for item in found.items()]
    assert order == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_a_cell_is_addressed_by_what_it_runs():
    """Name and place do not matter; everything else does."""
    one = plan(grid={"parallel.tp": [1, 2]})
    elsewhere = plan(data(name="b", output={"dir": "there"}), grid={"parallel.tp": [2]})
    other = plan(data(dtype="bfloat16"), grid={"parallel.tp": [2]})
    assert one.cells[1].key == elsewhere.cells[0].key != other.cells[0].key
    assert one.cells[0].key != one.cells[1].key


def test_more_values_and_repeats_are_the_same_sweep():
    one = plan(grid={"parallel.tp": [1, 2]})
    more = plan(grid={"parallel.tp": [1, 2, 4]}, repeats=3)
    other = plan(grid={"parallel.pp": [1, 2]})
    assert one.sweep_id == more.sweep_id != other.sweep_id


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("parallel.tp=1,2", "parallel.tp", [1, 2]),
        ("dtype=float32,bfloat16", "dtype", ["float32", "bfloat16"]),
        ('launcher.timeout="5min","1h"', "launcher.timeout", ["5min", "1h"]),
        ("parallel.layers=[2,2],[3,1]", "parallel.layers", [[2, 2], [3, 1]]),
        ("check.reference=true", "check.reference", [True]),
        ("a=1,word", "a", [1, "word"]),
    ],
)
def test_grid_values(text, key, values):
    assert parse_grid(text) == (key, values)


# -- running ---------------------------------------------------------------------------------


class Bench:
    """Runs cells as the session does, as far as a folder shows it; some fail."""

    def __init__(self, folder, bad=None, stop_at=None):
        self.folder, self.bad, self.stop_at, self.ran = folder, bad or {}, stop_at, []

    def __call__(self, item):
        if len(self.ran) == self.stop_at:
            raise KeyboardInterrupt
        self.ran.append((item.cell.spec.world_size, item.repeat))
        failure = self.bad.get(item.cell.spec.world_size)
        if isinstance(failure, Exception):
            raise failure
        verdict = failure or "ok"
        run = self.folder / f"run-{len(list(self.folder.iterdir()))}"
        run.mkdir()
        record = {
            "cell_key": item.cell.key,
            "repeat": item.repeat,
            "status": "failed" if failure else "finished",
            "verdict": verdict,
            "started_ns": 0,
            "ended_ns": 36 * 10**9,
        }
        (run / "run.json").write_text(json.dumps(record))
        (run / "run.duckdb").touch()
        return CellRun(item.repeat, run.name, record["status"], verdict, None, 0, 36.0)


def test_a_failed_cell_is_recorded_and_the_rest_continued(tmp_path):
    found = plan(grid={"parallel.tp": [1, 2, 4]})
    bad = {1: "oom_host", 2: HarnessError("no port is free")}
    result = run_sweep(found, tmp_path / "s", Bench(tmp_path / "s", bad), QUIET)
    assert [run.verdict for run in result.runs] == ["oom_host", "refused", "ok"]
    assert result.exit_code == ExitCode.GATE_FAILED
    written = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert written["status"] == "finished"
    assert [cell["runs"][0]["verdict"] for cell in written["cells"]] == [
        "oom_host",
        "refused",
        "ok",
    ]
    assert written["cells"][1]["runs"][0]["detail"] == "no port is free"


def test_a_sweep_that_could_not_start_anything_says_so(tmp_path):
    from harness.cli.printing.sweep import load_sweep, sweep_text

    found = plan(grid={"parallel.tp": [1, 2]}, repeats=2)
    bad = {1: HarnessError("no"), 2: HarnessError("no")}
    run_sweep(found, tmp_path, Bench(tmp_path, bad), QUIET)
    text = sweep_text(*load_sweep(tmp_path))
    assert "4 runs, 4 failed" in text
    assert "! not in the tables: tp=1: refused: no (2 x)" in text


def test_a_cell_that_cannot_run_is_recorded_and_never_tried_nor_paid_for(tmp_path):
    from harness.sweep.refusals import find_refusals

    found = plan(grid={"parallel.tp": [1, 3]}, repeats=2)
    check = {1: [], 3: [("parallel.tp", "8 heads"), ("parallel.tp", "4 KV heads")]}
    asked = []
    for bench in (Bench(tmp_path, stop_at=1), Bench(tmp_path), Bench(tmp_path)):
        left = pending(found, done_runs(tmp_path))
        refusals = find_refusals(
            left, lambda spec: asked.append(spec.world_size) or check[spec.world_size]
        )
        assert asked.count(3) == 1 and list(refusals.values()) == [
            "parallel.tp: 8 heads; parallel.tp: 4 KV heads"
        ]
        asked.clear()
        result = run_sweep(found, tmp_path, bench, QUIET, refusals=refusals)
        assert 3 not in dict(bench.ran)
    assert [run.verdict for run in result.runs] == ["ok", "refused"] * 2
    assert result.exit_code == ExitCode.GATE_FAILED
    # The cause is gone, as when another model lies there: the cell is run.
    last = Bench(tmp_path)
    assert run_sweep(found, tmp_path, last, QUIET, refusals={}).exit_code == ExitCode.OK
    assert last.ran == [(3, 0), (3, 1)]


def test_a_dry_run_names_what_cannot_run_and_leaves_it_out_of_the_cost(tmp_path, capsys):
    from harness.cli.main import invoke

    spec = tmp_path / "s.toml"
    spec.write_text('[model]\nsynthetic = "tiny-llama"\n[launcher]\ntimeout = "1h"\n')
    words = ["sweep", str(spec), "--grid", "parallel.tp=1,3", "--dry-run", "--json"]
    assert invoke([*words, "--output", str(tmp_path)]) == 0
    done = capsys.readouterr()
    good, bad = json.loads(done.out)
    assert (good["seconds"], bad["seconds"], bad["seconds_from"]) == (3600, None, "cannot run here")
    assert "tp=3 cannot run and is left out: " in done.err and "heads" in done.err
    assert "wall time): 1 (1 x launcher" in done.err


def test_a_defect_of_ours_costs_one_cell(tmp_path):
    found = plan(grid={"parallel.tp": [1, 2]})
    result = run_sweep(found, tmp_path, Bench(tmp_path, {1: ZeroDivisionError("x")}), QUIET)
    assert [run.verdict for run in result.runs] == ["defect", "ok"]
    assert "ZeroDivisionError" in (tmp_path / "harness.log").read_text()


def test_an_interrupted_sweep_goes_on_where_it_ended(tmp_path):
    found = plan(grid={"parallel.tp": [1, 2]}, repeats=2)
    folder = sweep_folder(tmp_path, found)
    first = run_sweep(found, folder, Bench(folder, stop_at=3), QUIET)
    assert first.exit_code == ExitCode.INTERRUPTED
    assert json.loads((folder / "sweep.json").read_text())["status"] == "interrupted"
    assert sweep_folder(tmp_path, found) == folder
    again = Bench(folder)
    second = run_sweep(found, folder, again, QUIET)
    assert again.ran == [(2, 1)]
    assert second.exit_code == ExitCode.OK and len(second.runs) == 4


def test_failed_cells_are_run_again_only_when_asked(tmp_path):
    found = plan(grid={"parallel.tp": [1, 2]})
    run_sweep(found, tmp_path, Bench(tmp_path, {2: "timeout"}), QUIET)
    assert pending(found, done_runs(tmp_path)) == []
    again = Bench(tmp_path)
    result = run_sweep(found, tmp_path, again, QUIET, retry_failed=True)
    assert again.ran == [(2, 0)] and result.exit_code == ExitCode.OK


def test_a_good_run_without_a_database_is_run_again(tmp_path):
    found = plan(grid={"parallel.tp": [1]})
    run_sweep(found, tmp_path, Bench(tmp_path), QUIET)
    next(tmp_path.glob("*/run.duckdb")).unlink()
    assert len(pending(found, done_runs(tmp_path))) == 1


def test_two_processes_do_not_work_on_one_sweep(tmp_path):
    found = plan(grid={"parallel.tp": [1]})

    def greedy(item):
        run_sweep(found, tmp_path, Bench(tmp_path), QUIET)

    result = run_sweep(found, tmp_path, greedy, QUIET)
    assert "another process works on" in result.runs[0].detail


# -- cost ------------------------------------------------------------------------------------


def test_gpu_hours_come_from_earlier_runs_else_from_the_limit():
    """36 s on two ranks are 0.02 h; an hour's limit on one rank is 1 h; twice."""
    found = plan(data(launcher={"timeout": "1h"}), grid={"parallel.tp": [1, 2]}, repeats=2)
    cost = estimate(list(found.items()), {found.cells[1].key: 36.0})
    assert cost.gpu_hours == pytest.approx(2 * (1 + 0.02))
    assert "2 x launcher.timeout" in cost.sentence() and "2 x median of" in cost.sentence()
    check_budget(cost, 2.1)
    with pytest.raises(UsageError, match="nothing was started"):
        check_budget(cost, 2.0)


def test_an_unknown_cost_does_not_fit_a_budget():
    found = plan(grid={"parallel.tp": [1]})
    cost = estimate(list(found.items()), {})
    assert cost.gpu_hours is None
    check_budget(cost, None)
    with pytest.raises(UsageError, match="unknown"):
        check_budget(cost, 100)


@pytest.mark.parametrize("array", [False, True])
def test_under_slurm_cells_that_no_job_can_run_are_left_out_and_recorded(
    array, tmp_path, monkeypatch
):
    from harness.cli.main import invoke
    from harness.jobs import sweep as jobs

    shape = {"nodes": 1, "ntasks_per_node": 3}
    grid = {"grid": {"parallel.tp": [1, 3]}}
    spec = data(device="cpu", launcher={"kind": "slurm"}, slurm=shape, sweep=grid)
    (tmp_path / "s.json").write_text(json.dumps(spec))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    asked = []
    controller = jobs.Controller
    monkeypatch.setattr(
        controller, "submit", lambda self, argv: asked.append(argv) or ("7", "", "")
    )
    words = ["--array"] if array else []
    assert invoke(["sweep", "s.json", "--detach", *words]) == 0
    assert len(asked) == 1
    (folder,) = (tmp_path / "runs").glob("*-sweep-*")
    cells = json.loads((folder / "sweep.json").read_text())["cells"]
    assert [[run["verdict"] for run in cell["runs"]] for cell in cells] == [[], ["refused"]]
    script = (folder / "job" / "script.sh").read_text()
    assert ("--array=0-0%" in script) is array
