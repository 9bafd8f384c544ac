"""One rank: `python -m harness_runners.worker --plan PLAN`, started by a launcher.

Read `run_rank` for the order of a run. Everything that takes time lies inside a unit of work,
so that the rank's windows tile its timeline.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness_probe as probe
from harness_runners import prompts, rank_process, results
from harness_runners.engines import BatchJob, Engine
from harness_runners.groups import Groups, Place, layers_of, make_groups
from harness_runners.model_shape import eos_tokens, read_shape
from harness_runners.plan import RunPlan
from harness_runners.prompts import Request
from harness_runners.rank_process import RankEnv
from harness_runners.units import Hooks, Units
from harness_schemas.errors import UsageError

WARMUP_REPEAT = -1
"""`repeat` of warm-up batches: the measured repeats count from 0."""


def main(argv: list[str] | None = None) -> int:
    """Run one rank to its end; the process exits with 0, 1, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="harness_runners.worker", description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the run")
    plan = RunPlan.read(parser.parse_args(argv).plan)
    env = RankEnv.read()
    rank_process.redirect_output(plan.run, env.rank)
    rank_process.watch_signals()
    probe.start(plan.run.spans, env.rank, env.world_size, env.local_rank)
    try:
        run_rank(plan, env)
    except BaseException as error:  # noqa: BLE001 (every way to end is reported)
        rank_process.leave(rank_process.report_failure(env.rank, error))
    rank_process.leave(0)


def run_rank(plan: RunPlan, env: RankEnv) -> None:
    """Start up, tokenise, load, warm up, generate every batch, end."""
    units = Units()
    with units.phase("startup"):
        rank = start_up(plan, env, units)
    with units.phase("preprocess"):
        requests, tokenizer = tokenise(plan, rank.place)
        jobs = list(make_jobs(plan, requests))
        completions = rank.completions(tokenizer)
    with units.phase("load"):
        rank.engine.load()
    with units.phase("warmup"):
        rank.engine.reserve(jobs)
    arrivals: dict[int, int] = {}
    for job in jobs:
        probe.batch(job.index, [request.id for request in job.requests], repeat=job.repeat)
        started = time.monotonic_ns()
        arrival = arrivals.setdefault(job.repeat, started)
        generated = rank.engine.generate(job, units.step)
        with units.phase("postprocess", job):
            rank.finish(job, generated, (arrival, started), completions)
    with units.phase("postprocess"):
        rank.engine.close()
        if units.hooks is not None:
            units.hooks.stop()
        rank.leave_world()


@dataclass(frozen=True)
class Rank:
    """A rank that has joined its world."""

    plan: RunPlan
    place: Place
    groups: Groups
    engine: Engine
    eos: tuple[int, ...]

    @property
    def speaks(self) -> bool:
        """Whether this rank writes what the whole world knows: tokens, requests, completions."""
        return self.place.is_last and self.place.tp_rank == 0

    def completions(self, tokenizer: Any) -> results.Completions | None:
        """Where the speaking rank writes completions."""
        if not self.speaks:
            return None
        name = f"rank-{self.place.rank:05d}.jsonl"
        return results.Completions(self.plan.run.completions / name, tokenizer)

    def finish(
        self,
        job: BatchJob,
        generated: Any,
        times: tuple[int, int],
        completions: results.Completions | None,
    ) -> None:
        """Share a batch's tokens and record what it was."""
        tokens = results.share_tokens(generated, self.place)
        eos = self.eos if self.plan.generation.stop_at_eos else ()
        ran = max(unit.step for unit in generated.units) + 1
        lengths = [results.completion_length(row, eos, ran) for row in tokens]
        results.record_steps(job, generated.units, lengths, self.speaks)
        if self.speaks:
            results.record_requests(job, generated.units, lengths, times)
        if completions is not None and not job.warmup and job.perturbed_by is None:
            completions.add(job, tokens, lengths)

    def leave_world(self) -> None:
        """Wait for all ranks and take the process groups down."""
        import torch.distributed as dist

        dist.barrier()
        dist.destroy_process_group()


def start_up(plan: RunPlan, env: RankEnv, units: Units) -> Rank:
    """Import torch, join the world, make the groups and the engine.

    Raises:
        UsageError: the launcher started another number of ranks than the plan needs.
    """
    if env.world_size != plan.world_size:
        raise UsageError(
            f"tp {plan.tp} x pp {plan.pp} needs {plan.world_size} ranks, "
            f"the launcher started {env.world_size}"
        )
    from harness_runners import backend

    device = backend.join_world(plan, env)
    place = Place(env.rank, plan.tp, plan.pp)
    groups = make_groups(place)
    units.hooks = Hooks(plan, env.rank)
    layers = layers_of(plan, place)
    probe.fact(
        tp_rank=place.tp_rank,
        stage=place.stage,
        first_layer=layers[0],
        last_layer=layers[-1],
        **backend.device_facts(device),
    )
    engine = backend.make_engine(plan, place, groups, device)
    return Rank(plan, place, groups, engine, eos_tokens(Path(plan.model.folder)))


def tokenise(plan: RunPlan, place: Place) -> tuple[list[Request], Any]:
    """The run's requests on every rank; rank 0 makes their tokens where the cache has none.

    Also returns the tokenizer on the last stage's first rank, which writes the text.

    Raises:
        UsageError: a prompt is too long for the model.
    """
    import torch.distributed as dist

    folder, cache_dir = Path(plan.model.folder), Path(plan.cache_dir)
    texts = prompts.read_prompts(plan.prompts)
    file = prompts.token_file(cache_dir, folder, texts)
    makes = place.rank == 0 and (plan.prompts.override or not file.exists())
    tokenizer = None
    if makes or (place.is_last and place.tp_rank == 0):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if makes:
        made = [Request(p.id, tuple(tokenizer(p.text)["input_ids"])) for p in texts]  # type: ignore[misc]
        prompts.write_tokens(file, made)
    dist.barrier()
    with probe.io("read", file) as reading:
        requests = prompts.read_tokens(file)
        reading.add(file.stat().st_size)
    context = read_shape(folder).max_positions
    problems = prompts.too_long(requests, context, plan.generation.new_tokens)
    if problems:
        raise UsageError("\n".join(problems))
    return requests, tokenizer


def make_jobs(plan: RunPlan, requests: Sequence[Request]) -> Iterator[BatchJob]:
    """Every batch of the run in order: warm-up, the measured repeats, the correctness repeat."""
    generation = plan.generation
    cut = list(prompts.batches(requests, generation.batch_size))
    for index in range(generation.warmup):
        yield BatchJob(index, WARMUP_REPEAT, cut[index % len(cut)], warmup=True)
    for repeat in range(generation.repeats):
        for index, batch in enumerate(cut):
            yield BatchJob(index, repeat, batch)
    checked = requests[: plan.check_prompts]
    for index, batch in enumerate(prompts.batches(checked, generation.batch_size)):
        yield BatchJob(
            index, generation.repeats, batch, perturbed_by="correctness", keep_logits=True
        )


if __name__ == "__main__":
    sys.exit(main())
