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
        "sbatch -p gpu -N 2 --export=ALL,NCCL_DEBUG=INFO job.sh",
        "torch/_inductor/fx_passes/joint_graph.py: hf_hub_download, cache_key=('a', 1)",
        "NCCL_IB_PKEY=0 SSH_AUTH_SOCK=/tmp/agent.1 PWD=/home/u OLDPWD=/home",
        "tcp://10.0.0.1:29500",
        "http://10.0.0.1:8000/v1 ssh://git@host.example.org/x.git user@host",
        "void cutlass::Kernel2<cutlass_80_tensorop_s16816gemm_bf16_128x64_64x4_tn_align8>(Params)",
        "the environment variable HF_TOKEN is not set",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"password": "a \\" b c", "next": 1}', f'{{"password": "{MASK}", "next": 1}}'),
        ("DB_PASSWORD='two words' NEXT=1", f"DB_PASSWORD='{MASK}' NEXT=1"),
        ("--export=ALL,HF_TOKEN=a;b,NAME=x", f"--export=ALL,HF_TOKEN={MASK},NAME=x"),
        ("Cookie: a=bcd; e=fgh\nHost: x", f"Cookie: {MASK}\nHost: x"),
    ],
)  # fmt: skip
def test_all_of_a_value_is_hidden_and_nothing_behind_it(text, shown):
    assert redact(text) == shown


def test_a_key_is_hidden_line_by_line_too():
    body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
    assert redact(body) == MASK
    assert redact("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855") != MASK


@given(st.text(max_size=200))
def test_hiding_twice_changes_nothing(text):
    once = redact(text)
    assert redact(once) == once
