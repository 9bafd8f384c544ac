"""What every registered collector keeps: docs/adding-a-collector.md says it in prose.

A collector's fixture folder is `tests/fixtures/<name>/`: evidence, and `expected.json` with

    evidence   the files that ingest is given, relative to the folder
    rows       rows by table
    states     states in `collection`, in order
    contains   optional: {table, where: {column: value}, count} that must hold
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.ingest import read_head
from harness.registry import all_collectors, collector_names, load_collector
from harness_schemas.spi import Availability, Batch, CaptureRequest, Collector, IngestContext
from harness_schemas.tables import BY_NAME, arrow_schema
from harness_schemas.vocabulary import COLLECTION_STATES

FIXTURES = Path(__file__).parents[1] / "fixtures"
FIXTURED = [name for name in collector_names() if (FIXTURES / name / "expected.json").exists()]
HEAVY = ("torch", "duckdb", "pyarrow", "pynvml", "pandas", "deepspeed", "transformers")

every = pytest.mark.parametrize("name", collector_names())
fixtured = pytest.mark.parametrize("name", FIXTURED)
patient = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def expected(name):
    return json.loads((FIXTURES / name / "expected.json").read_text())


def copy_of(name, tmp_path_factory):
    """The collector's evidence in a folder of its own, without the answers."""
    folder = tmp_path_factory.mktemp(name)
    shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)
    (folder / "expected.json").unlink()
    return folder


def ingest(name, folder):
    files = [folder / relative for relative in expected(name)["evidence"]]
    batches = list(load_collector(name).ingest(files, IngestContext(folder)))
    assert all(isinstance(batch, Batch) for batch in batches)
    return batches


def tables(batches):
    found = {}
    for batch in batches:
        found.setdefault(batch.table, []).extend(batch.data.to_pylist())
    return found


def test_importing_collectors_costs_nothing():
    """Neither torch nor the engines are paid for by those who do not use them."""
    code = (
        "import sys, json; from harness.registry import all_collectors; all_collectors();"
        f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    ).stdout
    assert json.loads(output) == []


@every
def test_it_is_a_collector(name):
    collector = load_collector(name)
    assert isinstance(collector, Collector)
    assert collector.name == name
    assert collector.title and collector.sources


@every
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_check_only_looks(name, device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    started = time.monotonic()
    answer = load_collector(name).check(device)
    assert time.monotonic() - started < 30  # it returns; how soon is the machine's affair
    assert isinstance(answer, Availability)
    assert answer.available or answer.reason
    json.dumps(dict(answer.facts))
    assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []


@every
def test_prepare_is_pure_and_printable(name, tmp_path):
    collector = load_collector(name)
    options = collector.options({})
    frozen = json.dumps(options, sort_keys=True)
    request = CaptureRequest(tmp_path / "run", 2, "cpu", options)
    plan = collector.prepare(request)
    assert plan == collector.prepare(request)
    json.dumps({**asdict(plan), "exclusive": sorted(plan.exclusive)})
    assert json.dumps(options, sort_keys=True) == frozen
    assert list(tmp_path.iterdir()) == []


@every
def test_unknown_options_are_refused_by_name(name):
    with pytest.raises(ValueError, match="no_such_option"):
        load_collector(name).options({"no_such_option": 1})


@every
@patient
@given(head=st.binary(max_size=300), file=st.sampled_from(["a", "x.jsonl", "s.json.gz", "q.txt"]))
def test_recognise_never_raises(name, head, file):
    assert load_collector(name).recognise(Path("/nowhere") / file, head) in (True, False)


def test_every_collector_has_a_fixture():
    assert collector_names() == FIXTURED


@fixtured
def test_fixture_comes_back_as_expected(name, tmp_path_factory):
    folder = copy_of(name, tmp_path_factory)
    answer = expected(name)
    found = tables(ingest(name, folder))
    assert {table: len(rows) for table, rows in found.items()} == answer["rows"]
    assert [row["state"] for row in found["collection"]] == answer["states"]
    for check in answer.get("contains", []):
        where = check["where"].items()
        rows = found.get(check["table"], [])
        matching = [row for row in rows if all(row.get(key) == value for key, value in where)]
        assert len(matching) == check["count"], check


@fixtured
def test_evidence_is_recognised_by_its_collector_first(name, tmp_path_factory):
    folder = copy_of(name, tmp_path_factory)
    for relative in expected(name)["evidence"]:
        path = folder / relative
        head = read_head(path)
        asked = (c.name for c in all_collectors() if c.recognise(path, head))
        assert next(asked, None) == name, relative


@fixtured
def test_ingest_is_deterministic(name, tmp_path_factory):
    folder = copy_of(name, tmp_path_factory)
    first, second = ingest(name, folder), ingest(name, folder)
    assert [batch.table for batch in first] == [batch.table for batch in second]
    assert all(a.data.equals(b.data) for a, b in zip(first, second, strict=True))


@fixtured
def test_rows_fit_their_tables(name, tmp_path_factory):
    check_rows(name, ingest(name, copy_of(name, tmp_path_factory)))


def check_rows(name, batches):
    """Columns are declared ones of the declared type (or coded), and sources are the own."""
    collector = load_collector(name)
    for batch in batches:
        declared = arrow_schema(BY_NAME[batch.table])
        for field in batch.data.schema:
            kind = getattr(field.type, "value_type", field.type)
            assert kind == declared.field(field.name).type, (batch.table, field.name)
        if "source" in batch.data.column_names:
            sources = set(batch.data["source"].to_pylist())
            assert sources <= set(collector.sources), batch.table
        if batch.table == "collection":
            assert set(batch.data["state"].to_pylist()) <= set(COLLECTION_STATES)


@fixtured
def test_clocks_come_before_the_times_that_rest_on_them(name, tmp_path_factory):
    """The axis is fixed when the first time arrives (harness_schemas.spi, `ingest`)."""
    timed = set()
    for batch in ingest(name, copy_of(name, tmp_path_factory)):
        rows = batch.data.to_pylist()
        whose = {(row.get("source"), row.get("rank"), row.get("host")) for row in rows}
        if batch.table == "clock_anchors":
            for source, rank, host in whose:
                late = [w for w in timed if w[0] == source and (w[1] == rank or rank is None)]
                assert not [w for w in late if w[2] in (None, host)], (source, rank, host)
        elif batch.table in ("spans", "collectives", "samples"):
            timed |= whose


STRANGE = (b"null", b"-1", b'"x"', b"9" * 25, b"[]", b'{"a": 1}', b"1e400", b'"\\ud800"', b"")


def spoil(folder, data):
    """Cut a file somewhere, flip a byte of it, or put a strange value where it has another."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    values = list(re.finditer(rb'(?<=[:\[, ])(?:-?\d+|"[^"\n]{0,40}")', content))
    way = data.draw(st.sampled_from(["cut", "flip", "replace", "replace"]))
    if way == "cut":
        content = content[:place]
    elif way == "replace" and values:
        value = data.draw(st.sampled_from(values))
        content[value.start() : value.end()] = data.draw(st.sampled_from(STRANGE))
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))


@fixtured
@patient
@given(data=st.data())
def test_spoilt_evidence_is_used_as_far_as_it_goes(name, tmp_path_factory, data):
    folder = copy_of(name, tmp_path_factory)
    spoil(folder, data)
    batches = ingest(name, folder)
    check_rows(name, batches)
    assert "collection" in tables(batches)
