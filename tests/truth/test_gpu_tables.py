"""The tables of `benchmarks/gpu/tables.py` from generated evidence of a GPU with known answers."""

from __future__ import annotations

import itertools

import pytest

from benchmarks.gpu import tables as gpu_tables
from benchmarks.gpu.injection import Case, _a_call, measure, named
from benchmarks.gpu.runs import Bench
from benchmarks.gpu.sections import _against_floors, _in_graph, _instrumentation, _pairs, _posted
from harness.progress import Narrator
from harness_analysis.build.database import build_database
from harness_collectors.reading.arrow import batch

STEP, US = 10_000_000, 1_000
TRANSFER, LATE = 10 * US, 250 * US
HAND_OVER = 3 * US
"""By so much time stamps may lie outside their kernel."""


def rows(table, listed):
    names = list(dict.fromkeys(name for row in listed for name in row))
    return batch(table, {name: [row.get(name) for row in listed] for name in names})


def unit(step, rank, perturbed_by=None):
    return {"rank": rank, "batch": 0, "microbatch": 0, "repeat": 0, "phase": "decode",
            "step": step, "warmup": False, "perturbed_by": perturbed_by}  # fmt: skip


def call(source, step, rank, start, end, **more):
    same = {"source": source, "timeline": "device", "comm_group": "[0,1]#0", "seq": step,
            "op": "all_reduce", "bytes": 6400, "group_size": 2,
            "enqueue_ns": step * STEP}  # fmt: skip
    times = {"start_ns": start, "end_ns": end, "duration_ns": end - start}
    return {**unit(step, rank, "torch_profiler"), **same, **times, **more}


def all_reduces(late_ns, timers="graph_events", off_ns=0, steps=30):
    """Kernels of both ranks, rank 1 late by `late_ns`; timers around them, `off_ns` longer."""
    found = []
    for step in range(1, steps + 1):
        end = step * STEP + STEP // 2
        for rank in (0, 1):
            start = end - TRANSFER - (late_ns if rank == 0 else 0)
            found.append(call("torch_profiler", step, rank, start, end))
            if timers == "app_timers":  # the pair begins with the call, before the kernel
                called = start - 40 * US
                more = {"return_ns": start + 5 * US, "enqueue_ns": called}
                found.append(call(timers, step, rank, called, end + off_ns, **more))
            else:
                low = end - start + 2 * off_ns - HAND_OVER
                found.append(call(timers, step, rank, start - off_ns, end + off_ns, low_ns=low))
    return rows("collectives", found)


def messages(late_ns, steps=30):
    """Rank 0 sends to rank 1 and receives its answer: it waits in both for the same delay."""
    found = []
    for step in range(1, steps + 1):
        end = step * STEP + STEP // 2
        for op, source, target in (("send", 0, 1), ("recv", 0, 1), ("recv", 1, 0), ("send", 1, 0)):
            rank = source if op == "send" else target
            start = end - TRANSFER - (late_ns if rank == 0 else 0)
            more = {"op": op, "src_rank": source, "dst_rank": target}
            found.append(call("torch_profiler", step, rank, start, end, **more))
    return rows("collectives", found)


def spans(name, source, category, length, steps=30, rank=1):
    found = [
        {**unit(step, rank, "torch_profiler"), "source": source, "timeline": "device",
         "category": category, "name": name, "span_id": step, "start_ns": step * STEP,
         "end_ns": step * STEP + length, "complete": True}
        for step in range(1, steps + 1)
    ]  # fmt: skip
    return rows("spans", found)


RANKS = rows("ranks", [{"rank": rank, "first_layer": 0, "last_layer": 25} for rank in (0, 1)])
FLOOR = rows("floors", [{"source": "floors", "op": "all_reduce", "implementation": "nccl",
                         "bytes": 6400, "group_size": 2, "p10_ns": 7_500, "p50_ns": 8_000,
                         "p90_ns": 8_500, "stamps_ns": 9_000}])  # fmt: skip


def database(folder, *batches):
    path = folder / "run.duckdb"
    build_database(path, "r", {"name": "r", "device": "cuda", "world_size": 2}, [RANKS, *batches])
    return path


def cells(markdown):
    """The table's lines as dictionaries of text; a column that comes again is told by number."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()
    ]
    heads, seen = [], {}
    for head in lines[0]:
        seen[head] = seen.get(head, 0) + 1
        heads.append(head if seen[head] == 1 else f"{head} {seen[head]}")
    return [dict(zip(heads, line, strict=True)) for line in lines[2:]]


def bench(tmp_path, tp=2, pp=1):
    return Bench(tmp_path, "cuda", tp, pp, 40, {"synthetic": "x"}, 1, Narrator(quiet=True))


def test_stamps_in_a_graph_are_compared_call_by_call(tmp_path):
    (row,) = cells(_in_graph(database(tmp_path, all_reduces(LATE, off_ns=500))))
    assert (row["calls"], row["kernel us"], row["stamps us"]) == ("60", "135.0", "136.0")
    assert row["inside the bounds"] == "100.00 %"
    # Both ends of both ranks move alike: the transfer is 1 us longer, the wait the same.
    assert row["transfer above the kernel's us p5 to p95"] == "1.0 to 1.0"
    assert (row["wait off us p50"], row["within 5 % or 2 us"]) == ("0.0", "100.00 %")


def test_stamps_far_off_are_said_to_be(tmp_path):
    (row,) = cells(_in_graph(database(tmp_path, all_reduces(LATE, off_ns=2_000))))
    assert row["transfer above the kernel's us p5 to p95"] == "4.0 to 4.0"
    assert row["inside the bounds"] == "0.00 %"


def test_kernels_lie_between_the_bounds_of_eager_event_pairs(tmp_path):
    (row,) = cells(_pairs("eager", database(tmp_path, all_reduces(LATE, "app_timers"))))
    assert (row["method"], row["inside the bounds"], row["worst outside us"]) == (
        "bounded",
        "100.00 %",
        "0.0",
    )
    assert row["transfer off us p50"] == "-"


def test_pairs_shorter_than_their_kernels_are_outside(tmp_path):
    wrong = all_reduces(LATE, "app_timers", off_ns=-60_000)
    (row,) = cells(_pairs("eager", database(tmp_path, wrong)))
    assert (row["inside the bounds"], row["worst outside us"]) == ("0.00 %", "20.0")


def test_a_posted_sends_kernel_lies_between_the_post_and_the_end_of_its_wait(tmp_path):
    """The stream waited 3 us for a message of 135 us; one in ten kernels ended later than that."""
    found = []
    for step in range(1, 31):
        end = step * STEP + STEP // 2
        more = {"op": "send", "src_rank": 0, "dst_rank": 1, "bytes": 6400}
        late = 7 * US if step % 10 == 0 else 0
        found.append(call("torch_profiler", step, 0, end - 135 * US, end + late, **more))
        posted = more | {"enqueue_ns": end - 140 * US, "unsplit_reason": "posted: beside"}
        found.append(call("app_timers", step, 0, end - 3 * US, end, **posted))
    (row,) = cells(_posted("eager", database(tmp_path, rows("collectives", found))))
    assert (row["op"], row["kernel us"], row["stream waited us"]) == ("send", "135.0", "3.0")
    assert (row["inside"], row["worst"]) == ("90.00 %", "7.0")


def test_transfers_stand_against_their_floor(tmp_path):
    by_source = cells(_against_floors(database(tmp_path, FLOOR, all_reduces(LATE))))
    assert {row["evidence"] for row in by_source} == {"torch_profiler", "graph_events"}
    floors = {"torch_profiler": ("10.0", "8.0", "2.0"), "graph_events": ("10.0", "9.0", "1.0")}
    for row in by_source:
        assert (row["transfer us"], row["floor us"], row["p50"]) == floors[row["evidence"]]
        assert row["within 15 % or 2 us"] == "100.00 %"


def test_a_device_delay_is_what_its_kernels_took_and_its_rank_is_named(tmp_path):
    case = Case("graph", "device", "layer", 50)
    spun = spans("at::cuda::spin_kernel(long)", "torch_profiler", "compute", 240 * US)
    path = database(tmp_path, all_reduces(LATE), spun)
    found = measure(bench(tmp_path), path, case)
    assert named(path) == "1"
    assert set(found) == {"torch_profiler", "graph_events"}
    for got in found.values():
        assert got.net_ns.tolist() == [LATE] * 30
        assert got.injected_ns == 240 * US
        assert (got.delayed, got.expected, got.right) == (30, 26 * 30, 1.0)
        assert [(call.place, call.net_ns) for call in got.calls] == [(1, LATE)] * 30


@pytest.mark.parametrize(("usual_ns", "told", "ok"), [
    (0, "250.0 [250.0, 250.0]", "no"), (9 * US, "241.0 [241.0, 241.0]", "yes"),
])  # fmt: skip
def test_what_a_call_waits_without_a_delay_is_not_returned_by_one(tmp_path, usual_ns, told, ok):
    """240 us of delaying kernels, 250 of waiting, some of which the place always waits."""
    case = Case("graph", "device", "layer", 50)
    spun = spans("at::cuda::spin_kernel(long)", "torch_profiler", "compute", 240 * US)
    got = measure(bench(tmp_path), database(tmp_path, all_reduces(LATE), spun), case)
    usual = measure(bench(tmp_path), database(tmp_path, all_reduces(usual_ns), spun), case)
    for source, found in got.items():
        assert _a_call(case, found, usual[source]) == ("240.0", told, ok)


def timed_units():
    """Ten later steps that only timers show: with those of a profiler's window too few to judge."""
    return rows("spans", [
        {**unit(step, rank), "source": "app_timers", "timeline": "device", "category": "unit",
         "name": "decode", "span_id": step, "start_ns": step * STEP, "end_ns": (step + 1) * STEP,
         "complete": True} for step in range(40, 50) for rank in (0, 1)
    ])  # fmt: skip


@pytest.mark.parametrize(("others", "stamped", "who"), [(1, False, "1"), (2, False, "nobody"),
                                                         (2, True, "1")])  # fmt: skip
def test_the_next_evidence_is_asked_where_steps_with_kernels_are_too_few(
    tmp_path, others, stamped, who
):
    """Of twelve steps with kernels one may show the other rank late; two leave it to the stamps."""
    both = all_reduces(LATE).data.to_pylist()
    calls = [
        row for row in both if row["source"] == "torch_profiler" and others < row["step"] <= 12
    ]
    for step in range(1, others + 1):
        end = step * STEP + STEP // 2
        calls += [call("torch_profiler", step, rank, end - TRANSFER - wait, end)
                  for rank, wait in ((0, 0), (1, 1_000 * US))]  # fmt: skip
    if stamped:
        calls += [row for row in both if row["source"] == "graph_events"]
    assert named(database(tmp_path, timed_units(), rows("collectives", calls))) == who


@pytest.mark.parametrize(("opening_ns", "late_ns", "who"), [
    (5_000 * US, 20 * US, "nobody"), (5_000 * US, 300 * US, "1"),
])  # fmt: skip
def test_one_unit_in_which_a_profiler_opened_late_names_nobody(tmp_path, opening_ns, late_ns, who):
    """20 us of every step of 10 ms are no culprit's, whatever one step makes of their sum."""
    calls = [
        row for row in all_reduces(late_ns).data.to_pylist()
        if row["source"] == "torch_profiler" and 1 < row["step"] <= 12
    ]  # fmt: skip
    end = STEP + STEP * 3 // 4
    calls += [call("torch_profiler", 1, rank, end - TRANSFER - wait, end)
              for rank, wait in ((0, opening_ns), (1, 0))]  # fmt: skip
    assert named(database(tmp_path, timed_units(), rows("collectives", calls))) == who


def test_a_host_delay_is_what_was_asked_for(tmp_path):
    case = Case("eager", "host", "step", 250)
    path = database(tmp_path, all_reduces(LATE))
    got = measure(bench(tmp_path), path, case)["torch_profiler"]
    assert (got.injected_ns, got.expected, got.right) == (LATE, 30, 1.0)


def test_without_a_delay_nobody_waits_and_nobody_is_named(tmp_path):
    path = database(tmp_path, all_reduces(0))
    got = measure(bench(tmp_path), path, Case("graph", "-", "-", 0))["torch_profiler"]
    assert set(got.net_ns.tolist()) == {0.0} and got.right is None
    assert named(path) == "nobody"


def test_a_pipelines_peer_waits_once_for_one_delay(tmp_path):
    path = database(tmp_path, messages(LATE))
    case = Case("eager", "host", "step", 250)
    got = measure(bench(tmp_path, tp=1, pp=2), path, case)["torch_profiler"]
    assert got.net_ns.tolist() == [LATE] * 30
    assert (got.delayed, got.right) == (30, 1.0)


def test_stamps_are_priced_by_instrumented_against_clean_steps(tmp_path):
    units = [
        {**unit(step, 0, None if step % 2 else "graph_events"), "source": "app_timers",
         "timeline": "device", "category": "unit", "name": "unit", "span_id": step,
         "start_ns": step * STEP, "end_ns": step * STEP + (STEP if step % 2 else STEP + 400 * US),
         "complete": True}
        for step in range(1, 21)
    ]  # fmt: skip
    for before, after in itertools.pairwise(units):  # windows tile
        after["start_ns"], after["end_ns"] = (
            before["end_ns"],
            before["end_ns"] + after["end_ns"] - after["start_ns"],
        )
    marks = [
        {**unit(step, 0, "graph_events"), "source": "graph_events", "timeline": "device",
         "category": "comm", "name": "all_reduce", "span_id": step * 100 + k,
         "start_ns": step * STEP + k, "end_ns": step * STEP + k + 1, "complete": True}
        for step in range(2, 21, 2) for k in range(50)
    ]  # fmt: skip
    (row,) = cells(_instrumentation(database(tmp_path, rows("spans", [*units, *marks]))))
    assert (row["clean us"], row["marked us"], row["stamps"]) == ("10000.0", "10400.0", "100")
    assert (row["us a stamp"], row["of a step"], row["at the default"]) == (
        "4.00",
        "4.00 %",
        "0.12 %",
    )


def test_a_section_that_fails_says_why_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    def fails(_):
        yield "so far"
        raise RuntimeError("no such device")

    sections = {"bad": fails, "good": lambda _: iter(["well"])}
    monkeypatch.setattr(gpu_tables, "SECTIONS", sections)
    worked = [gpu_tables.show(name, bench(tmp_path)) for name in sections]
    said = capsys.readouterr().out
    assert worked == [False, True]
    assert "so far" in said and "failed: RuntimeError: no such device" in said and "well" in said


@pytest.mark.integration
def test_the_sections_run_on_a_cpu(tmp_path, monkeypatch, capsys):
    only = "--only=floors,classified,timers,injection"
    argv = ["gpu_tables", "--device=cpu", "--layers=2", "--tokens=6", only, "--quiet"]
    argv += ["--cases=eager:host:step", "--delays=20000", f"--keep={tmp_path}"]
    monkeypatch.setattr("sys.argv", argv)
    assert gpu_tables.main() == 0
    said = capsys.readouterr().out
    assert "Skipped: kernels and graphs need a GPU." in said
    assert said.count("| eager | host | step | 20000 | app_timers |") == 1
    assert "| app_timers | start_anchored | all_reduce | 1024 |" in said
