"""What a mistyped command line is told: one line of what is wrong, one of what to do."""

from __future__ import annotations

import errno
import struct
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from harness.cli import main
from harness.cli.main import invoke
from harness_analysis.store import open_database
from harness_schemas.errors import EvidenceError, HarnessError
from harness_schemas.whole_file import whole_file


@pytest.mark.parametrize(
    ("argv", "wrong", "todo"),
    [
        (["runn"], "no command 'runn'; did you mean 'run'?", "harness --help"),
        (["query", "latest", "FROM runs", "--jsn"], "--json", "harness query --help"),
        (["export", "latest"], "--format", "harness export --help"),
        (["query", "  "], "the query is missing", "harness query --help"),
        (["query", "."], "the query is missing", "harness query --help"),
        (["query", "FROM runs", "."], "the query comes last", "harness query --help"),
        (["query", "--example", "who-waits", "FROM runs"], "no example", "--list-examples"),
        (["schema", "span"], "did you mean 'spans'?", "harness schema"),
        (["report", "-o", "page.pdf"], "-o writes .html, .htm, .md, not .pdf", "--help"),
        (["report", "--picture", "a.png"], "--picture writes .svg, not .png", "--help"),
        (["list", "a/kept/run"], "is a run, not a folder of runs", "harness report a/kept/run"),
        (["report"], "no run in runs yet", "harness run"),
        (["report", "."], ". is no run's folder", "harness ingest ."),
        (["report", "a"], "a is a folder of runs, not a run", "'a/kept/*'"),
        (["report", "--html", "--json"], "--json prints the answer", "--help"),
        (["report", "--json", "--csv"], "--json and --csv are two formats: give one", "--help"),
        (["query", "FROM runs", "--csv", "--markdown"], "--csv and --markdown are two", "--help"),
        (["report", "--baseline", "x"], "--baseline goes with --html", "--help"),
        (["export", "--format", "csv", "--rank", "1"], "--rank goes with --format", "--help"),
        (["export", "--format", "chrome", "--table", "x"], "--table goes with", "--help"),
        (["export", "--format", "otlp", "-o", "a", "--endpoint", "b"], "give one", "--help"),
        (["ingest", ".", "--share", "1/2"], "--share goes with --parquet DIR", "--help"),
        (["ingest", ".", "--parquet", "p", "-o", "x"], "give one of them", "--help"),
        (["plan", "a", "--model-config", "b"], "a is one model", "name one of them"),
        (["run", "s.toml", "--set", "=1"], "--set '=1' is not key.path=value", "parallel.tp=2"),
        (["run", "s.toml", "more"], "s.toml is no command", "a specification goes alone"),
        (["run", "s.toml", "--attach", "7"], "--attach names a job that runs already", "--help"),
        (["sweep", "s.toml", "--preset", "batch", "--ranks", "1"], "--ranks goes with", "--help"),
        (["compare"], "missing argument 'A [B ...]'", "harness compare --help"),
        (["ingest", "nowhere", "-o", "x.duckdb"], "nowhere", ""),
        (["ingest", ".", "-o", "nowhere/x.duckdb"], "no folder nowhere", "-o"),
        (["list", "nowhere"], "no folder nowhere", "folder"),
        (["run", "."], "is a folder", "TOML"),
        (["run", "mine.py"], "mine.py is no specification", "harness run -- COMMAND"),
    ],
)
def test_a_mistake_is_told_in_two_lines(argv, wrong, todo, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("import torch\n")
    (tmp_path / "s.toml").write_text("[model]\nsynthetic = 'tiny-llama'\n")
    (tmp_path / "a" / "kept" / "run").mkdir(parents=True)
    (tmp_path / "a" / "kept" / "run" / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert invoke(argv) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("harness: ") and wrong in first
    assert second.startswith("  ") and todo in second


@pytest.mark.parametrize(
    "argv",
    [
        ["report", "FILE"],
        ["report", "FILE", "--html", "-o", "page.html"],
        ["report", "FILE", "--picture", "a.svg"],
        ["report", "FILE", "FILE2"],
        ["compare", "FILE", "FILE2"],
        ["explain", "FILE"],
        ["export", "FILE", "--format", "otlp", "-o", "a.jsonl"],
        ["plan", "FILE"],
        ["audit", "FILE"],
        ["doctor", "FILE"],
        ["bench", "collectives", "--run", "FILE"],
    ],
    ids=" ".join,
)
def test_a_database_of_something_else_is_named(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "FILE2"):
        with duckdb.connect(f"{name}.duckdb") as con:
            con.execute("CREATE TABLE t AS SELECT 1 AS x")
    words = [f"{word}.duckdb" if word.startswith("FILE") else word for word in argv]
    assert invoke(words) == 125
    first, second = capsys.readouterr().err.splitlines()
    assert first == "harness: FILE.duckdb is no run's database" and "harness ingest" in second


def test_a_file_that_nobody_reads_is_named(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello\n")
    argv = ["ingest", str(tmp_path / "notes.txt"), "-o", str(tmp_path / "x.duckdb")]
    assert invoke(argv) == 125
    assert "  not read: notes.txt: " in capsys.readouterr().err


def test_a_mistyped_key_is_told_the_one_it_resembles(tmp_path, capsys):
    spec = tmp_path / "s.toml"
    spec.write_text(
        "[model]\nsynthetic = 'tiny-llama'\n[parallel]\ntpp = 2\n[generation]\nzzz = 1\n"
    )
    assert invoke(["run", str(spec), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "parallel.tpp: unknown key; did you mean 'tp'?" in err
    assert "generation.zzz: unknown key\n" in err


def test_a_key_below_what_is_no_table_is_refused(tmp_path, capsys):
    spec = tmp_path / "s.toml"
    spec.write_text("[model]\nsynthetic = 'tiny-llama'\n")
    assert invoke(["run", str(spec), "--set", "model.synthetic.x=1"]) == 2
    said = capsys.readouterr().err
    assert said == "harness: cannot set model.synthetic.x: synthetic is not a table\n"


def test_a_wrong_value_is_told_with_what_was_given(tmp_path, capsys):
    spec = tmp_path / "s.toml"
    spec.write_text(
        "[model]\nsynthetic = 'tiny-llama'\n[parallel]\ntp = 'two'\npp = 1.5\n"
        "[inject]\ndelay = '1ms'\n"
        "[launcher]\nkind = 'ssh'\n"
    )
    assert invoke(["run", str(spec), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "parallel.tp: must be a whole number, not 'two'" in err
    assert "parallel.pp: must be a whole number, not 1.5" in err
    assert "inject.rank: is missing" in err
    assert "launcher.kind: must be 'auto', 'local' or 'slurm', not 'ssh'" in err


def test_yaml_that_is_none_is_told_by_its_line(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text("model:\n  synthetic: [\n")
    assert invoke(["run", str(tmp_path / "s.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("not valid yaml: expected the node content, but found '<stream end>' "
                         "(line 3, column 1)")  # fmt: skip


def test_a_full_disk_behind_stdout_is_no_defect():
    argv = [sys.executable, "-P", "-m", "harness", "schema", "spans"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 125
    assert (
        done.stderr.startswith("harness: cannot write: No space left") and "\n  free" in done.stderr
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_a_file_that_cannot_be_removed_either_is_told(tmp_path, monkeypatch):
    """On a read-only file system `unlink` refuses also what is not there."""

    def refuse(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with (
        pytest.raises(HarnessError, match=r"cannot write .*page: No such file"),
        whole_file(tmp_path / "nowhere" / "page") as temporary,
    ):
        temporary.write_text("x")


def test_a_database_of_a_newer_duckdb_is_told_from_a_damaged_one(tmp_path):
    path = tmp_path / "x.duckdb"
    duckdb.connect(str(path)).close()
    content = bytearray(path.read_bytes())
    content[12:20] = struct.pack("<Q", 123_456)
    content[:8] = struct.pack("<Q", _checksum(content[8:4096]))
    path.write_bytes(content)
    with pytest.raises(EvidenceError, match="newer DuckDB"), open_database(path):
        pass
    content[12:20] = struct.pack("<Q", 123_457)
    path.write_bytes(content)
    with pytest.raises(EvidenceError, match="cannot be read"), open_database(path):
        pass


def _checksum(block: bytes) -> int:
    """As DuckDB writes it before each header (checksum.cpp)."""
    result = 5381
    for (word,) in struct.iter_unpack("<Q", block):
        result ^= word * 0xBF58476D1CE4E5B9 % 2**64
    return result


def test_a_defect_of_ours_has_not_the_code_of_a_gate(monkeypatch, capsys):
    def broken(**_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(main.cli, "main", broken)
    assert invoke([]) == 125
    err = capsys.readouterr().err
    assert "KeyError: 'ours'" in err and "harness: a defect" in err


def test_ctrl_c_in_the_middle_of_a_query_is_no_defect(monkeypatch, capsys):
    """DuckDB tells of it by a RuntimeError of these words (seen with 2.0)."""

    def interrupted(*_, **__):
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(main.cli, "main", interrupted)
    assert invoke(["list"]) == 130
    assert capsys.readouterr().err == "harness: interrupted\n"
