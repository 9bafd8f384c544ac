"""Secrets in text that others wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_schemas.redact import MASK, redact

SECRET = "s3cr3tVALUE"


@pytest.mark.parametrize(
    "text",
    [
        f"HF_TOKEN={SECRET}",
        f"export WANDB_API_KEY='{SECRET}' && srun",
        f"--api-key {SECRET}",
        f'{{"password": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"curl -H 'authorization: basic {SECRET}'",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"https://user:{SECRET}@host/path",
        f"MY_DB_PASSWD={SECRET};x",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
    ],
)
def test_a_value_is_hidden_for_its_name(text):
    assert SECRET not in redact(text)
    assert MASK in redact(text)


@pytest.mark.parametrize(
    "secret",
    [
        "hf_" + "a" * 30,
        "sk-" + "b" * 30,
        "ghp_" + "c" * 36,
        "glpat-" + "d" * 20,
        "AKIA" + "E" * 16,
        "xoxb-" + "1" * 12,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-DEF",
    ],
)
def test_a_value_is_hidden_for_its_shape(secret):
    assert redact(f"run {secret} now") == f"run {MASK} now"


@pytest.mark.parametrize(
    "text",
    [
        "decoded 128 tokens: 345 per second",
        "max_new_tokens=4096 eos_token_id=151643",
        "tokenizer: meta-llama/Llama-3",
        "rank 3 of 8, layer 12, 0.5 ms",
        "NVRM: Xid (PCI:0000:02:00): 79, GPU has fallen off the bus.",
        "error: Detected 1 oom_kill event in StepId=440575.0.",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


@given(st.text(max_size=200))
def test_hiding_twice_changes_nothing(text):
    once = redact(text)
    assert redact(once) == once
