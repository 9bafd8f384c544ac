from __future__ import annotations

import pytest
from unit.probe.spool import rows

import harness_probe as probe
from harness_runners.engines import BatchJob
from harness_runners.plan import HookPlan, ModelPlan, RunPlan
from harness_runners.rank.units import Hooks, Units
from harness_schemas.errors import HarnessError
from harness_schemas.rundir import RunDir
from harness_schemas.spi import UnitKey

seen = []


class Watcher:
    """Perturbs every third step."""

    name = "watcher"

    def __init__(self, every=3):
        self.every = every

    def start(self, rank, world_size, folder):
        assert folder.is_dir()
        seen.append(("start", rank, world_size, folder.parent.name))

    def before_unit(self, key):
        seen.append(("before", key))
        return self.name if key.step is not None and key.step % self.every == 0 else None

    def after_unit(self, key):
        seen.append(("after", key))

    def pause(self):
        seen.append(("pause",))

    def stop(self):
        seen.append(("stop",))


class Broken(Watcher):
    name = "broken"

    def before_unit(self, key):
        raise RuntimeError("no counters left")


def plan(folder, *names, strict=False):
    hooks = tuple(HookPlan(f"{__name__}:{name}", {}) for name in names)
    return RunPlan(str(folder), str(folder), ModelPlan("m"), (1,), hooks=hooks, strict=strict)


@pytest.fixture(autouse=True)
def recording(tmp_path):
    seen.clear()
    probe.stop()
    probe.start(tmp_path / "spans", 0, 1, 0)
    yield
    probe.stop()


def meta(folder, kind):
    probe.flush()
    return rows(folder / "spans", kind)


def test_hooks_are_asked_before_and_told_after_each_unit(tmp_path):
    units = Units()
    units.hooks = Hooks(plan(tmp_path, "Watcher"), 0)
    job = BatchJob(2, 1, (), warmup=True)
    with units.step("decode", job, 0, 3), probe.span("inside"):
        pass
    with units.step("decode", job, 0, 4):
        pass
    units.close()
    key = UnitKey("decode", 2, 0, 1, 3, True)
    assert seen[:3] == [("start", 0, 1, "watcher"), ("before", key), ("after", key)]
    assert seen[-1] == ("stop",)
    assert [row["perturbed_by"] for row in meta(tmp_path, "unit")] == ["watcher", None]
    first = meta(tmp_path, "unit")[0]
    assert [first[name] for name in ("phase", "batch", "repeat", "step", "warmup")] == [
        "decode",
        2,
        1,
        3,
        True,
    ]


def test_a_hook_that_raises_is_switched_off_and_recorded(tmp_path):
    units = Units()
    units.hooks = Hooks(plan(tmp_path, "Broken", "Watcher"), 0)
    for _ in range(2):
        with units.phase("load"):
            pass
    units.close()
    (failure,) = meta(tmp_path, "collection")
    assert (failure["collector"], failure["state"]) == ("broken", "failed")
    assert failure["reason"] == "RuntimeError: no counters left"
    assert len([event for event in seen if event[0] == "before"]) == 2


def test_a_hook_that_cannot_be_imported_is_recorded_too(tmp_path):
    Hooks(plan(tmp_path, "Missing"), 0)
    assert "AttributeError" in meta(tmp_path, "collection")[0]["reason"]


def test_strict_ends_the_run(tmp_path):
    units = Units()
    units.hooks = Hooks(plan(tmp_path, "Broken", strict=True), 0)
    with pytest.raises(HarnessError, match="collector broken failed: RuntimeError"):
        units.phase("load").__enter__()


def test_the_batch_perturbs_its_units(tmp_path):
    units = Units()
    job = BatchJob(0, 1, (), perturbed_by="correctness")
    with units.step("prefill", job, 0, 0) as unit_id:
        assert unit_id == 1
    with units.phase("postprocess", job):
        pass
    assert [row["perturbed_by"] for row in meta(tmp_path, "unit")] == ["correctness"] * 2


def test_a_batch_calibrated_off_leaves_units_alone(tmp_path):
    units = Units()
    units.hooks = Hooks(plan(tmp_path, "Watcher"), 0)
    for state in ("off", "on"):
        job = BatchJob(0, 1, (), perturbed_by=f"calibrate:{state}")
        with units.recording(job), units.step("decode", job, 0, 3), probe.span("layer"):
            assert probe.is_quiet() == (state == "off")
    units.close()
    # The watcher perturbs step 3, but a pair is found by what the run itself says of its units.
    assert [row["perturbed_by"] for row in meta(tmp_path, "unit")] == [
        "calibrate:off",
        "calibrate:on",
    ]
    assert [event[0] for event in seen] == ["start", "pause", "before", "after", "stop"]


@pytest.mark.parametrize(("of", "told", "held"), [("watcher", 0, []), ("nvml", 1, ["nvml"])])
def test_a_collector_calibrated_off_is_silent_alone(tmp_path, of, told, held):
    units = Units()
    units.hooks = Hooks(plan(tmp_path, "Watcher"), 0)
    run = RunDir(tmp_path)
    units.pauses = run.paused
    job = BatchJob(0, 1, (), perturbed_by=f"calibrate:off:{of}")
    with units.recording(job), units.step("decode", job, 0, 1):
        assert not probe.is_quiet()
        assert [name for name in held if run.pause_file(name).exists()] == held
    assert not run.pause_file(of).exists()
    assert sum(event[0] == "before" for event in seen) == told


def test_phases_become_telemetry_once_there_is_any(tmp_path):
    class Telemetry:
        spans = []

        def add(self, name, start, end, **attributes):
            self.spans.append((name, end >= start, attributes))

        def close(self):
            self.spans.append("closed")

    units = Units()
    with units.phase("startup"):
        units.telemetry = Telemetry()
    with units.phase("postprocess", BatchJob(3, 0, ())):
        pass
    units.close()
    assert Telemetry.spans == [
        ("startup", True, {"batch": None, "repeat": None}),
        ("postprocess", True, {"batch": 3, "repeat": 0}),
        "closed",
    ]
