"""How ranks are wrapped, what their hook does, and what is said where nsys is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness_collectors import torch_profiler
from harness_collectors.nsys import COLLECTOR, command
from harness_collectors.nsys import hook as hook_module
from harness_collectors.nsys.hook import NsysHook
from harness_schemas.spi import CaptureRequest, UnitKey


def put_nsys(folder, version, monkeypatch):
    """An nsys that tells its version, and runs what it is asked to profile."""
    script = folder / "nsys"
    script.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = --version ] && {{ echo "NVIDIA Nsight Systems version {version}"; exit; }}\n'
        'echo "$@" >"$NSYS_SAID"\n'
        'while [ "${1#-}" != "$1" ] || [ "$1" = profile ]; do shift; done\n'
        'exec "$@"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(command.NSYS_ENV, raising=False)
    command.version_of.cache_clear()
    return script


def flags(version, device="cuda", **options):
    return command.profile_flags(version, device, command.complete_options(options))


# -- the command ---------------------------------------------------------------------------------


def test_flags_on_a_gpu():
    assert flags((2023, 4, 4, 54)) == (
        "--trace=cuda,nvtx,osrt",
        "--sample=none",
        "--cpuctxsw=none",
        "--force-overwrite=true",
        "--wait=primary",
        "--cuda-graph-trace=node",
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop",
    )


@pytest.mark.parametrize(
    ("version", "traced"),
    [((2025, 5, 9), "cuda,nvtx,osrt"), ((2025, 6, 1), "cuda,nvtx,osrt,nccl")],
)
def test_nccl_is_traced_where_nsys_can(version, traced):
    assert flags(version)[0] == f"--trace={traced}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"every": 10}, "--capture-range-end=repeat"),
        ({"steps": [1, 5]}, "--capture-range-end=repeat"),
        ({"graph": "graph"}, "--cuda-graph-trace=graph"),
    ],
)
def test_flags_follow_the_options(options, expected):
    assert expected in flags((2024, 1), **options)


def test_without_a_window_the_whole_run_is_recorded():
    assert not [flag for flag in flags((2024, 1), window=False) if "capture" in flag]


def test_on_a_cpu_a_range_opens_the_window():
    found = flags((2024, 1), "cpu")
    assert found[0] == "--trace=nvtx,osrt"
    assert "--capture-range=nvtx" in found
    assert "--nvtx-capture=harness-window@*" in found
    assert not [flag for flag in found if "cuda" in flag.lower()]


@pytest.mark.parametrize(
    ("given", "mistake"),
    [
        ({"frist": 3}, "nsys has no option 'frist'"),
        ({"first": 0}, "first is 0, but must be a number from 1 on"),
        ({"count": True}, "count is True"),
        ({"every": "x"}, "every is 'x'"),
        ({"steps": 3}, "steps is 3"),
        ({"window": 1}, "window is 1"),
        ({"graph": "both"}, "graph is 'both', but must be node or graph"),
    ],
)
def test_mistakes_in_options_are_told(given, mistake):
    with pytest.raises(ValueError, match=next(iter(given))) as error:
        COLLECTOR.options(given)
    assert mistake in str(error.value)


def test_mistakes_are_told_together():
    with pytest.raises(ValueError, match="first") as error:
        COLLECTOR.options({"first": -1, "graph": "x"})
    assert len(str(error.value).splitlines()) == 2


# -- where nsys is, and is not ---------------------------------------------------------------------


def test_check_finds_nsys_and_its_version(tmp_path, monkeypatch):
    script = put_nsys(tmp_path, "2024.5.1.113-245134619542v0", monkeypatch)
    answer = COLLECTOR.check("cuda")
    assert answer.available
    assert answer.facts == {"path": str(script), "version": "2024.5.1.113"}


def test_an_old_nsys_is_refused(tmp_path, monkeypatch):
    put_nsys(tmp_path, "2020.4.3.7-10543b6", monkeypatch)
    answer = COLLECTOR.check("cuda")
    assert (answer.available, answer.reason) == (False, "nsys 2020.4.3.7 is too old")


def test_a_missing_nsys_is_told_with_where_it_may_be(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(command.NSYS_ENV, raising=False)
    assert COLLECTOR.check("cuda").reason == "nsys is not on PATH"
    place = tmp_path / "opt/nvidia/nsight-systems/2024.1.1/bin"
    place.mkdir(parents=True)
    (place / "nsys").touch()
    assert command.elsewhere(tmp_path) == place / "nsys"


def test_nsys_and_torch_profiler_exclude_each_other_on_a_gpu(tmp_path):
    held = [
        collector.prepare(CaptureRequest(tmp_path, 1, device, collector.options({}))).exclusive
        for collector in (COLLECTOR, torch_profiler.COLLECTOR)
        for device in ("cuda", "cpu")
    ]
    assert held[0] & held[2] == {"cupti"}
    assert not held[1] & held[3]


def wrapped(tmp_path, nsys, argv, **env):
    """Run a command as a rank would be."""
    options = command.complete_options({})
    prefix = command.argv_prefix(nsys, tmp_path / "artifacts", (2024, 1), "cuda", options)
    environment = {**os.environ, "NSYS_SAID": str(tmp_path / "said"), **env}
    return subprocess.run([*prefix, *argv], env=environment, capture_output=True, check=False)


@pytest.mark.parametrize(("env", "rank"), [({"RANK": "3"}, 3), ({"SLURM_PROCID": "7"}, 7)])
def test_each_rank_writes_a_report_of_its_own(env, rank, tmp_path, monkeypatch):
    for name in ("RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    script = put_nsys(tmp_path, "2024.1", monkeypatch)
    done = wrapped(tmp_path, str(script), [sys.executable, "-c", "exit(5)"], **env)
    assert done.returncode == 5
    said = (tmp_path / "said").read_text()
    folder = tmp_path / "artifacts" / os.uname().nodename
    assert said.startswith(f"profile --output={folder}/rank-{rank:05d} --trace=cuda,nvtx,osrt ")
    assert folder.is_dir()


def test_a_node_without_nsys_runs_the_rank_as_it_is(tmp_path):
    done = wrapped(tmp_path, "no-such-nsys", ["sh", "-c", "echo alive; exit 4"], RANK="2")
    assert (done.returncode, done.stdout) == (4, b"alive\n")
    (left,) = tmp_path.rglob("*.missing")
    assert (left.name, left.read_bytes()[:21]) == ("rank-00002.missing", b"nsys is not found on ")
    assert COLLECTOR.recognise(left, left.read_bytes())


def test_a_node_whose_nsys_does_not_start_runs_the_rank_as_it_is(tmp_path):
    broken = tmp_path / "nsys"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    done = wrapped(tmp_path, str(broken), ["sh", "-c", "echo alive; exit 4"], RANK="2")
    assert (done.returncode, done.stdout) == (4, b"alive\n")
    (left,) = tmp_path.rglob("*.missing")
    assert COLLECTOR.recognise(left, left.read_bytes())


def test_the_plan_names_the_hook_and_the_window(tmp_path, monkeypatch):
    put_nsys(tmp_path, "2024.5.1.113", monkeypatch)
    request = CaptureRequest(tmp_path / "run", 2, "cuda", COLLECTOR.options({"first": 4}))
    plan = COLLECTOR.prepare(request)
    (spec,) = plan.rank_hooks
    module, _, attribute = spec.target.partition(":")
    assert (module, attribute) == (hook_module.__name__, NsysHook.__name__)
    assert NsysHook(**spec.options).name == "nsys"
    assert spec.options["first"] == 4
    assert plan.exclusive == {"cupti"}


# -- the hook ------------------------------------------------------------------------------------


class Written:
    """Keeps what was written instead of handing it to NVTX, which shows nothing without nsys."""

    def __init__(self):
        self.said = []

    def push(self, text):
        self.said.append(text.removeprefix("harness:"))

    def pop(self):
        self.said.append("pop")

    def mark(self, text):
        assert text.startswith("harness:clock boot=")
        self.said.append("mark")

    def open(self):
        self.said.append("open")

    def close(self):
        self.said.append("close")


def run_hook(monkeypatch, **options):
    written = Written()
    monkeypatch.setattr(hook_module, "find_nvtx", lambda device: written)
    hook = NsysHook(**options)
    hook.start(0, 1, Path("/nowhere"))
    told = []
    for step in range(5):
        key = UnitKey("decode" if step else "prefill", step=step)
        told.append(hook.before_unit(key))
        hook.after_unit(key)
    hook.stop()
    hook.stop()
    return written.said, told


def test_the_hook_opens_the_window_and_names_units(monkeypatch):
    said, told = run_hook(monkeypatch, first=2, count=2)
    unit, marks = "decode step={} warmup=0", ["mark"] * hook_module.CLOCK_MARKS
    assert said == [
        "prefill step=0 warmup=0", "pop", unit.format(1), "pop",
        "open", *marks, unit.format(2), "pop", unit.format(3), "pop",
        *marks, "close", unit.format(4), "pop",
    ]  # fmt: skip
    # The unit before the window waits for its opening, the one after it for its end.
    assert told == [None, "nsys", "nsys", "nsys", "nsys"]


def test_a_window_open_at_the_end_is_closed_once(monkeypatch):
    said, _ = run_hook(monkeypatch, first=4, count=9)
    assert (said.count("open"), said.count("close"), said[-1]) == (1, 1, "close")


def test_without_a_window_every_unit_is_disturbed(monkeypatch):
    said, told = run_hook(monkeypatch, window=False)
    assert told == ["nsys"] * 5
    assert (said[0], "open" in said) == ("mark", False)


def test_without_any_nvtx_the_hook_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtx", None)
    with pytest.raises(RuntimeError, match="the package nvtx is not installed"):
        hook_module.find_nvtx("cpu")
