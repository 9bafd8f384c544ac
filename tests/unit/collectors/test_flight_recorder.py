"""Flight Recorder: the documented example, pickles that only hold data, damage, capture."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import cuts, flipped
from nccl_tables import ingest
from support import ROOT, SAMPLES, needs_samples

from harness_analysis.verdict.suspects import suspects_from_dumps
from harness_collectors.flight_recorder import COLLECTOR, DumpHook
from harness_collectors.flight_recorder.file import Unreadable, read_dump
from harness_collectors.flight_recorder.rows import rank_of
from harness_schemas.spi import CaptureRequest

FIXTURES = ROOT / "tests" / "fixtures" / "flight_recorder"
PICKLED = (FIXTURES / "timeout_rank_0").read_bytes()
DUMP = pickle.loads(PICKLED)  # noqa: S301 - our own
patient = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read(folder, data, name="trace_rank_0"):
    path = folder / name
    path.write_bytes(data)
    return ingest([path], collector=COLLECTOR)


def dumped(**changes):
    return json.dumps({**DUMP, **changes}).encode()


@needs_samples
def test_the_documented_example():
    [path] = (SAMPLES / "logs" / "flight_recorder").glob("*.json")
    assert COLLECTOR.recognise(path, path.read_bytes())
    tables = ingest([path], collector=COLLECTOR)
    [row] = tables["collectives"]
    assert (row["op"], row["comm_group"], row["group_size"]) == ("all_reduce", "[0,1]#0", 2)
    assert (row["bytes"], row["dtype"], row["seq"]) == (48, "float32", 0)
    assert row["enqueue_ns"] == 1724779239936775119
    # The version at the end of its name is no rank; discovered times are polls, not times.
    assert row["rank"] is None
    assert not {"start_ns", "end_ns"} & set(row)
    assert tables["nccl_events"] == []
    assert tables["collection"][0]["state"] == "degraded"


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("nccl_trace_rank_12", 12),
        ("trace3.json", None),
        ("rank7", 7),
        ("fr_0.json.gz", 0),
        ("x_v2.5.json", None),
        ("dump_4.pkl", 4),
    ],
)
def test_ranks_stand_at_the_end_of_names(name, rank):
    assert rank_of(Path(name)) == rank


def test_pickle_and_json_say_the_same(tmp_path):
    one = read(tmp_path, PICKLED)
    for protocol in (2, 3, 4, 5):
        assert read(tmp_path, pickle.dumps(DUMP, protocol))["collectives"] == one["collectives"]
    assert read(tmp_path, dumped())["collectives"] == one["collectives"]
    status = {"0": {"last_completed_collective": "3"}}
    assert len(read(tmp_path, dumped(pg_status=status))["nccl_events"]) == 1


def test_what_is_pending_for_longer_than_its_time_out_is_a_problem(tmp_path):
    tables = read(tmp_path, PICKLED)
    hung = [row["seq"] for row in tables["collectives"] if row["unsplit_reason"] == "never ended"]
    assert hung == [2]
    events = tables["nccl_events"]
    found = {(row["severity"], row["text"]) for row in events}
    assert found == {
        ("problem", "all_reduce 2 of [0,1]#0 was started and not seen to end"),
        ("notice", "barrier 1 of [0,1]#1 was scheduled and not seen to end"),
    }
    assert json.loads(events[0]["attrs"])["called_from"] == "forward (model.py:12)"


def test_a_ring_that_lost_its_beginning_cannot_count_pairs(tmp_path):
    tables = read(tmp_path, dumped(entries=DUMP["entries"][1:]))
    assert {row["seq"] for row in tables["collectives"] if row["op"] == "send"} == {None}
    assert tables["collection"][0]["dropped"] == 1


def test_a_rank_that_is_in_no_group_is_unknown(tmp_path):
    tables = read(tmp_path, PICKLED, "trace_rank_9")
    assert {row["rank"] for row in tables["collectives"]} == {None}


class Evil:
    def __reduce__(self):
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", [Evil(), {1, 2}, Path("x"), bytearray(8)])
def test_pickles_that_do_more_than_hold_data_are_refused(value, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = {**DUMP, "entries": [*DUMP["entries"], value]}
    tables = read(tmp_path, pickle.dumps(content, protocol))
    [state] = tables["collection"]
    assert state["state"] == "failed"
    assert not (tmp_path / "pwned").exists()
    assert tables["collectives"] == []


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(S'touch pwned'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch pwned\x85R.",
        b"\x80\x02ccopyreg\n_reconstructor\n.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02(ios\nsystem\n.",
        b"\x80\x02Vx\nQ.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x02Nr\xff\xff\xff\xff.",
    ],
)
def test_hand_made_pickles_are_refused(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil_rank_0"
    path.write_bytes(code)
    with pytest.raises(Unreadable):
        read_dump(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b'{"entries": 3}',
        b"[" * 100_000,
        b"\x80\x02}.",
        b"\x1f\x8b\x08bad",
        b"null",
    ],
)
def test_what_is_no_dump_says_so(content, tmp_path):
    [state] = read(tmp_path, content)["collection"]
    assert state["state"] == "failed"
    assert state["reason"]


@pytest.mark.parametrize(
    "change",
    [
        {"time_created_ns": "soon"},
        {"time_created_ns": 1 << 80},
        {"collective_seq_id": -1},
        {"process_group": None},
        {"input_sizes": [["x"]]},
        {"input_sizes": [[1], [2]]},
        {"profiling_name": 'nccl:"; DROP TABLE runs'},
    ],
)
def test_entries_of_another_form_are_counted(change, tmp_path):
    broken = {**DUMP["entries"][0], **change}
    tables = read(tmp_path, dumped(entries=[broken, *DUMP["entries"], 7, None]))
    assert len(tables["collectives"]) == len(DUMP["entries"])
    assert tables["collection"][0]["unreadable"] == 3


def test_sizes_beyond_all_bounds_are_unknown(tmp_path):
    huge = {**DUMP["entries"][0], "input_sizes": [[1 << 40, 1 << 40]]}
    [row] = read(tmp_path, dumped(entries=[huge]))["collectives"]
    assert row["bytes"] is None


@patient
@given(data=st.data(), pickled=st.booleans())
def test_damaged_dumps(tmp_path, data, pickled):
    source = PICKLED if pickled else dumped()
    text = data.draw(st.one_of(cuts(source), flipped(source)))
    tables = read(tmp_path, text)
    assert len(tables["collectives"]) <= len(DUMP["entries"])
    assert len(tables["collection"]) == 1


@patient
@given(st.binary(max_size=200))
def test_any_pickle_bytes(tmp_path, tail):
    read(tmp_path, b"\x80\x02" + tail)


def test_secrets_of_frames_do_not_pass(tmp_path):
    frames = [{"name": "f", "filename": "https://user:hunter2hunter2@host/x.py", "line": 1}]
    entry = {**DUMP["entries"][4], "frames": frames}
    assert "hunter2" not in json.dumps(dict(read(tmp_path, dumped(entries=[entry]))))


def test_capture_sets_both_spellings(monkeypatch):
    for name in ("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE", "TORCH_FR_DUMP_TEMP_FILE"):
        monkeypatch.delenv(name, raising=False)
    options = COLLECTOR.options({"entries": 500})
    plan = COLLECTOR.prepare(CaptureRequest(Path("/run"), 2, "cuda", options))
    assert plan.env["TORCH_FR_BUFFER_SIZE"] == plan.env["TORCH_NCCL_TRACE_BUFFER_SIZE"] == "500"
    assert plan.env["TORCH_FR_DUMP_TEMP_FILE"] == "/run/artifacts/flight_recorder/timeout_rank_"
    assert "TORCH_NCCL_ENABLE_TIMING" not in plan.env
    assert [hook.target for hook in plan.rank_hooks] == [
        "harness_collectors.flight_recorder:DumpHook"
    ]
    with pytest.raises(ValueError, match="entries"):
        COLLECTOR.options({"entries": 0})


def test_the_hook_writes_once(tmp_path, monkeypatch):
    monkeypatch.setattr("harness_collectors.flight_recorder._take_dump", lambda: PICKLED)
    hook = DumpHook()
    hook.start(0, 2, tmp_path)
    hook.stop()
    [path] = tmp_path.iterdir()
    assert (path.name, rank_of(path)) == ("end_rank_0", 0)
    path.unlink()
    hook.stop()
    assert list(tmp_path.iterdir()) == []


# --- several ranks, and the first versions -----------------------------------------------------


def made(number, state="completed", **changes):
    """An entry of our own making: the `number`th all_reduce of the default group."""
    entry = {
        "record_id": number, "pg_id": 0, "process_group": ["0", "default_pg"], "is_p2p": False,
        "collective_seq_id": number + 1, "profiling_name": "nccl:all_reduce", "state": state,
        "time_created_ns": 1_700_000_000_000_000_000 + number, "timeout_ms": 600_000,
        "input_sizes": [[4]], "output_sizes": [[4]], "input_dtypes": ["Half"],
        "output_dtypes": ["Half"], "frames": [],
    }  # fmt: skip
    return {**entry, **changes}


def dumps(folder, entries, prefix="nccl_trace_rank_"):
    """One dump for each rank's entries; the tables that come of all."""
    ranks = str(sorted(entries))
    config = {"0": {"name": "0", "desc": "default_pg", "ranks": ranks}}
    paths = []
    for rank, listed in entries.items():
        path = folder / f"{prefix}{rank}"
        content = {"version": "2.5", "pg_config": config, "pg_status": {}, "entries": listed}
        path.write_bytes(pickle.dumps(content))
        paths.append(path)
    return ingest(sorted(paths), collector=COLLECTOR)


def problems(tables):
    return [
        (event["rank"], json.loads(event["attrs"])["not_entered_by"])
        for event in tables["nccl_events"]
        if event["severity"] == "problem"
    ]


def test_a_collective_that_a_rank_never_entered_is_a_problem_without_any_clock(tmp_path):
    waits, last = [made(0), made(1, "started"), made(2, "scheduled")], [made(0)]
    tables = dumps(tmp_path, {0: waits, 1: waits, 2: last})
    assert problems(tables) == [(0, [2]), (1, [2])]
    never = [
        (r["rank"], r["seq"]) for r in tables["collectives"] if r["unsplit_reason"] == "never ended"
    ]
    assert sorted(never) == [(0, 1), (1, 1)]
    assert len(tables["collectives"]) == 7


@pytest.mark.parametrize(
    "entries",
    [
        {0: [made(0, "started")], 1: [made(0, "started")]},  # all are there
        {0: [made(0), made(1)], 1: [made(0)]},  # nobody waits
        {0: [made(0, "started", profiling_name="nccl:recv 0<-1", is_p2p=True)], 1: []},
    ],
)
def test_nobody_is_missing(entries, tmp_path):
    assert problems(dumps(tmp_path, entries)) == []


GATHER = {"profiling_name": "nccl:all_gather"}
OTHERS = "; others called another"
LARGER = {"input_sizes": [[8]], "output_sizes": [[8]]}
SEND, RECV = (
    {"profiling_name": f"nccl:{name}", "is_p2p": True} for name in ("send 0->1", "recv 1<-0")
)


@pytest.mark.parametrize(
    ("calls", "words", "suspects"),
    [
        ([{}, {}, GATHER], [OTHERS, OTHERS, "; most ranks called all_reduce"], (2,)),
        ([{}, LARGER, {}], [OTHERS, "; most ranks called all_reduce of 8 bytes", OTHERS], (1,)),
        ([{}, GATHER], [OTHERS, OTHERS], ()),
    ],
)  # fmt: skip
def test_collectives_that_do_not_fit_together(calls, words, suspects, tmp_path):
    tables = dumps(tmp_path, {r: [made(0, "started", **call)] for r, call in enumerate(calls)})
    events = sorted(tables["nccl_events"], key=lambda event: event["rank"])
    assert {event["severity"] for event in events} == {"problem"}
    for event, said in zip(events, words, strict=True):
        assert said in event["text"]
    said_by = [(event["rank"], event["text"]) for event in events]
    assert suspects_from_dumps(said_by).ranks == suspects


@pytest.mark.parametrize(
    ("entries", "suspects"),
    [
        ({0: [made(0)], 1: [made(0), made(1, "started", **RECV)]}, (0,)),
        ({0: [made(0), made(1, "started", **SEND)], 1: [made(0)]}, (1,)),
        ({0: [made(0, "started", **SEND)], 1: [made(0, "started", **RECV)]}, ()),
        ({0: [made(7)], 1: [made(0, "started", **RECV)]}, (0,)),
        ({0: [made(7, **SEND)], 1: [made(0, "started", **RECV)]}, ()),  # the ring went round
    ],
)
def test_the_side_of_a_pair_that_never_came(entries, suspects, tmp_path):
    events = dumps(tmp_path, entries)["nccl_events"]
    assert suspects_from_dumps([(e["rank"], e["text"]) for e in events]).ranks == suspects
    assert [e["severity"] for e in events if e["severity"] == "problem"] == ["problem"] * len(
        suspects
    )


@pytest.mark.parametrize(
    ("others", "state", "pending"),
    [
        ([], "started", True),
        ([], "scheduled", True),
        ([{"profiling_name": "nccl:coalesced"}], "scheduled", False),  # torch never updates it
        ([{"profiling_name": "nccl:coalesced"}], "started", True),
    ],
)
def test_a_message_is_not_over_because_collectives_are(others, state, pending, tmp_path):
    done = {"0": {"last_completed_collective": 9}}
    entries = [made(0), *(made(1, **other) for other in others), made(2, state, **RECV)]
    events = read(tmp_path, dumped(entries=entries, pg_status=done))["nccl_events"]
    assert ["recv" in event["text"] for event in events] == ([True] if pending else [])


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("rank3/trace.json", 3),
        ("rank_12/nccl_trace", 12),
        ("rank1/dump_rank_2.json", 2),
        ("a/b", None),
    ],
)
def test_a_folder_can_name_the_rank(name, rank):
    assert rank_of(Path(name)) == rank


def test_a_rank_without_a_dump_and_dumps_at_the_end_say_nothing(tmp_path):
    one = tmp_path / "nccl_trace_rank_0"
    config = {"0": {"name": "0", "desc": "", "ranks": "[0, 1]"}}
    one.write_bytes(pickle.dumps({"pg_config": config, "entries": [made(0, "started")]}))
    assert problems(ingest([one], collector=COLLECTOR)) == []
    at_end = {0: [made(0), made(1, "started")], 1: [made(0)]}
    assert problems(dumps(tmp_path, at_end, "end_rank_")) == []


def test_the_first_versions(tmp_path):
    """Nothing but entries, without types, and `seq_id` for the ordinal."""
    names = ("collective_seq_id", "process_group", "input_dtypes", "output_dtypes", "is_p2p")
    old = [{**made(n), "seq_id": n + 1} for n in range(2)]
    old = [{key: value for key, value in entry.items() if key not in names} for entry in old]
    data = pickle.dumps(old, 2)
    assert COLLECTOR.recognise(tmp_path / "x", data)
    rows = read(tmp_path, data)["collectives"]
    assert [(row["seq"], row["op"], row.get("bytes")) for row in rows] == [
        (0, "all_reduce", None), (1, "all_reduce", None),
    ]  # fmt: skip


# --- several dumps of one rank -----------------------------------------------------------------


def write(folder, rank, listed, name="nccl_trace_rank_"):
    folder.mkdir(parents=True, exist_ok=True)
    config = {"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1]"}}
    path = folder / f"{name}{rank}"
    path.write_bytes(pickle.dumps({"version": "2.5", "pg_config": config, "entries": listed}))
    return path


def test_a_call_in_two_dumps_of_a_rank_is_one_call_and_over_where_one_says_so(tmp_path):
    hung = [made(0), made(1, "started"), made(2, "scheduled")]
    late = [made(0), made(1), made(2, "started"), made(3, "scheduled")]
    paths = [write(tmp_path, 0, hung, "timeout_rank_"), write(tmp_path, 0, late, "end_rank_")]
    tables = ingest(sorted(paths), collector=COLLECTOR)
    assert sorted(row["seq"] for row in tables["collectives"]) == [0, 1, 2, 3]
    pending = {json.loads(event["attrs"])["seq"]: event for event in tables["nccl_events"]}
    assert sorted(pending) == [2, 3]
    assert json.loads(pending[2]["attrs"])["state"] == "scheduled", "as the dump of the hang has it"


def test_dumps_of_an_earlier_attempt_are_named_and_blame_nobody(tmp_path):
    moment = 1_600_000_000_000_000_000
    early = [made(n, time_created_ns=moment + n) for n in range(9)]
    paths = [write(tmp_path / "attempt_0", rank, early) for rank in (0, 1)]
    paths += [write(tmp_path / "attempt_1", 0, [made(0), made(1, "started")])]
    paths += [write(tmp_path / "attempt_1", 1, [made(0)])]
    tables = ingest(sorted(paths), collector=COLLECTOR)
    assert problems(tables) == [(0, [1])]
    assert len(tables["collectives"]) == 3
    refused = [row["reason"] for row in tables["collection"] if row["state"] == "failed"]
    assert len(refused) == 2 and all("earlier attempt" in reason for reason in refused)


@pytest.mark.parametrize(
    ("title", "op"),
    [
        ("nccl:_all_gather_base", "all_gather"),
        ("nccl:ALLGATHER_coalesced", "all_gather"),
        ("nccl:reduce_scatter_tensor_coalesced", "reduce_scatter"),
        ("nccl:all_reduce_sparse", "all_reduce"),
        ("xccl:all_gather_into_tensor", "all_gather"),
        ("nccl:all_reduce_barrier", "barrier"),
        ("nccl:_reduce_oop", "reduce"),
        ("nccl:coalesced", "coalesced"),
    ],
)
def test_operations_in_every_spelling(title, op, tmp_path):
    (row,) = dumps(tmp_path, {0: [made(0, profiling_name=title)]})["collectives"]
    assert row["op"] == op
