"""What is exported: our own reader finds the same in it, and its shape is the formats' own."""

from __future__ import annotations

import csv
import gzip
import http.server
import json
import threading
from collections import defaultdict

import duckdb
import pyarrow.parquet as pq
import pytest
from example_run import LATE, example_database
from support import ROOT
from truth.simulate_devices import DeviceRun, Devices, make_batch

import harness
from harness.cli.main import invoke
from harness.ingest import ingest_paths
from harness_analysis.build.database import build_database
from harness_analysis.export import Selection, send_otlp, write_chrome, write_otlp, write_tables
from harness_analysis.store import open_database
from harness_schemas.errors import HarnessError, UsageError

FIXTURE = ROOT / "tests" / "fixtures" / "kineto" / "rank0.json"
KERNELS = """
    SELECT name, category, stream, device, start_ns - min(start_ns) OVER (), end_ns - start_ns,
      correlation, phase, step FROM spans WHERE timeline = 'device' ORDER BY start_ns, span_id"""
COLLECTIVES = """
    SELECT comm_group, seq, op, src_rank, dst_rank, bytes, dtype, group_size, duration_ns, phase,
      step FROM collectives ORDER BY start_ns, comm_group, seq"""
UNITS = """
    SELECT phase, batch, microbatch, step, end_ns - start_ns FROM spans WHERE category = 'unit'
    ORDER BY start_ns"""
BREAKDOWN = """
    SELECT phase, step, window_ns, compute_ns, comm_unsplit_ns, comm_transfer_ns, comm_wait_ns,
      memcpy_ns, idle_ns FROM step_breakdown ORDER BY start_ns"""


def ask(database, sql):
    with open_database(database) as con:
        return con.execute(sql).fetchall()


def exported(database, path, selection=None):
    with open_database(database) as con:
        write_chrome(con, path, selection)
    return json.loads(
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_text()
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    return example_database(tmp_path_factory.mktemp("export"), LATE)


# -- Chrome ----------------------------------------------------------------------------------


def test_our_own_reader_finds_the_same_in_it(tmp_path):
    first = tmp_path / "first.duckdb"
    ingest_paths([FIXTURE], first, 1)
    folder = tmp_path / "again"
    folder.mkdir()
    exported(first, folder / "rank0.json.gz")
    again = tmp_path / "again.duckdb"
    ingest_paths([folder], again, 1)
    for sql in (UNITS, KERNELS, COLLECTIVES, BREAKDOWN):
        wanted = ask(first, sql)
        assert wanted
        assert ask(again, sql) == wanted


def test_its_shape_is_that_of_trace_events(example, tmp_path):
    trace = exported(example, tmp_path / "trace.json")
    events = trace["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "X", "s", "f"}
    slices = defaultdict(list)
    for event in events:
        assert type(event["pid"]) is int and type(event["tid"]) is int and event["pid"] > 0
        if event["ph"] == "X":
            assert event["name"] and event["ts"] >= 0 and event["dur"] >= 0
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for track in slices.values():  # slices of a track nest or stand apart, or viewers drop them
        ends = []
        for start, end in sorted(track, key=lambda s: (s[0], -s[1])):
            while ends and ends[-1] <= start + 0.0005:
                ends.pop()
            assert not ends or end <= ends[-1] + 0.0005
            ends.append(end)
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names[4] == "rank 3 (node0, stage 1, tp 1)" and len(names) == 4
    tids = {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"}
    assert tids == {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert any(
        e["name"] == "harness:decode batch=0 microbatch=0 repeat=0 step=7 warmup=0" for e in events
    )


def test_arrows_join_the_parts_of_every_matched_call(example, tmp_path):
    events = exported(example, tmp_path / "trace.json")["traceEvents"]
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in "stf":
            flows[event["id"]].append(event)
    ((collectives, messages),) = ask(
        example,
        "SELECT count(DISTINCT (comm_group, seq)) FILTER (op NOT IN ('send', 'recv')), "
        "count(*) FILTER (op = 'recv') FROM collectives",
    )
    kinds = [chain[0]["cat"] for chain in flows.values()]
    assert (kinds.count("collective"), kinds.count("p2p")) == (collectives, messages)
    held = {(e["pid"], e["tid"]): [] for e in events if e["ph"] == "X"}
    for e in events:
        if e["ph"] == "X":
            held[e["pid"], e["tid"]].append((e["ts"], e["ts"] + e["dur"]))
    for chain in flows.values():
        assert [e["ph"] for e in chain] == ["s", *"t" * (len(chain) - 2), "f"]
        times = [e["ts"] for e in chain]
        assert times == sorted(times)
        for e in chain[:1] + chain[-1:]:  # an arrow ends in a slice, or it is not drawn
            assert any(a <= e["ts"] <= b for a, b in held[e["pid"], e["tid"]])


def test_times_are_aligned_over_ranks(tmp_path):
    scenario = Devices(offsets_ns=(0, 50_000_000, -50_000_000, 7))
    database = DeviceRun(scenario).run().build(tmp_path / "run.duckdb")
    events = exported(database, tmp_path / "trace.json")["traceEvents"]
    ends = defaultdict(dict)
    for e in events:
        args = e.get("args", {})
        if e.get("cat") == "kernel" and args.get("Collective name") == "all_reduce":
            ends[args["Process Group Name"], args["Seq"]][e["pid"]] = e["ts"] + e["dur"]
    assert ends
    assert all(max(one.values()) - min(one.values()) < 0.01 for one in ends.values())


def test_a_part_can_be_chosen(example, tmp_path):
    trace = exported(example, tmp_path / "part.json", Selection((1, 3), (5, 6)))
    spans = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert {event["pid"] for event in spans} == {2, 4}
    assert {event["args"]["step"] for event in spans} == {5, 6}


def test_any_name_survives(tmp_path):
    names = ['"</script>\\', "a\nb\t\x01", "\u00fc \u2603 {}'"]
    at = {"rank": 0, "source": "otel", "timeline": "host"}
    times = {"start_ns": 1_800_000_000_000_000_001, "end_ns": 1_800_000_000_000_000_003}
    rows = [{**at, **times, "span_id": k, "name": name, "step": k} for k, name in enumerate(names)]
    path = tmp_path / "run.duckdb"
    build_database(path, "r", {"name": "x"}, [make_batch("spans", rows)])
    events = exported(path, tmp_path / "t.json")["traceEvents"]
    found = [(e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert sorted(found) == sorted((name, 0, 0.002) for name in names)


# -- OTLP ------------------------------------------------------------------------------------


def otlp_spans(lines):
    for line in lines:
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                yield from scope["spans"]


def attributes(span):
    return {pair["key"]: next(iter(pair["value"].values())) for pair in span["attributes"]}


def test_otlp_requests_speak_genai(example, tmp_path):
    path = tmp_path / "spans.jsonl"
    with open_database(example) as con:
        count = write_otlp(con, path)
    spans = list(otlp_spans(path.read_text().splitlines()))
    assert len(spans) == count == len({span["spanId"] for span in spans})
    assert len({span["traceId"] for span in spans}) == 1
    root = spans[0]
    assert "parentSpanId" not in root
    assert {span["parentSpanId"] for span in spans[1:]} == {root["spanId"]}
    found = [attributes(s) for s in spans if "gen_ai.operation.name" in attributes(s)]
    wanted = ask(example, "SELECT request_id, prompt_tokens, output_tokens, ttft_ns FROM requests")
    got = {
        (
            each["gen_ai.response.id"],
            int(each["gen_ai.usage.input_tokens"]),
            int(each["gen_ai.usage.output_tokens"]),
            round(each["gen_ai.response.time_to_first_chunk"] * 1e9),
        )
        for each in found
    }
    assert got == set(wanted)
    assert {each["gen_ai.request.model"] for each in found} == {"tiny-llama"}
    units = [attributes(s) for s in spans if s["name"] == "decode"]
    ((waits, number),) = ask(
        example,
        "SELECT sum(comm_wait_ns)::BIGINT, count(*) FROM step_breakdown WHERE phase = 'decode'",
    )
    assert (sum(int(u["harness.comm_wait_ns"]) for u in units), len(units)) == (waits, number)


def test_attribute_names_are_those_of_the_conventions(example):
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

    from harness_analysis.export import otlp

    known = {value for value in vars(gen_ai_attributes).values() if isinstance(value, str)}
    with open_database(example) as con:
        names = {
            key
            for body, _ in otlp.export_requests(con)
            for span in otlp_spans([body])
            for key in attributes(span)
        }
    assert {name for name in names if name.startswith("gen_ai.")} <= known


class Receiver(http.server.BaseHTTPRequestHandler):
    """Keeps what is posted."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.got.append((self.path, self.headers["X-Key"], body))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_otlp_is_sent_over_http(example, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b")
    with (
        http.server.HTTPServer(("127.0.0.1", 0), Receiver) as server,
        open_database(example) as con,
    ):
        server.got, server.answer = [], 200
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        count = send_otlp(con, address)
        assert {(path, key) for path, key, _ in server.got} == {("/v1/traces", "a b")}
        assert len(list(otlp_spans(body for *_, body in server.got))) == count
        server.answer = 503
        with pytest.raises(HarnessError, match="503"):
            send_otlp(con, address)
        server.shutdown()
        with pytest.raises(UsageError):
            send_otlp(con, "ftp://nowhere")


# -- tables and notebooks --------------------------------------------------------------------


def test_tables_come_back_as_they_were(example, tmp_path):
    with open_database(example) as con:
        made = write_tables(con, tmp_path / "tables", "parquet")
        write_tables(con, tmp_path / "csv", "csv", ["stragglers"])
        assert write_tables(con, tmp_path / "s.csv", "csv", ["stragglers"]) == [tmp_path / "s.csv"]
        assert len(made) > 10
        for path in made:
            counted = "SELECT count(*), hash(list(t ORDER BY t)) FROM {} t"
            found = duckdb.sql(counted.format(f"'{path}'")).fetchall()
            table = con.sql(counted.format(path.stem)).fetchall()
            assert found == table, path.stem
        with pytest.raises(UsageError, match="nonsense"):
            write_tables(con, tmp_path, "csv", ["nonsense"])
    assert pq.read_table(tmp_path / "tables" / "spans.parquet").num_rows
    with (tmp_path / "csv" / "stragglers.csv").open() as file:
        ranks = [int(row["rank"]) for row in csv.DictReader(file)]
    assert sorted(ranks) == sorted(r for (r,) in ask(example, "SELECT rank FROM stragglers"))


def test_notebooks_ask_in_sql(example):
    with harness.open_run(example) as run:
        found = run.sql("SELECT rank, stage FROM ranks WHERE rank >= ? ORDER BY rank", [2])
        assert list(found) == [(2, 1), (3, 1)] and len(found) == 2
        assert found.rows()[0] == {"rank": 2, "stage": 1}
        assert found.arrow().column_names == ["rank", "stage"]
        assert "rank" in repr(found) and "<pre>" in found._repr_html_()
        assert list(run.sql("SELECT 1; SELECT 2, 3")) == [(2, 3)]
        assert list(run.sql("SET threads = 1")) == []
        with pytest.raises(UsageError):
            run.sql("SELECT nonsense")


def test_the_verb_says_what_it_made(example, tmp_path, capsys):
    assert (
        invoke(["export", str(example), "--format", "chrome", "-o", str(tmp_path / "t.json.gz")])
        == 0
    )
    assert capsys.readouterr().out == f"{tmp_path / 't.json.gz'}\n"
    assert invoke(["export", str(example), "--format", "chrome"]) == 2
    assert invoke(["export", str(example), "--format", "chrome", "-o", "x", "--steps", "a"]) == 2
    nowhere = str(tmp_path / "no" / "t.json")
    assert invoke(["export", str(example), "--format", "otlp", "-o", nowhere]) == 125


def test_the_whole_answer_is_printed_as_data(example, capsys):
    """A table each, all values: the counterpart of the text, for spreadsheets and pull requests."""
    assert invoke(["report", str(example), "--markdown"]) == 0
    text = capsys.readouterr().out
    titles = [line[4:] for line in text.splitlines() if line.startswith("### ")]
    assert titles[:3] == ["What ran", "What stands out", "Speed"] and "Clocks" in titles
    assert invoke(["report", str(example), "--csv"]) == 0
    tables = [list(csv.DictReader(part.splitlines())) for part in
              capsys.readouterr().out.split("\n\n")]  # fmt: skip
    (breakdown,) = [rows for rows in tables if rows and "comm_wait_ns" in rows[0]]
    found = {(int(row["rank"]), row["phase"]): int(row["comm_wait_ns"]) for row in breakdown}
    wanted = ask(example, "SELECT rank, phase, comm_wait_ns FROM rank_breakdown")
    assert found == {(rank, phase): waits for rank, phase, waits in wanted}
