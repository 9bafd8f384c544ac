"""What a mistyped command line is told: one line of what is wrong, one of what to do."""

from __future__ import annotations

import pytest

from harness.cli import main
from harness.cli.main import invoke


@pytest.mark.parametrize(
    ("argv", "wrong", "todo"),
    [
        (["runn"], "no command 'runn'; did you mean 'run'?", "harness --help"),
        (["query", "latest", "FROM runs", "--jsn"], "--json", "harness query --help"),
        (["export", "latest"], "--format", "harness export --help"),
        (["query", "  "], "the query is missing", "harness query --help"),
        (["query", "."], "the query is missing", "harness query --help"),
        (["report"], "no run in runs yet", "harness run"),
        (["report", "."], ". is no run's folder", "harness ingest ."),
        (["ingest", "nowhere", "-o", "x.duckdb"], "nowhere", ""),
        (["ingest", ".", "-o", "nowhere/x.duckdb"], "no folder nowhere", "-o"),
        (["list", "nowhere"], "no folder nowhere", "folder"),
        (["run", "."], "is a folder", "TOML"),
        (["run", "mine.py"], "mine.py is no specification", "harness run -- COMMAND"),
    ],
)
def test_a_mistake_is_told_in_two_lines(argv, wrong, todo, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text("import torch\n")
    monkeypatch.chdir(tmp_path)
    assert invoke(argv) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("harness: ") and wrong in first
    assert second.startswith("  ") and todo in second


def test_a_mistyped_key_is_told_the_one_it_resembles(tmp_path, capsys):
    spec = tmp_path / "s.toml"
    spec.write_text(
        "[model]\nsynthetic = 'tiny-llama'\n[parallel]\ntpp = 2\n[generation]\nzzz = 1\n"
    )
    assert invoke(["run", str(spec), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "parallel.tpp: unknown key; did you mean 'tp'?" in err
    assert "generation.zzz: unknown key\n" in err


def test_a_defect_of_ours_has_not_the_code_of_a_gate(monkeypatch, capsys):
    def broken(**_: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(main.cli, "main", broken)
    assert invoke([]) == 125
    err = capsys.readouterr().err
    assert "KeyError: 'ours'" in err and "harness: a defect" in err
