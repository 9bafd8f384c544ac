"""Plans for real ranks, and one set of processes that runs them all."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from harness_runners.model import synthetic
from harness_runners.model.config import read_shape
from harness_runners.plan import GenerationPlan, ModelPlan, PromptPlan, RunPlan
from harness_runners.prepare import make_synthetic
from harness_schemas.rundir import RunDir

RANKS = Path(__file__).with_name("ranks.py")
PROMPTS = [
    "Which rivers and seas form the natural boundaries of Mesopotamia, and why did farming there "
    "depend on irrigation?",
    "Name a star.",
    "Tell the life story of a star with the mass of our Sun, from the collapse of a cloud of gas "
    "to the white dwarf that is left, and say what holds it up against its own weight on the way.",
    "Why is the sky dark at night?",
]
NEW_TOKENS = 32


def make_model(folder, shape, layers=4, **changes):
    """A synthetic model of a shape in its own folder; MLP shards are uneven (688 = 320 + 368)."""
    config = {**synthetic.synthetic_config(shape, layers), "intermediate_size": 688, **changes}
    make_synthetic(folder, ModelPlan(str(folder), synthetic=shape, config=config, seed=1))
    return folder


def make_plan(
    folder, model, tp=1, layers=None, dtype="float32", prompts=3, check_prompts=None, **generation
):
    """A run folder with a plan for a model; prompts come from a file beside it."""
    layers = layers or (read_shape(model).layers,)
    run = RunDir(folder)
    for path in (run.spans, run.logs, run.artifacts, run.completions):
        path.mkdir(parents=True)
    source = folder / "prompts.jsonl"
    lines = [json.dumps({"id": f"p{i}", "prompt": text}) for i, text in enumerate(PROMPTS)]
    source.write_text("\n".join(lines))
    settings = {"batch_size": 3, "new_tokens": NEW_TOKENS, "warmup": 0, **generation}
    plan = RunPlan(
        run_dir=str(folder),
        cache_dir=str(folder.parent / "cache"),
        model=ModelPlan(str(model), source=str(model)),
        layers=tuple(layers),
        tp=tp,
        dtype=dtype,
        prompts=PromptPlan(str(source), None, prompts),
        generation=GenerationPlan(**settings),
        check_prompts=prompts if check_prompts is None else check_prompts,
        threads=1,
    )
    plan.write()
    return plan


def job(plan, mutation=None):
    return {"plan": str(plan.run.plan_json), "world": plan.world_size, "mutation": mutation}


def run_jobs(folder, jobs, timeout=240):
    """Run all jobs in order in as many processes as the largest needs; fails with their errors."""
    file = folder / "jobs.json"
    ports = iter(free_ports(len(jobs)))
    file.write_text(json.dumps([{**item, "port": next(ports)} for item in jobs]))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    ranks = []
    for rank in range(max(item["world"] for item in jobs)):
        with (folder / f"rank-{rank}.log").open("wb") as log:
            command = [sys.executable, str(RANKS), str(file), str(rank)]
            ranks.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
    try:
        codes = [rank.wait(timeout) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    logs = [(folder / f"rank-{rank}.log").read_text()[-3000:] for rank in range(len(ranks))]
    assert not any(codes), "\n".join(log for code, log in zip(codes, logs, strict=True) if code)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def completions(plan):
    """{(id, repeat): tokens} of a run."""
    found = {}
    for file in plan.run.completions.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            found[row["id"], row["repeat"]] = row["tokens"]
    return found


def replaced(plan, **changes):
    return dataclasses.replace(plan, **changes)
