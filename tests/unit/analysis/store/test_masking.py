"""The last gate before the database: secrets go, and what was JSON can still be asked as JSON."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_analysis.store.masking import masked

TOKEN = "hf_" + "abcDEF123456789012345"
SECRETS = (TOKEN, f"HF_TOKEN={TOKEN}", f"-----BEGIN PRIVATE KEY-----\n{TOKEN}", f"--token {TOKEN}")


def stored(text):
    return masked(pa.table({"detail": [text]}))["detail"].to_pylist()[0]


@pytest.mark.parametrize("secret", SECRETS)
def test_json_stays_json_and_keeps_what_is_no_secret(secret):
    """The key has no end line: by its text alone all that follows would be hidden."""
    told = json.loads(stored(json.dumps({"note": secret, "count": 3})))
    assert told["count"] == 3
    assert TOKEN not in told["note"]


def test_numbers_that_are_none_become_null_so_that_json_is_json():
    assert stored('{"a": NaN, "b": [-Infinity, 1]}') == '{"a": null, "b": [null, 1]}'
    assert stored("NaN of 3") == "NaN of 3"


LEAVES = st.none() | st.integers() | st.sampled_from(SECRETS) | st.text(max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "password", '"', "\\"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=4), TREES) | st.lists(TREES))
def test_any_json_stays_json_without_the_secret(data):
    clean = stored(json.dumps(data))
    json.loads(clean)
    assert TOKEN not in clean


@pytest.mark.parametrize("text", ['{"a": ', "[", "plain ", ""])
def test_other_text_is_hidden_as_text(text):
    clean = stored(f"{text}{TOKEN}")
    assert TOKEN not in clean
    assert clean.startswith(text)
