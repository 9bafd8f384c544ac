"""Files as they are found: pipes, loops, several names of one, torn, with marks of their coding."""

from __future__ import annotations

import codecs
import gzip
import os

import pytest

from harness.ingest import find_evidence, ingest_paths
from harness_analysis.store import open_database

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
