"""torch_profiler: the hook on a CPU, its format torn and whole, kernels given to their units."""

from __future__ import annotations

import gzip
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness_collectors.torch_profiler import COLLECTOR, ProfilerHook
from harness_collectors.torch_profiler import capture as torch_capture
from harness_collectors.torch_profiler.capture import COLUMNS, activity_of, is_selected
from harness_collectors.torch_profiler.file import read_file
from harness_collectors.torch_profiler.rows import ingest_rank
from harness_schemas.spi import CaptureRequest, UnitKey

WALL, MONO = 1_790_000_000_000_000_000, 5_000_000_000


# -- the hook, with real torch -----------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Nine units on the CPU, the third and fourth recorded; (tables, marks, bounds)."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("run") / "artifacts" / "torch_profiler" / "node1"
    folder.mkdir(parents=True)
    hook = ProfilerHook(device="cpu", first=3, count=2)
    hook.start(0, 1, folder)
    x = torch.randn(64, 64)
    marks, bounds = {}, {}
    keys = [UnitKey("warmup"), *(UnitKey("decode", 0, 1, 0, step) for step in range(1, 9))]
    for key in keys:
        marks[key.step] = hook.before_unit(key)
        began = time.monotonic_ns()
        for _ in range(3):
            torch.nn.functional.linear(x, x).softmax(-1)
        bounds[key.step] = (began, time.monotonic_ns())
        hook.after_unit(key)
    hook.stop()
    hook.stop()
    return tables(folder / "rank-00000.jsonl.gz"), marks, bounds


def tables(path):
    found = {}
    for batch in ingest_rank(path):
        found.setdefault(batch.table, []).extend(batch.data.to_pylist())
    return found


def operators(found):
    return [span for span in found["spans"] if span.get("rule", "").startswith("host-")]


def test_operators_of_the_window_carry_their_unit_s_key(recorded):
    found, _, bounds = recorded
    assert {span["step"] for span in operators(found)} == {3, 4}
    for span in operators(found):
        assert (span["phase"], span["batch"], span["microbatch"]) == ("decode", 0, 1)
        began, ended = bounds[span["step"]]
        # The conversion of Kineto's clock is good to two microseconds.
        assert began - 5000 <= span["start_ns"] <= span["end_ns"] <= ended + 5000


def test_only_outermost_operators_become_spans(recorded):
    found, _, _ = recorded
    names = [span["name"] for span in operators(found) if span["step"] == 3]
    assert names == ["aten::linear", "aten::softmax"] * 3


def test_lead_window_and_trail_are_marked(recorded):
    _, marks, _ = recorded
    assert [step for step, mark in marks.items() if mark == "torch_profiler"] == [2, 3, 4, 5]


def test_opening_and_closing_are_spans_outside_the_recorded_units(recorded):
    found, _, bounds = recorded
    own = {span["name"]: span for span in found["spans"] if "torch_profiler." in span["name"]}
    assert own["torch_profiler.start"]["end_ns"] <= bounds[3][0]
    assert own["torch_profiler.stop"]["start_ns"] >= bounds[4][1]
    window = own["torch_profiler.window"]
    assert window["start_ns"] < bounds[3][0] and window["end_ns"] > bounds[4][1]


def test_the_cost_is_stated(recorded):
    found, _, _ = recorded
    (state,) = found["collection"]
    detail = json.loads(state["detail"])
    assert (state["state"], state["unreadable"], len(detail["prime_ns"])) == ("ok", 0, 1)
    (window,) = detail["windows"]
    assert window["units"] == 2
    assert all(window[name] > 0 for name in ("start_ns", "stop_ns", "write_ns"))


def test_a_run_without_a_unit_in_the_window_says_so(tmp_path):
    hook = ProfilerHook(device="cpu", first=100)
    hook.start(0, 1, tmp_path)
    assert hook.before_unit(UnitKey("decode", 0, 0, 0, 1)) is None
    hook.after_unit(UnitKey("decode", 0, 0, 0, 1))
    hook.stop()
    (state,) = tables(tmp_path / "rank-00000.jsonl.gz")["collection"]
    assert state["state"] == "skipped"
    assert state["reason"] == "no unit of the run lay in the chosen window"


def test_ranks_that_are_not_chosen_mark_the_same_units_and_write_nothing(tmp_path):
    folder = tmp_path / "artifacts" / "torch_profiler" / "node1"
    folder.mkdir(parents=True)
    hook = ProfilerHook(device="cpu", first=3, count=2, ranks="1")
    hook.start(0, 2, folder)
    keys = [UnitKey("decode", 0, 0, 0, step) for step in range(1, 9)]
    marks = []
    for key in keys:
        marks.append(hook.before_unit(key))
        hook.after_unit(key)
    hook.stop()
    assert [step for step, mark in enumerate(marks, 1) if mark] == [2, 3, 4, 5]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("ranks", "chosen"),
    [
        ("all", True),
        ("0,5", True),
        ("1", False),
        ("tp:1", True),
        ("tp:0", False),
        ("stage:2", True),
    ],
)
def test_which_ranks(tmp_path, ranks, chosen):
    spans = tmp_path / "spans"
    spans.mkdir()
    (spans / "rank-00005.meta.jsonl").write_text(
        '{"t":"start","rank":5}\n{"t":"fact","tp_rank":1,"stage":2}\n{"t":"fact","device":"cpu"}\n'
    )
    assert is_selected(ranks, 5, tmp_path / "artifacts" / "torch_profiler" / "node1") is chosen


def test_a_rank_without_facts_is_not_chosen_by_them(tmp_path):
    assert not is_selected("tp:0", 0, tmp_path / "a" / "b" / "c")


# -- names of torch before 2.13 ----------------------------------------------------------------


class Event:
    """A Kineto event of a torch that does not tell the activity."""

    def __init__(self, on_device, annotated=False):
        self._on_device, self._annotated = on_device, annotated

    def is_user_annotation(self):
        return self._annotated

    def device_type(self):
        import torch

        kinds = torch.autograd.DeviceType
        return kinds.CUDA if self._on_device else kinds.CPU


@pytest.mark.parametrize(
    ("event", "name", "activity"),
    [
        (Event(True), "nvjet_sm90", "kernel"),
        (Event(True), "Memcpy HtoD (Pinned -> Device)", "gpu_memcpy"),
        (Event(True), "Memset (Device)", "gpu_memset"),
        (Event(True), "Stream Wait Event", "cuda_sync"),
        (Event(True, True), "decode", "gpu_user_annotation"),
        (Event(False, True), "decode", "user_annotation"),
        (Event(False), "cudaGraphLaunch", "cuda_runtime"),
        (Event(False), "cuLaunchKernelEx", "cuda_runtime"),
        (Event(False), "hipLaunchKernel", "cuda_runtime"),
        (Event(False), "Activity Buffer Request", "overhead"),
        (Event(False), "aten::mm", "cpu_op"),
        (Event(False), "custom_op", "cpu_op"),
    ],
)
def test_activity_from_the_name(event, name, activity):
    pytest.importorskip("torch")
    assert activity_of(event, name) == activity


# -- kernels, from a file made by hand -----------------------------------------------------------

NAMES = [
    "kernel", "cuda_runtime", "overhead", "gpu_memcpy", "cpu_op", "cudaLaunchKernel",
    "cudaGraphLaunch", "gemm_x", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)",
    "Memcpy DtoH (Device -> Pinned)", "Activity Buffer Request", "aten::mm", "fill_kernel",
]  # fmt: skip
ID = {name: place for place, name in enumerate(NAMES)}


def event(act, name, start_us, dur_us, corr=0, device=0, stream=7):
    """Microseconds after the window was opened."""
    start = WALL + start_us * 1000 - 0
    return (ID[act], ID[name], start, dur_us * 1000, device, stream, corr, 0)


def write(path, events, units, drift_ns=0, head=None, **header):
    """A file of one window: opened at 0, started at 100 us, stopping at 900, stopped at 1000."""
    columns = [list(column) for column in zip(*events, strict=True)] or [[] for _ in COLUMNS]
    end = 1_000_000
    lines = [
        {
            "t": "header", "format": "harness-torch-profiler", "version": 1, "rank": 3,
            "world_size": 4, "host": "node1", "pid": 77, "boot_id": "b", "torch": "2.11.0",
            "cuda": "13.0", "device": "cuda", "host_ops": False, "detached": True, "options": {},
            **header,
        },
        {
            "t": "window", "id": 1, "events": len(events), "dropped": 0, "clock": "unix",
            "opened_ns": MONO, "started_ns": MONO + 100_000, "stopping_ns": MONO + 900_000,
            "stopped_ns": MONO + end,
            "anchors": [[MONO, WALL, 100], [MONO + end, WALL + end + drift_ns, 100]],
            **(head or {}),
        },
    ]  # fmt: skip
    for step, (begin, stop) in units.items():
        key = {"phase": "decode", "batch": 0, "microbatch": 0, "repeat": 0, "warmup": False}
        times = {"start_ns": MONO + begin * 1000, "end_ns": MONO + stop * 1000}
        lines.append({"t": "unit", "window": 1, **key, "step": step, **times})
    lines.append({"t": "names", "first": 0, "names": NAMES})
    if events:
        base = min(columns[2])
        columns[2] = [start - base for start in columns[2]]
        named = dict(zip(COLUMNS, columns, strict=True))
        lines.append({"t": "events", "window": 1, "base_ns": base, **named})
    lines.append({"t": "written", "window": 1, "at_ns": MONO + 1_200_000})
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()))
    return path


UNITS = {1: (200, 300), 2: (400, 500)}
EVENTS = [
    event("overhead", "Activity Buffer Request", 20, 50, device=-1),
    event("cuda_runtime", "cudaLaunchKernel", 80, 5, corr=1, device=77),
    event("kernel", "fill_kernel", 90, 3, corr=1),
    event("cuda_runtime", "cudaLaunchKernel", 210, 5, corr=2, device=77),
    event("kernel", "gemm_x", 310, 150, corr=2),  # runs after its unit, and into the next
    event("cuda_runtime", "cudaGraphLaunch", 410, 5, corr=3, device=77),
    event("kernel", "gemm_x", 470, 10, corr=3),
    event("kernel", "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(x)", 480, 20, corr=3, stream=13),
    event("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 505, 4, corr=9),  # launched elsewhere
]


def device_rows(found):
    return [span for span in found["spans"] if span["timeline"] == "device"]


def test_the_launch_decides_the_unit(tmp_path):
    found = tables(write(tmp_path / "r.gz", EVENTS, UNITS))
    steps = [(span["name"][:6], span["step"]) for span in device_rows(found)]
    assert steps == [
        ("fill_k", None), ("gemm_x", 1), ("gemm_x", 2), ("ncclDe", 2), ("Memcpy", None)
    ]  # fmt: skip


def test_times_are_moved_to_the_monotonic_clock(tmp_path):
    found = tables(write(tmp_path / "r.gz", EVENTS, UNITS))
    gemm = device_rows(found)[1]
    assert (gemm["start_ns"], gemm["end_ns"]) == (MONO + 310_000, MONO + 460_000)
    assert gemm["launch_ns"] == MONO + 210_000
    assert gemm["raw_start_ns"] == WALL + 310_000


def test_a_wall_clock_that_is_slewed_is_followed(tmp_path):
    """The wall clock gains 10 us in the window of 1 ms: half of it at the middle."""
    found = tables(write(tmp_path / "r.gz", EVENTS, UNITS, drift_ns=10_000))
    start = device_rows(found)[1]["start_ns"] - MONO
    assert start == pytest.approx(310_000 * 1_000_000 / 1_010_000, abs=2)


def test_what_the_hook_launched_is_the_profiler_s_own(tmp_path):
    found = tables(write(tmp_path / "r.gz", EVENTS, UNITS))
    own = [span for span in found["spans"] if span.get("rule") == "profiler-own"]
    assert {span["name"] for span in own} == {
        "Activity Buffer Request", "cudaLaunchKernel", "fill_kernel"
    }  # fmt: skip
    assert {span["category"] for span in own} == {"overhead"}


def test_communication_kernels_are_collectives_too(tmp_path):
    found = tables(write(tmp_path / "r.gz", EVENTS, UNITS))
    (row,) = found["collectives"]
    assert (row["op"], row["algo"], row["proto"], row["dtype"]) == (
        "all_reduce", "RING", "LL", "bfloat16"
    )  # fmt: skip
    assert (row["step"], row["duration_ns"], row["enqueue_ns"]) == (2, 20_000, MONO + 410_000)
    (span,) = [each for each in found["spans"] if each["span_id"] == row["span_id"]]
    assert span["name"] == row["kernel"]


def test_graph_launches_are_noted(tmp_path):
    found = tables(write(tmp_path / "r.gz", EVENTS, UNITS))
    noted = [span["step"] for span in device_rows(found) if span["attrs"]]
    assert noted == [2, 2]


def test_span_ids_are_unique_over_windows(tmp_path):
    path = write(tmp_path / "r.gz", EVENTS, UNITS)
    text = gzip.decompress(path.read_bytes()).decode()
    again = text.replace('"window":1', '"window":2').replace('"id":1', '"id":2').splitlines()
    again = [line for line in again[1:] if '"t":"names"' not in line]
    path.write_bytes(path.read_bytes() + gzip.compress("\n".join(again).encode()))
    found = tables(path)
    ids = [span["span_id"] for span in found["spans"]]
    assert len(ids) == len(set(ids)) == 2 * (len(EVENTS) + 3)


def test_no_kernels_on_a_gpu_is_said(tmp_path):
    (state,) = tables(write(tmp_path / "r.gz", EVENTS[:2], UNITS))["collection"]
    assert state["state"] == "degraded"
    assert "no kernels recorded" in state["reason"]


def test_operators_on_a_gpu_only_launch(tmp_path):
    events = [event("cpu_op", "aten::mm", 210, 20, device=77, stream=77)]
    for device, category in (("cuda", "other"), ("cpu", "compute")):
        found = tables(write(tmp_path / "r.gz", events, UNITS, device=device))
        (span,) = operators(found)
        assert (span["category"], span["stream"], span["step"]) == (category, 0, 1)


def test_unknown_kernels_have_their_share_stated(tmp_path):
    events = [*EVENTS[3:5], event("kernel", "fill_kernel", 480, 50, corr=2)]
    path = write(tmp_path / "r.gz", events, UNITS)
    text = gzip.decompress(path.read_bytes()).decode().replace("fill_kernel", "qqq")
    path.write_bytes(gzip.compress(text.encode()))
    (state,) = tables(path)["collection"]
    assert json.loads(state["detail"])["unclassified_kernel_share"] == pytest.approx(50 / 200)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_cut_file_gives_what_it_still_holds(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("cut") / "r.gz", EVENTS, UNITS)
    text = gzip.decompress(path.read_bytes())
    cut = data.draw(st.integers(0, len(text)))
    path.write_bytes(gzip.compress(text[:cut]))
    (state,) = tables(path)["collection"]
    ends = [place for place, byte in enumerate(text) if byte == ord("\n")]
    whole = sum(end <= cut for end in ends)  # header, window, two units, names, events, written
    assert state["records"] == (len(EVENTS) if whole >= 6 else 0)
    wanted = ["failed", "skipped", *["failed"] * 4, "ok", "ok"][whole]
    torn = whole < len(ends) and cut not in (0, *ends, *(end + 1 for end in ends))
    assert state["state"] == (
        {"ok": "degraded", "skipped": "failed"}.get(wanted, wanted) if torn else wanted
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["unit", "events"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from([*COLUMNS, "t", "id", "window", "names", "first", "base_ns"]), inner
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_lines_with_anything_in_them_never_raise(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("odd") / "r.gz", EVENTS, UNITS)
    lines = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for _ in range(data.draw(st.integers(1, 3))):
        line = data.draw(st.sampled_from(lines))
        line[data.draw(st.sampled_from(sorted(line)))] = data.draw(values)
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in lines).encode()))
    assert len(tables(path)["collection"]) == 1


def test_a_line_too_long_ends_the_reading(tmp_path, monkeypatch):
    monkeypatch.setattr("harness_collectors.torch_profiler.file.MAX_LINE_BYTES", 2000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b'{"t":"names","names":[' + b" " * 10_000_000))
    assert read_file(path).torn


def test_events_are_written_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_capture, "CHUNK_EVENTS", 4)
    rows = [(0, 0, WALL + i, 1, 0, 7, i, 0) for i in range(10)]
    pieces = list(torch_capture._chunks(rows, 1))
    assert [len(piece["act"]) for piece in pieces] == [4, 4, 2]
    starts = [s + piece["base_ns"] for piece in pieces for s in piece["start"]]
    assert starts == [WALL + i for i in range(10)]


# -- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_options", "says"),
    [
        ({"first": 0}, "first must be a whole number from 1 on"),
        ({"count": True}, "count must be"),
        ({"every": 3, "count": 3}, "every must be larger than count"),
        ({"steps": [1, -1]}, "steps must be a list of step numbers"),
        ({"steps": [1], "first": 2}, "give either steps or first"),
        ({"ranks": "dp:0"}, "ranks: 'dp:0' is not"),
        ({"host": "yes"}, "host must be true or false"),
        ({"schedule": 1}, "no option 'schedule'"),
    ],
)
def test_options_that_are_refused(given_options, says):
    with pytest.raises(ValueError, match=says):
        COLLECTOR.options(given_options)


def test_options_make_a_hook(tmp_path):
    options = COLLECTOR.options({"every": 50, "ranks": 0})
    for device, exclusive in (("cpu", set()), ("cuda", {"cupti"})):
        plan = COLLECTOR.prepare(CaptureRequest(tmp_path, 2, device, options))
        assert plan.exclusive == exclusive
        (spec,) = plan.rank_hooks
        assert spec.target == "harness_collectors.torch_profiler:ProfilerHook"
        ProfilerHook(**json.loads(json.dumps(spec.options)))


def test_another_profiler_is_noticed(monkeypatch):
    monkeypatch.setenv("CUDA_INJECTION64_PATH", "/opt/nsys/libToolsInjection64.so")
    assert "another profiler" in COLLECTOR.check("cuda").reason
    assert COLLECTOR.check("cpu").available
