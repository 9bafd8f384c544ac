"""Secrets planted in every source reach neither the database nor the report nor run.json."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from harness.cli.main import invoke
from harness.registry import collector_names
from harness_analysis.store import open_database
from harness_schemas.redact import HINT, redact
from harness_schemas.rundir import RunDir, create_run

FIXTURES = ROOT / "tests" / "fixtures"
PLANTED = re.compile(r"pl4nt3d", re.IGNORECASE)

SECRETS = (
    "HF_TOKEN=hf_pl4nt3daaaaaaaaaaaa",
    "AWS_SECRET_ACCESS_KEY=wJalrpl4nt3dEMI/K7MDENG+bPxRfi",
    "AWS_ACCESS_KEY_ID=AKIAPL4NT3D0000000AA",
    "Authorization: Bearer pl4nt3d.abcdefgh.ijkl",
    "https://user:pl4nt3dpass@git.example.org/x.git",
    "--api-key=pl4nt3dkey123",
    "--hub-token pl4nt3dvalue",
    "MY_DB_PASSWORD='pl4nt3d pw'",
    "sk-pl4nt3dpl4nt3dpl4nt3d",
    '["--wandb-api-key", "pl4nt3dlist"]',
    "--auth-token\\x00pl4nt3dnul".replace("\\x00", "\x00"),
    'MY_DB_PASSWORD="first of pl4nt3d words"',
    "--password=ab,pl4nt3d;pl4nt3d",
    "--token 'pl4nt3dquoted one'",
    "Set-Cookie: first=pl4nt3d1; session=pl4nt3d2",
    "OPENAI_KEY=pl4nt3dkey DB_PASS=pl4nt3dpass MYSQL_PWD=pl4nt3dpwd SLURM_JWT=pl4nt3djwt",
    "mysql -u root -ppl4nt3dshort db",
    "sshpass -p pl4nt3dshort ssh node1",
    "curl -s -u admin:pl4nt3duser host",
    "wandb login pl4nt3d0123456789abcdef0123456789ab",
    "https://h.example.org/x?v=1&sig=pl4nt3dsignature",
    "https://user:pl4nt3d@pl4nt3d@git.example.org/x.git",
    "npm_PL4NT3D0000000000000000000 sk_live_pl4nt3dpl4nt3d",
    "<password>pl4nt3dxml</password>",
    "kernel_hf_pl4nt3daaaaaaaaaaaaaaaa_v2",
    "x_ghp_pl4nt3d00000000000000",
    "docker login -u u -p pl4nt3dshort r.example.org",
    "echo pl4nt3dshort | docker login --password-stdin",
    '{"name": "HF_TOKEN", "value": "pl4nt3dvalue"}',
    "setenv HF_TOKEN pl4nt3dvalue",
    "machine h login u password pl4nt3dnetrc",
    "postgresql://u:pl4nt3dpg@h:5432/d",
    "https://a.blob.example.org/c?sv=2022&sp=r&sig=pl4nt3dsas%3D",
)


GLUED = ("hf_pl4nt3daaaaaaaaaaaaaaaa", "ghp_pl4nt3d00000000000000", "AKIAPL4NT3D0000000AA")
"""Known by their shape, and put to the end of a name."""


def planted(number: int) -> str:
    return SECRETS[number % len(SECRETS)]


SHAPE = frozenset(
    {"t", "ph", "cat", "format", "timeline", "category", "phase", "collector", "boot_id"}
)
"""Keys whose values say what a line is: with others in them it is not read at all."""


class Planter:
    """Adds a secret to every `every`-th text it meets, from the `first` on."""

    def __init__(self, first: int, every: int) -> None:
        self.count, self.every, self.used = first, every, 0

    def text(self, text: str) -> str:
        self.count += 1
        if self.count % self.every:
            return text
        self.used += 1
        if self.used % 4 == 0:
            return f"{text}_{GLUED[self.used // 4 % len(GLUED)]}"
        return f"{text} {planted(self.used)}"

    def tree(self, data):
        if isinstance(data, str):
            return self.text(data)
        if isinstance(data, list):
            return [self.tree(item) for item in data]
        if isinstance(data, dict):
            return {
                key: value if key in SHAPE else self.tree(value) for key, value in data.items()
            } | {"environment": {"HF_TOKEN": "pl4nt3dvalue", "NAME": planted(self.count)}}
        return data


def plant_lines(text: str, planter: Planter) -> str:
    """Into JSON lines, or behind lines of text."""
    lines = []
    for line in text.splitlines():
        try:
            lines.append(json.dumps(planter.tree(json.loads(line)), separators=(",", ":")))
        except ValueError:
            lines.append(planter.text(line).replace("\x00", " "))
    return "\n".join(lines) + "\n"


def plant_sqlite(path: Path, planter: Planter) -> None:
    con = sqlite3.connect(path)
    tables = [row[0] for row in con.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    for table in tables:
        for column in con.execute(f'PRAGMA table_info("{table}")').fetchall():
            name = column[1]
            if table.startswith(("EXPORT_META", "META_DATA_EXPORT", "ENUM_")):
                continue
            con.execute(
                f'UPDATE "{table}" SET "{name}" = "{name}" || ? WHERE typeof("{name}") = \'text\''
                " AND rowid % ? = 0",
                (f" {planter.text(planted(planter.count))}", planter.every),
            )
    con.execute(
        "CREATE TABLE IF NOT EXISTS TARGET_INFO_SYSTEM_ENV (globalVid, devStateName, name, value)"
    )
    con.execute(
        "INSERT INTO TARGET_INFO_SYSTEM_ENV (name, value) VALUES ('HF_TOKEN', 'pl4nt3dvalue')"
    )
    con.commit()
    con.close()


def plant(path: Path, planter: Planter) -> None:
    if path.suffix == ".sqlite":
        plant_sqlite(path, planter)
        return
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        text = gzip.decompress(data).decode()
        path.write_bytes(gzip.compress(plant_lines(text, planter).encode()))
        return
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # the recorder's spans are numbers; a pickle has its JSON twin beside it
    try:
        path.write_text(json.dumps(planter.tree(json.loads(text))))
    except ValueError:
        path.write_text(plant_lines(text, planter))


EXTRA = {
    "artifacts/sacct/n1/more.txt": "JobID|JobName|State|ExitCode|Comment|SubmitLine\n70|a "
    "--api-key=pl4nt3dkey123|FAILED|1:0|HF_TOKEN=hf_pl4nt3dcomment|sbatch --token pl4nt3dline x\n",
    "logs/rank-00001.err": "RuntimeError: 401 for https://u:pl4nt3d@h/x, Bearer pl4nt3d.token12\n",
    "artifacts/perf/n1/stack.script.txt": "# cmdline : /usr/bin/perf record python x.py "
    "--api-key=pl4nt3dkey123\npython 12 1.0: 1 cycles:\n\t1 f (/usr/bin/python)\n",
}  # fmt: skip


def everything(tmp_path: Path, first: int) -> RunDir:
    """A run folder with the evidence of every collector, planted."""
    run = RunDir(tmp_path / "runs" / "r1")
    create_run(run)
    planter = Planter(first, 3)
    for name in collector_names():
        target = run.artifacts / name / "n1"
        shutil.copytree(FIXTURES / name, target)
        (target / "expected.json").unlink()
        for path in sorted(target.rglob("*")):
            if path.is_file():
                plant(path, planter)
    for name, text in EXTRA.items():
        path = run.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    spec = {
        "name": "x",
        "collectors": {"otel": {"headers": "Authorization: Bearer pl4nt3d.head.er12"}},
    }
    exits = [{"rank": 1, "exit_code": 1, "message": "ValueError: HF_TOKEN=hf_pl4nt3dmessage"}]
    end = {"exit_code": 1, "timed_out": False, "interrupted": False, "rank_exits": exits}
    run.write(
        {
            "run_id": "r1",
            "name": planted(7),
            "status": "failed",
            "spec": spec,
            "provenance": {"env": {"HF_TOKEN": "pl4nt3dvalue"}, "argv": list(SECRETS)},
            "collection": [{"collector": "x", "state": "skipped", "reason": planted(first)}],
            "end": {**end, "oom_kills": 0, "kernel_lines": []},
        }
    )
    assert planter.used > 50
    return run


def leaks_of(con):
    """What any column of any type in any table or view holds of what was planted."""
    columns = con.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal"
        " AND data_type NOT IN ('BIGINT', 'INTEGER', 'DOUBLE', 'BOOLEAN') ORDER BY ALL"
    ).fetchall()
    found = []
    for table, column in columns:
        text = f"{column}::VARCHAR"
        texts = con.execute(
            f"SELECT {text} FROM {table} WHERE {text} ILIKE '%pl4nt3d%' LIMIT 3"
        ).fetchall()
        found += [
            (table, column, text[max(0, text.lower().find("pl4nt3d") - 90) :][:200])
            for (text,) in texts
        ]
    assert len(columns) > 50
    return found


@pytest.mark.parametrize("first", [0, 1])
def test_planted_secrets_reach_nothing_that_we_write(tmp_path, first, capfd, monkeypatch):
    run = everything(tmp_path, first)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "2000")
    assert invoke(["ingest", str(run.path)]) == 0
    with open_database(run.database) as con:
        assert leaks_of(con) == []
        states = dict(
            con.execute("SELECT collector, max(state) FROM collection GROUP BY 1").fetchall()
        )
    assert {"kineto", "nsys", "nccl_log", "otel", "failure_log", "app_timers"} <= states.keys()
    assert not PLANTED.search(run.run_json.read_text())
    for command in (
        ["report", str(run.path), "--html", "-o", "report.html"],
        ["export", str(run.path), "--format", "csv", "-o", "csv"],
        ["export", str(run.path), "--format", "parquet", "-o", "parquet"],
        ["export", str(run.path), "--format", "chrome", "-o", "trace.json"],
        ["export", str(run.path), "--format", "otlp", "-o", "spans.jsonl"],
        ["ingest", str(run.artifacts), "-o", "strangers.duckdb"],
        ["ingest", str(run.artifacts), "--parquet", "share"],
        ["query", str(run.path), "FROM collection", "--json"],
    ):
        assert invoke(command) == 0, command
    said = capfd.readouterr()
    assert not PLANTED.search(said.out + said.err)
    ours = [run.database, *(path for path in tmp_path.rglob("*") if path.is_file())]
    written = [path for path in ours if not path.is_relative_to(run.path) or path == run.database]
    assert len(written) > 50
    for path in written:
        if path.suffix == ".parquet":
            texts = str(pq.read_table(path).to_pylist())
        else:
            texts = path.read_bytes().decode("latin-1")
        assert not PLANTED.search(texts), path


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "x {} y", '{{"a": "{}"}}', "[1,0]<stderr>:{}\n"])
def test_every_form_is_hidden_and_hinted(secret, around):
    text = around.format(secret)
    assert not PLANTED.search(redact(text)), redact(text)
    assert re.search(HINT, text)


@given(st.text(max_size=80), st.sampled_from(SECRETS), st.text(max_size=80))
def test_what_would_be_hidden_is_always_hinted(before, secret, after):
    for text in (before + after, before + secret + after):
        assert redact(text) == text or re.search(HINT, text)


@pytest.mark.parametrize(
    "name", ["first token latency 345", "decode token 128", "sample_tokens", "ProfilerStep#12",
             "void at::native::tokenize(int)", "task-clock", "disk-usage: 12%"],
)  # fmt: skip
def test_names_of_work_are_not_damaged(name):
    assert redact(name) == name
