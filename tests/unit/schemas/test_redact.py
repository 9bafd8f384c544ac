"""Secrets in text that others wrote."""

from __future__ import annotations

import random
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_schemas.redact import HINT, MASK, redact, redact_tree

SECRET = "s3cr3tVALUE"
ALNUM = string.ascii_letters + string.digits
UPPER = string.ascii_uppercase + "234567"
HEX = "0123456789abcdef"


def signs(number: int, of: str = ALNUM) -> str:
    """As random as a key is, the same every time: a key that somebody could use stands nowhere."""
    return "".join(random.Random(number).choices(of, k=number))


KEYS = {
    "aws": "AKIA" + signs(16, UPPER),
    "aws session": "IQoJb3JpZ2lu" + signs(200),
    "github": "ghp_" + signs(36),
    "github fine": f"github_pat_{signs(22)}_{signs(59)}",
    "hugging face": "hf_" + signs(34),
    "openai": f"sk-proj-{signs(74)}",
    "openai before": "sk-" + signs(48),
    "anthropic": f"sk-ant-api03-{signs(93)}AA",
    "gitlab": "glpat-" + signs(20),
    "slack": f"xoxb-{signs(12, string.digits)}-{signs(24)}",
    "google": "AIza" + signs(35),
    "google client": "GOCSPX-" + signs(28),
    "azure client": f"{signs(3)}8Q~{signs(34)}",
    "azure storage": signs(86) + "==",
    "web token": f"eyJ{signs(17)}.eyJ{signs(30)}.{signs(43)}",
    "wandb": "wandb_v1_" + signs(77),
    "nvidia": "nvapi-" + signs(64),
    "npm": "npm_" + signs(36),
    "docker": "dckr_pat_" + signs(27),
    "databricks": "dapi" + signs(32, HEX),
    "vault": "hvs." + signs(90),
    "alibaba": "LTAI" + signs(20),
    "tencent": "AKID" + signs(32),
    "digitalocean": "dop_v1_" + signs(64, HEX),
    "replicate": "r8_" + signs(37),
    "groq": "gsk_" + signs(52),
    "stripe": "sk_live_" + signs(24),
    "grafana": f"glsa_{signs(32)}_{signs(8, HEX)}",
    "key in base 64": "LS0tLS1CRUdJTi" + signs(300),
    "docker's login": "eyJhdXRocyI6" + signs(80),
}


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


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_found_whatever_it_is_glued_to(name):
    key = KEYS[name]
    for before in (
        "",
        "kernel_",
        "x_",
        "9_",
        "/",
        "-",
        "void f<",
        "%3A",
        "\\n",
        "\x1b[32m",
        "\u00e9",
    ):
        for behind in ("", "_kernel", "<int>", '"', ".py", " x"):
            text = before + key + behind
            assert key[-8:] not in redact(text), redact(text)
            assert redact(text).startswith(before)
            assert re.search(HINT, text)


def test_an_unmistakable_key_is_found_in_the_middle_of_a_word():
    for name in ("aws", "github", "hugging face", "anthropic", "openai before", "nvidia", "npm"):
        assert KEYS[name][-8:] not in redact(f"kernel{KEYS[name]}")


@pytest.mark.parametrize(
    "text",
    [
        "HF_TOKEN=$'V a'",
        "set -gx HF_TOKEN V",
        "setenv HF_TOKEN V",
        "aws configure set aws_secret_access_key V",
        "HF_TOKEN                       V",
        "HF_TOKEN\0V",
        "- name: HF_TOKEN\n  value: V",
        '{"name": "HF_TOKEN", "value": "V"}',
        "('HF_TOKEN', 'V')",
        "x_OPENAI_KEY=V",
        "GITHUB_PAT=V",
        "&quot;password&quot;: &quot;V&quot;",
        "password%3DV",
        "Server=h;Uid=sa;Pwd=V;",
        "mysql+pymysql://u:V@h/d",
        "jdbc:oracle:thin:u/V@h",
        "SharedAccessSignature=sv=2022&sig=V",
        "https://x/?X-Goog-Signature=V",
        "machine h\n  login u\n  password V\n",
        "  password V",
        "h:5432:db:user:V",
        "podman login -u u -p V",
        "az login --service-principal -u a -p V --tenant t",
        "echo V | docker login --password-stdin",
        "echo u:V | chpasswd",
        "sudo -S <<< V",
        "redis-cli -h x -a V",
        "ldapsearch -x -w V -D cn",
        "smbclient -U u%V //h/s",
        "ipmitool -H h -U a -P V power",
        "http -a u:V h",
        "openssl enc -passin pass:V",
        "kubectl create secret generic s --from-literal=k=V",
        "skopeo copy --src-creds u:V a b",
        '{"auths": {"r.io": {"auth": "V"}}}',
        "client-key-data: V",
        "Ocp-Apim-Subscription-Key: V",
    ],
)
def test_a_value_is_hidden_for_what_stands_before_it(text):
    text = text.replace("V", SECRET)
    assert SECRET not in redact(text), redact(text)
    assert re.search(HINT, text)


def test_names_and_values_in_two_fields_are_hidden():
    tree = {"env": [{"name": "HF_TOKEN", "value": SECRET}, {"name": "A", "value": "b"}]}
    assert redact_tree(tree) == {
        "env": [{"name": "HF_TOKEN", "value": MASK}, {"name": "A", "value": "b"}]
    }


@pytest.mark.parametrize("piece", ["token", "a-", "A_", "--token ", "://a:", "name: a_key ", '"'])
def test_no_text_takes_the_square_of_its_length(piece):
    """Such texts took hours once: this test would not end."""
    assert redact(f"{piece * 20_000}\nHF_TOKEN={SECRET}").endswith(f"\nHF_TOKEN={MASK}")


@pytest.mark.parametrize(
    "text",
    [
        "Time per output token: 12.34 ms, ms/token: 3.2, first token: 345 ms",
        "eos_token='</s>' pad_token: <pad> PROMPT_TOKENS=128",
        "void moe::token::permute_kernel<float>()",
        "_hf_AutoModelForCausalLM_forward mask_test_attention_forward",
        "disk-usage-of-the-node-1 task-clock-something-longer-2",
        "_ZN19cutlass_cudnn_train6KernelINS_4conv6kernel23ImplicitGemmConvolutionINS1_11threadblock",
        "srun -p debug python x.py; docker run -p 8080:80 image; pass: 12 fail: 3",
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
        (
            'Authorization: Digest username="u v", response="e f"\nHost: x',
            f"Authorization: {MASK}\nHost: x",
        ),
        (
            '{"a": "Cookie: b=cde", "f": "--token \'g h\'"}',
            f'{{"a": "Cookie: {MASK}", "f": "--token \'{MASK}\'"}}',
        ),
        ("Cookie: a=bcd --token 'e f'", f"Cookie: {MASK} --token '{MASK}'"),
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
