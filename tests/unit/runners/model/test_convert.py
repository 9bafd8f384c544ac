from __future__ import annotations

import json
import os

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from harness_runners.model.checkpoint import read_checkpoint  # noqa: E402
from harness_runners.model.convert import convert_bin  # noqa: E402
from harness_runners.plan import ModelPlan, needs_conversion  # noqa: E402
from harness_runners.prepare import prepare_model  # noqa: E402
from harness_schemas.errors import UsageError  # noqa: E402


def bin_model(folder, sharded=True):
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    base = torch.arange(12.0)
    one = {"a": base[:6].view(2, 3), "b": base[6:]}  # views of one storage
    two = {"c": torch.ones(4, dtype=torch.bfloat16)}
    if not sharded:
        torch.save({**one, **two}, folder / "pytorch_model.bin")
        return folder
    torch.save(one, folder / "pytorch_model-1.bin")
    torch.save(two, folder / "pytorch_model-2.bin")
    weight_map = dict.fromkeys(one, "pytorch_model-1.bin") | {"c": "pytorch_model-2.bin"}
    index = json.dumps({"weight_map": weight_map})
    (folder / "pytorch_model.bin.index.json").write_text(index)
    return folder


@pytest.mark.parametrize("sharded", [True, False])
def test_bin_files_become_safetensors_with_the_same_tensors(tmp_path, sharded):
    source = bin_model(tmp_path / "source", sharded)
    assert needs_conversion(source)
    final = tmp_path / "cache" / "converted"
    plan = ModelPlan(str(final), source=str(source), convert=True)
    assert prepare_model(plan)
    assert not prepare_model(plan)
    entries = read_checkpoint(final)
    shapes = {name: (entry.dtype, entry.shape) for name, entry in entries.items()}
    assert shapes == {"a": ("F32", (2, 3)), "b": ("F32", (6,)), "c": ("BF16", (4,))}
    from safetensors.torch import load_file

    assert load_file(entries["a"].file)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert {"config.json", "tokenizer.json"} <= {path.name for path in final.iterdir()}
    assert not needs_conversion(final)


class Malicious:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARNESS_TEST_MARK"],)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, monkeypatch):
    source = bin_model(tmp_path / "source", sharded=False)
    mark = tmp_path / "mark"
    monkeypatch.setenv("HARNESS_TEST_MARK", str(mark))
    torch.save({"a": torch.ones(1), "b": Malicious()}, source / "pytorch_model.bin")
    with pytest.raises(UsageError, match="holds more than weights and is not loaded"):
        convert_bin(source, tmp_path / "cache" / "converted")
    assert not mark.exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cut_file_is_refused_and_leaves_nothing(tmp_path):
    source = bin_model(tmp_path / "source", sharded=False)
    file = source / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UsageError, match="cannot be read"):
        convert_bin(source, tmp_path / "cache" / "converted")
    assert list((tmp_path / "cache").iterdir()) == []
