"""Weights against the checksums that came with them."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from harness.cli.main import invoke
from harness_analysis.verdict.judge import judge
from harness_analysis.verdict.model import TextLine, VerdictEvidence
from harness_runners.files import checksums
from harness_runners.model.checkpoint import INDEX, read_checkpoint
from harness_schemas.errors import UsageError

NAMES = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 16,
    "max_position_embeddings": 40,
}


@pytest.fixture
def folder(tmp_path):
    """A model of two files."""
    folder = tmp_path / "model"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        save_file({f"t{number}": np.full(5, number, np.float32)}, str(folder / name))
    (folder / INDEX).write_text(json.dumps({"weight_map": {"t0": NAMES[0], "t1": NAMES[1]}}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def sums(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}


def listed(folder, found):
    (folder / "SHA256SUMS").write_text("".join(f"{v}  ./{k}\n" for k, v in found.items()))


def downloaded(folder, found):
    place = folder / ".cache/huggingface/download"
    place.mkdir(parents=True)
    for name, value in found.items():
        (place / f"{name}.metadata").write_text(f'{"a" * 40}\n"{value}"\n1766000000.5\n')


def linked(folder, found):
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for name, value in found.items():
        (folder / name).rename(blobs / value)
        (folder / name).symlink_to(blobs / value)


@pytest.mark.parametrize("note", [listed, downloaded, linked])
def test_what_the_source_wrote_down_is_found_and_compared(folder, note, capsys):
    note(folder, sums(folder))
    assert invoke(["doctor", "--model", str(folder), "--checksums"]) == 0
    assert "2 of 2 files agree" in capsys.readouterr().out
    damaged = bytearray((folder / NAMES[1]).read_bytes())
    damaged[-1] ^= 1
    (folder / NAMES[1]).resolve().write_bytes(damaged)
    assert invoke(["doctor", "--model", str(folder)]) == 0, "sizes are as they were"
    assert invoke(["doctor", "--model", str(folder), "--checksums"]) == 123
    assert f"1 of 2 weight files differ from their checksums: {NAMES[1]}" in capsys.readouterr().out


def test_what_cannot_be_compared_is_not_said_to_be_right(folder, capsys):
    listed(folder, {NAMES[0]: sums(folder)[NAMES[0]]})
    assert invoke(["doctor", "--model", str(folder), "--checksums"]) == 123
    assert f"no checksum is known of 1 of 2 weight files: {NAMES[1]}" in capsys.readouterr().out


def test_each_file_says_how_long_it_took(folder):
    files = checksums.weight_files(folder)
    done = list(checksums.sum_files(files, {}))
    assert [one.num_bytes for one in done] == [file.stat().st_size for file in files]
    assert all(one.end_ns > one.start_ns for one in done)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data + b"xx", "too long"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data.replace(b"[5]", b"[4]"), "shape needs"),
    ],
)
def test_sizes_are_those_of_the_headers(folder, damage, says, capsys):
    path = folder / NAMES[0]
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match=says):
        read_checkpoint(folder)
    assert invoke(["doctor", "--model", str(folder)]) == 123
    assert says in capsys.readouterr().out.replace("\n" + " " * 19, " ")


def test_a_tensor_in_another_file_than_the_index_says(folder):
    swapped = {"t0": NAMES[1], "t1": NAMES[0]}
    (folder / INDEX).write_text(json.dumps({"weight_map": swapped}))
    with pytest.raises(UsageError, match="t0 in another file"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    ("known", "rule"), [("0" * 64, "checkpoint-damaged"), (None, "checksums-unknown")]
)
def test_a_job_that_ends_for_it_has_a_verdict_that_says_so(tmp_path, known, rule):
    said = checksums.complaint([checksums.Summed(tmp_path / "a", "1" * 64, known, 5, 1, 2)])
    line = TextLine("stderr", f"harness: {said}")
    found = judge(VerdictEvidence(exit_code=123, lines=(line,)))
    assert (found.name, found.rule) == ("rank_failed", rule)
