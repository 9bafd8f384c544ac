"""The database that the cookbook is shown on, and the page docs/cookbook.md.

`python tests/cookbook_run.py` writes the page anew.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))

import duckdb
from example_run import (
    LATE,
    batch,
    collector_rows,
    example_database,
    host_samples,
    overhead_rows,
    requests_and_tokens,
)

from harness.cli.printing.rows import render_rows
from harness_analysis.cookbook import AREAS, Question, load_questions
from harness_analysis.query import open_runs
from harness_schemas.spi import Batch

PAGE = Path(__file__).parents[1] / "docs" / "cookbook.md"
ROWS, PROMPTS = 4, 20 + 21 + 22 + 23
STEP_NS = 2_000_000
KV_BYTES, WEIGHTS, FLOPS = 2048, 6_299_648, 3_145_728

PLANNED = {
    "weights": 10_493_952,
    "KV cache": 2_048_000,
    "activations": 1_000_000,
    "process": 461_373_440,
}

HEAD = """# Cookbook

{count} questions with their queries, and the answers on one example: a simulated run of TP=2 x PP=2
on a CPU, 40 decode steps of four requests, in which rank 3 computes 0.4 ms longer in every layer.
Whatever it says of that is known beforehand, and the tests hold the answers to it.

```
harness query latest --example who-makes-others-wait     # ask one of them of your own run
harness query --list-examples                            # all of them
harness query 'runs/*' --example same-gpu --csv          # of many runs at once
```

The queries are files under `analysis/harness_analysis/cookbook/`. This page is written by
`python tests/cookbook_run.py`; a test fails where it is not current. What the columns mean:
[schema.md](schema.md).
"""


def cookbook_database(folder: Path) -> Path:
    """The example run with everything that questions ask for."""
    world = LATE.tp * LATE.pp
    more = (_facts(world), _steps(world), _floors(), _tuning())
    usual = (host_samples(world), collector_rows(), overhead_rows())
    tokens = requests_and_tokens(LATE, step_ns=STEP_NS)
    return example_database(folder, LATE, (*tokens, *usual, *more), bare=True)


def _facts(world: int) -> Batch:
    """What the runner states of every rank, and peaks as `generation.peaks` measures them."""
    rows = [
        {
            "rank": rank,
            "device": "cpu",
            "weights_bytes": 10_493_952,
            "memory_plan": json.dumps(PLANNED),
            "step_weight_bytes": WEIGHTS,
            "kv_bytes_per_token": KV_BYTES,
            "flops_per_token": FLOPS,
            "attention_flops_per_kv_token": 2048,
            "peak_bytes_per_s": 20e9,
            "peak_flops_per_s": 400e9,
            "peak_source": "measured",
        }
        for rank in range(world)
    ]
    return batch("ranks", rows)


def _steps(world: int) -> Batch:
    keys = {"batch": 0, "microbatch": 0, "repeat": 0, "warmup": False}
    rows = [
        {
            **keys,
            "rank": rank,
            "phase": "decode" if step else "prefill",
            "step": step,
            "batch_size": ROWS,
            "padded_batch": ROWS,
            "prefill_tokens": 0 if step else PROMPTS,
            "decode_tokens": ROWS if step else 0,
            "kv_tokens": PROMPTS + ROWS * step,
        }
        for rank in range(world)
        for step in range(LATE.steps + 1)
    ]
    return batch("steps", rows)


def _floors() -> Batch:
    row = {"source": "floors", "device": "cpu", "dtype": "float32", "implementation": "gloo"}
    sizes = ((1024, 9_000), (4096, 12_000), (65536, 40_000))
    rows = [
        {**row, "op": "all_reduce", "bytes": size, "group_size": 2, "calls": 512, "p10_ns": ns}
        | {"p50_ns": ns, "p90_ns": ns}
        for size, ns in sizes
    ]
    return batch("floors", rows)


def _tuning() -> Batch:
    rows = [
        {"op": "all_reduce", "bytes": 4096, "algo": "RING", "proto": "LL", "count": 246},
        {"op": "all_reduce", "bytes": 33554432, "algo": "NVLS", "proto": "SIMPLE", "count": 52},
    ]
    return batch("nccl_tuning", rows)


def page(database: Path) -> str:
    """docs/cookbook.md."""
    questions = load_questions()
    with open_runs([database]) as con:
        entries = {question.name: _entry(con, question) for question in questions}
    lines = [HEAD.format(count=len(questions))]
    for area, title in AREAS.items():
        of_area = [question for question in questions if question.area == area]
        lines += [f"## {title}", ""]
        lines += [f"- [{q.question}](#{_anchor(q.question)})" for q in of_area]
        lines += ["", *(entries[question.name] for question in of_area)]
    return "\n".join(lines)


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def _entry(con: duckdb.DuckDBPyConnection, question: Question) -> str:
    found = con.execute(question.sql)
    columns = [column[0] for column in found.description or ()]
    answer = render_rows(columns, found.fetchall()).rstrip()
    return (
        f"### {question.question}\n\n{question.reading} (`--example {question.name}`)\n\n"
        f"```sql\n{question.sql}\n```\n\n```\n{answer}\n```\n"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(page(cookbook_database(Path(folder))))
