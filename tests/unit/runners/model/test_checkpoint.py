from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from harness_runners.model.checkpoint import INDEX, SINGLE, read_checkpoint, read_header
from harness_schemas.errors import UsageError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("whole") / SINGLE
    tensors = {"a": np.ones((3, 4), np.float32), "b": np.ones(5, np.float16)}
    save_file(tensors, str(file), metadata={"format": "pt"})
    return file


def test_a_single_file_is_read_from_its_header(whole):
    entries = read_checkpoint(whole.parent)
    assert {name: (e.dtype, e.shape, e.element_bytes) for name, e in entries.items()} == {
        "a": ("F32", (3, 4), 4),
        "b": ("F16", (5,), 2),
    }


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused(whole, tmp_path, share):
    data = whole.read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UsageError, match=r"cut|truncated"):
        read_header(cut)


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, (4).to_bytes(8, "little") + b"nope"])
def test_what_is_no_safetensors_file_is_said_so(tmp_path, data):
    file = tmp_path / SINGLE
    file.write_bytes(data)
    with pytest.raises(UsageError, match="safetensors file"):
        read_checkpoint(tmp_path)


def sharded(folder, weight_map):
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    save_file({"a": np.ones(2, np.float32)}, str(folder / "one.safetensors"))


def test_an_index_that_names_an_absent_file(tmp_path):
    sharded(tmp_path, {"a": "one.safetensors", "b": "two.safetensors"})
    with pytest.raises(UsageError, match=r"names two\.safetensors, which is not there"):
        read_checkpoint(tmp_path)


def test_an_index_that_promises_a_tensor_in_vain(tmp_path):
    sharded(tmp_path, {"a": "one.safetensors", "b": "one.safetensors"})
    with pytest.raises(UsageError, match="names b, which none of its files holds"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"weight_map": 3}', "{}"])
def test_a_broken_index(tmp_path, text):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(UsageError, match="is not an index"):
        read_checkpoint(tmp_path)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(UsageError, match="holds neither"):
        read_checkpoint(tmp_path)
