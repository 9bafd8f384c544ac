"""A specification whose collectors exclude each other becomes one run for each."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import split
from harness.cli.main import invoke
from harness.ingest import ingest_run
from harness.setup import capture
from harness_schemas.errors import LaunchError, UsageError
from harness_schemas.rundir import create_run, name_run
from harness_schemas.spec import RunSpec
from harness_schemas.spi import Availability, CapturePlan

SPEC = {"model": {"synthetic": "tiny-llama"}, "collectors": {"nsys": True, "torch_profiler": True}}


class Exclusive:
    """A collector that needs CUPTI, wherever it is asked."""

    def __init__(self, name):
        self.name = name

    def check(self, device):
        return Availability(True)

    def options(self, given):
        return dict(given)

    def prepare(self, request):
        return CapturePlan(exclusive=frozenset({"cupti"}))


@pytest.fixture
def gpu_machine(monkeypatch):
    """The real collectors, but nsys and torch_profiler as on a machine that has both."""
    real = capture.load_collector
    taken = ("nsys", "torch_profiler")
    monkeypatch.setattr(
        capture, "load_collector", lambda name: Exclusive(name) if name in taken else real(name)
    )


plans = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.frozensets(st.sampled_from(["cupti", "dcgm", "perf"]), max_size=2).map(
        lambda held: CapturePlan(exclusive=held)
    ),
)


@given(plans)
def test_every_collector_runs_and_none_beside_one_it_excludes(plans):
    sets = split.divide(plans)
    assert set().union(*sets) == set(plans)
    shared = {name for name, plan in plans.items() if not plan.exclusive}
    for names in sets:
        assert shared <= names
        capture._refuse_exclusive({name: plans[name] for name in names})
    exclusive = [name for names in sets for name in names if plans[name].exclusive]
    assert len(exclusive) == len(set(exclusive))


def test_the_refusal_names_the_option(gpu_machine, tmp_path):
    with pytest.raises(UsageError) as refused:
        capture.plan_capture(RunSpec.model_validate(SPEC), "cpu", tmp_path)
    assert "--split" in refused.value.hint
    assert "nsys and torch_profiler" in refused.value.message


def test_a_specification_is_divided_by_its_evidence(gpu_machine, tmp_path):
    spec = RunSpec.model_validate({**SPEC, "name": "x"})
    parts = split.split_spec(spec, "cpu")
    assert [part.label for part in parts] == ["nsys", "torch_profiler"]
    assert [part.spec.name for part in parts] == ["x-nsys", "x-torch_profiler"]
    for part in parts:
        found = capture.plan_capture(part.spec, "cpu", tmp_path)
        assert part.label in found.plans
        assert {"app_timers", "psutil"} <= found.plans.keys()
        same = {**part.spec.model_dump(), "name": "x", "collectors": spec.collectors}
        assert RunSpec.model_validate(same) == spec
    alone = RunSpec.model_validate({**SPEC, "collectors": {"nsys": True}})
    assert [part.spec for part in split.split_spec(alone, "cpu")] == [alone]


def test_the_runs_are_joined_and_reported_together(gpu_machine, tmp_path, monkeypatch, capsys):
    """The parts' runs are made without ranks: what is tried is the joining."""
    spec = RunSpec.model_validate({**SPEC, "name": "x", "output": {"dir": str(tmp_path / "runs")}})
    planned = []

    def run_spec(part, narrator, strict, marks):
        run = name_run(tmp_path / "runs" / marks["sweep_id"], part.name)
        if part.name == "x-torch_profiler":
            raise LaunchError("no port")
        create_run(run)
        run.write({"run_id": run.run_id, "verdict": "ok", "exit_code": 0, **marks})
        ingest_run(run)
        return SimpleNamespace(run=run, exit_code=0)

    monkeypatch.setattr("harness.session.run_spec", run_spec)
    monkeypatch.setattr("harness.session.plan_run", lambda *given: planned.append(given))
    folder = split.group_folder(spec)
    narrator = SimpleNamespace(say=lambda text: None)
    results = split.run_split(split.split_spec(spec, "cpu"), folder, narrator)
    assert (len(planned), len(results)) == (2, 1)
    [(label, run)] = split.split_runs(folder)
    assert (label, run.read()["sweep_id"]) == ("nsys", folder.name)
    record = json.loads((folder / "split.json").read_text())
    assert record["parts"][1] == {"evidence": "torch_profiler", "run": None, "problem": "no port"}
    assert invoke(["report", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "nsys" in shown
    assert "a run for each kind of evidence" in shown
    assert invoke(["query", str(folder), "SELECT cell FROM runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"cell": "nsys"}]


def test_a_folder_that_is_no_split_has_no_parts(tmp_path):
    assert split.split_runs(tmp_path) == []
    (tmp_path / "split.json").write_text('{"parts": 3}')
    assert split.split_runs(tmp_path) == []
