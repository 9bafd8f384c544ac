"""What stands behind `--` is a command, were it one word."""

from __future__ import annotations

import pytest

from harness.cli.main import invoke


@pytest.mark.parametrize("command", [["true"], ["pwd"], ["echo", "--", "a b"]])
def test_what_stands_behind_the_dashes_is_a_command(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["run", "--dry-run", "--", *command]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index("# environment") - 1].split()[0] == command[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["HARNESS_OUTPUT", "HARNESS_RUN_OUTPUT"])
def test_runs_are_made_where_they_are_looked_for(variable, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(variable, str(tmp_path / "there"))
    assert invoke(["run", "--dry-run", "--", "true"]) == 0
    assert f"{tmp_path}/there/" in capsys.readouterr().out


def test_a_word_without_dashes_is_a_specification(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert invoke(["run", "--dry-run", "true"]) == 2
    assert "no specification true" in capsys.readouterr().err


def test_a_command_keeps_its_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.sh").write_text("#!/bin/sh\n")
    assert invoke(["run", "--dry-run", "--", "./mine.sh"]) == 2
    assert "./mine.sh cannot be executed\n  chmod +x" in capsys.readouterr().err
    (tmp_path / "mine.sh").chmod(0o755)
    assert invoke(["run", "--dry-run", "--", "./mine.sh", "a"]) == 0
    assert "./mine.sh a\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["--launcher", "slurm"], ["--set", "a=1"], ["--strict"], ["--detach"]]
)
def test_what_only_a_specification_can_be_told_is_not_swallowed(options, capsys):
    assert invoke(["run", "--dry-run", *options, "--", "true"]) == 2
    assert f"{options[0]} goes with" in capsys.readouterr().err
