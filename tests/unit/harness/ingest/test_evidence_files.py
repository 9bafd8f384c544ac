"""Files as they are found: pipes, loops, several names of one, torn, with marks of their coding."""

from __future__ import annotations

import codecs
import gzip
import os

import pytest
from support import ROOT
from truth.simulate import Scenario, Simulation

from harness.cli.main import invoke
from harness.ingest import find_evidence, ingest_paths, ingest_run
from harness.ingest.asked import LEFT_NOTHING, NO_JOB
from harness_analysis.store import open_database
from harness_schemas.rundir import RunDir, create_run

SACCT = "JobID|State|ExitCode|Elapsed\n7|FAILED|1:0|00:00:09\n7.0|OUT_OF_MEMORY|0:125|00:00:08\n"


def steps(folder, tmp_path):
    database = tmp_path / "x.duckdb"
    ingest_paths([folder], database)
    with open_database(database) as con:
        sql = "SELECT job_id, step_id, state FROM slurm_steps ORDER BY step_id NULLS FIRST"
        return con.execute(sql).fetchall()


def test_only_ordinary_files_are_read_and_each_once(tmp_path):
    folder = tmp_path / "evidence"
    (folder / "sacct.log").mkdir(parents=True)
    os.mkfifo(folder / "a.log")  # opening it would wait for a writer
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "up").symlink_to(folder)
    (folder / "gone.txt").symlink_to(folder / "nowhere")
    (folder / "sacct.txt").write_text(SACCT)
    (folder / "same.txt").symlink_to(folder / "sacct.txt")
    os.link(folder / "sacct.txt", folder / "too.txt")
    found = find_evidence([folder, folder / "same.txt"])
    assert {name: files for name, (_, files) in found.items()} == {"sacct": [folder / "sacct.txt"]}


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: f"$ sacct -P\nmodule load slurm\n\n{text}".encode(),
        lambda text: gzip.compress(text.encode())[:-8],
        lambda text: text.encode() + b"\0" * 5000,
    ],
    ids=["mark", "utf-16", "crlf", "prompt", "torn gzip", "zeros"],
)
def test_a_table_is_read_however_it_was_saved(spell, tmp_path):
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "a.txt").write_bytes(spell(SACCT))
    assert steps(folder, tmp_path) == [("7", None, "FAILED"), ("7", "0", "OUT_OF_MEMORY")]


def test_holes_that_a_crash_left_in_a_log_do_not_hide_it(tmp_path):
    path = tmp_path / "slurm-7.out"
    said = b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    path.write_bytes(b"\0" * 4096 + said + b"\0" * 4096)
    database = tmp_path / "x.duckdb"
    ingest_paths([path], database)
    with open_database(database) as con:
        assert con.execute("SELECT verdict FROM runs").fetchone() == ("oom_gpu",)


def test_a_file_given_alone_keeps_its_name(tmp_path):
    (tmp_path / "accounts.txt").write_text(SACCT)
    database = ingest_paths([tmp_path / "accounts.txt"], tmp_path / "x.duckdb")
    with open_database(database) as con:
        detail = con.execute("SELECT detail FROM collection WHERE collector = 'sacct'").fetchone()
    assert '"accounts.txt"' in detail[0]


def test_what_is_not_read_is_said_and_evidence_is_never_replaced(tmp_path, capsys):
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "sacct.txt").write_text(SACCT)
    (folder / "nothing.json").touch()
    report = next((ROOT / "tests/fixtures/nsys").glob("*.sqlite"))
    (folder / "report.sqlite.gz").write_bytes(gzip.compress(report.read_bytes())[:900])
    for number in range(5):
        (folder / f"note{number}.txt").write_text("bring milk\n")
    database = tmp_path / "x.duckdb"
    assert invoke(["ingest", str(folder), "-o", str(database)]) == 0
    said = capsys.readouterr().err
    assert (
        "not read: note0.txt, note1.txt, note2.txt and 2 more: recognised by no collector" in said
    )
    assert "not read: nothing.json: empty" in said
    assert "nsys failed: report.sqlite.gz: " in said

    evidence = folder / "sacct.txt"
    assert invoke(["ingest", str(folder), "-f", "-o", str(evidence)]) == 2
    assert evidence.read_text() == SACCT
    assert invoke(["ingest", str(folder / "note0.txt"), "-o", str(tmp_path / "y.duckdb")]) == 125
    assert not (tmp_path / "y.duckdb").exists()


def test_the_order_of_paths_changes_nothing(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(SACCT.replace("7", "8" if name == "b" else "7"))
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert find_evidence(paths) == find_evidence(paths[::-1]) == find_evidence([tmp_path])


def test_a_collector_that_was_asked_for_and_left_nothing_is_told_of(tmp_path):
    run = RunDir(tmp_path / "r1")
    create_run(run)
    wanted = {"sacct": True, "flight_recorder": True, "psutil": False}
    spec = {"model": {"synthetic": "tiny-llama"}, "collectors": wanted}
    skipped = [{"collector": "nvml", "state": "skipped", "reason": "no driver"}]
    data = {"run_id": "r1", "spec": spec, "device": "cpu", "collection": skipped}
    for status, told in (
        ("running", ["nvml"]),
        ("finished", ["app_timers", "flight_recorder", "nvml", "sacct"]),
    ):
        run.write({**data, "status": status})
        with open_database(ingest_run(run)) as con:
            sql = "SELECT collector, state, reason FROM collection ORDER BY ALL"
            rows = con.execute(sql).fetchall()
        assert [name for name, _, _ in rows] == told
    assert rows[-1] == ("sacct", "skipped", NO_JOB)
    assert rows[0] == ("app_timers", "failed", LEFT_NOTHING)


@pytest.mark.parametrize(
    ("stored", "told"),
    [
        (b"\x28\xb5\x2f\xfd and more", "packed by zstd: unpack it first"),
        (b"PK\x03\x04 and more", "packed by zip: unpack it first"),
        (gzip.compress(b"rank0.json".ljust(257, b"\0") + b"ustar"), "packed by tar"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ],
    ids=["zstd", "zip", "tar.gz", "Git LFS"],
)
def test_what_cannot_be_read_as_it_is_stored_is_said_to_be_that(stored, told, tmp_path, capsys):
    (tmp_path / "rank0.json").write_bytes(stored)
    assert invoke(["ingest", str(tmp_path), "-o", str(tmp_path / "d.duckdb")]) == 125
    assert f"not read: rank0.json: {told}" in capsys.readouterr().err


def test_evidence_of_which_nothing_can_be_read_replaces_no_database(tmp_path, capsys):
    database = tmp_path / "d.duckdb"
    database.write_text("what an earlier ingest wrote")
    folder = tmp_path / "evidence"
    folder.mkdir()
    (folder / "trace.json").write_text('{"traceEvents": [{"ph": "X", "cat": "v8", "ts": 1}]}')
    assert invoke(["ingest", str(folder), "-f", "-o", str(database)]) == 125
    assert database.read_text() == "what an earlier ingest wrote"
    said = capsys.readouterr().err
    assert "kineto failed: trace.json: none of its 1 events is work" in said
    assert "harness: nothing could be read of the evidence" in said


def test_two_runs_are_not_taken_for_one(tmp_path, capsys):
    for name in ("one", "two"):
        simulation = Simulation(Scenario())
        simulation.run()
        simulation.write(tmp_path / "runs" / name / "spans")
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    for paths in ([tmp_path / "runs"], [tmp_path / "runs" / "one", tmp_path / "runs" / "two"]):
        assert invoke(["ingest", *map(str, paths), "-o", str(tmp_path / "x.duckdb")]) == 2
        assert "are two runs" in capsys.readouterr().err
    (tmp_path / "runs" / "run.json").write_text("{}")  # as of an attempt within a run
    spans = tmp_path / "runs" / "one" / "spans"
    assert invoke(["ingest", str(spans), "-o", str(tmp_path / "x.duckdb")]) == 0
    assert "not read" not in capsys.readouterr().err
