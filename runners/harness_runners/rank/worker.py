"""One rank: `python -m harness_runners.rank.worker --plan PLAN`, started by a launcher.

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
from typing import TYPE_CHECKING, Any

import harness_probe as probe
from harness_runners import prompts
from harness_runners.capacity import peaks
from harness_runners.capacity.of_run import memory_plan
from harness_runners.engines import BatchJob, Engine
from harness_runners.files import staging
from harness_runners.model.config import read_shape
from harness_runners.plan import RunPlan
from harness_runners.prompts import Request
from harness_runners.rank import process as rank_process
from harness_runners.rank.clock_exchange import ClockExchange
from harness_runners.rank.groups import Groups, Place, layers_of, make_groups
from harness_runners.rank.process import RankEnv
from harness_runners.rank.results import Writer
from harness_runners.rank.units import Hooks, Units
from harness_schemas.errors import HarnessError, UsageError
from harness_schemas.vocabulary import CALIBRATE_OFF, CALIBRATE_ON

if TYPE_CHECKING:
    from harness_runners.rank.telemetry import Telemetry

WARMUP_REPEAT = -1
"""`repeat` of warm-up batches: the measured repeats count from 0."""


def main(argv: list[str] | None = None) -> int:
    """Run one rank to its end; the process exits with 0, 1, or 2 for a user's mistake."""
    parser = argparse.ArgumentParser(prog="harness_runners.rank.worker", description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the run")
    try:
        plan, env = RunPlan.read(parser.parse_args(argv).plan), RankEnv.read()
    except HarnessError as error:  # before the rank has a log of its own
        sys.stderr.write(f"harness: {error.message}\n")
        return error.exit_code
    rank_process.redirect_output(plan.run, env.rank)
    rank_process.watch_signals()
    folder, refused = staging.spool_folder(plan)
    probe.start(folder, env.rank, env.world_size, env.local_rank)
    if refused:
        probe.collection("stage_spool", "degraded", refused)
    units = Units()
    code = 0
    try:
        run_rank(plan, env, units)
    except BaseException as error:  # noqa: BLE001 (however a rank ends, it says why)
        code = rank_process.report_failure(env.rank, error)
    units.close()
    return rank_process.leave(code)


def run_rank(plan: RunPlan, env: RankEnv, units: Units) -> None:
    """Start up, tokenise, load, warm up, generate every batch, end."""
    with units.phase("startup"):
        rank = start_up(plan, env, units)
        if plan.generation.peaks:  # before the weights: its buffers need their room
            peaks.measure(rank.device, plan.dtype)
    with units.phase("preprocess"):
        requests, tokenizer = tokenise(plan, rank.place)
        jobs = list(make_jobs(plan, requests))
        lengths = (len(request.tokens) for request in requests)
        probe.fact(
            memory_plan=memory_plan(plan, rank.place, lengths), planned_requests=len(requests)
        )
        writer = Writer(plan, rank.place, units, tokenizer)
    with units.phase("load"):
        rank.engine.load()
    with units.phase("warmup"):
        rank.engine.reserve(jobs)
    for job in jobs:
        writer.begin(job)
        with units.recording(job):
            generated = rank.engine.generate(job, units.step)
        with units.phase("postprocess", job):
            writer.finish(job, generated)
            rank.clocks.exchange()
    with units.phase("postprocess"):
        peaks.state_memory(rank.device)
        rank.engine.close()
        units.stop_hooks()
        rank.leave_world()


@dataclass(frozen=True)
class Rank:
    """A rank that has joined its world."""

    place: Place
    groups: Groups
    engine: Engine
    clocks: ClockExchange
    device: Any

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
    started = time.monotonic_ns()
    from harness_runners.rank import backend

    device = backend.join_world(plan, env)
    place = Place(env.rank, plan.tp, plan.pp)
    groups = make_groups(place)
    units.hooks = Hooks(plan, env.rank)
    units.pauses = plan.run.paused if env.rank == 0 else None
    units.telemetry = make_telemetry(plan, env, started)
    layers = layers_of(plan, place)
    probe.fact(
        tp_rank=place.tp_rank,
        stage=place.stage,
        first_layer=layers[0],
        last_layer=layers[-1],
        **backend.device_facts(device),
        **peaks.datasheet(device, plan.dtype),
    )
    engine = backend.make_engine(plan, place, groups, device)
    clocks = ClockExchange(place.rank, device)
    clocks.exchange()
    return Rank(place, groups, engine, clocks, device)


def make_telemetry(plan: RunPlan, env: RankEnv, started_ns: int) -> Telemetry:
    """The rank's OpenTelemetry spans, below the session's own."""
    from harness_runners.rank.telemetry import Telemetry

    path = staging.spool_folder(plan)[0] / f"rank-{env.rank:05d}.otel.jsonl"
    return Telemetry(
        path,
        f"rank {env.rank}",
        started_ns,
        **{"harness.run_id": plan.run.run_id, "rank": env.rank},
    )


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
    requests = prompts.read_tokens(file)
    context = read_shape(folder).max_positions
    problems = prompts.too_long(requests, context, plan.generation.new_tokens)
    if problems:
        raise UsageError("\n".join(problems))
    return requests, tokenizer


def make_jobs(plan: RunPlan, requests: Sequence[Request]) -> Iterator[BatchJob]:
    """Every batch of the run in order: warm-up, the measured repeats, pairs that measure what
    observing costs, the correctness repeat."""
    generation = plan.generation
    cut = list(prompts.batches(requests, generation.batch_size))
    for index in range(generation.warmup):
        yield BatchJob(index, WARMUP_REPEAT, cut[index % len(cut)], warmup=True)
    for repeat in range(generation.repeats):
        for index, batch in enumerate(cut):
            yield BatchJob(index, repeat, batch)
    first = generation.repeats + 1
    for collector in ("", *generation.calibrate_collectors):
        yield from calibration_jobs(generation.calibrate, first, cut[0], collector)
        first += 2 * generation.calibrate
    checked = requests[: plan.check_prompts]
    for index, batch in enumerate(prompts.batches(checked, generation.batch_size)):
        yield BatchJob(
            index, generation.repeats, batch, perturbed_by="correctness", keep_logits=True
        )


def calibration_jobs(
    pairs: int, first_repeat: int, requests: Sequence[Request], collector: str = ""
) -> Iterator[BatchJob]:
    """The same batch twice a pair, recorder (or `collector` alone) off and on, the order
    alternating: what drifts favours neither."""
    of = f":{collector}" if collector else ""
    for pair in range(pairs):
        order = (CALIBRATE_OFF + of, CALIBRATE_ON + of)
        for place, state in enumerate(order if pair % 2 == 0 else reversed(order)):
            yield BatchJob(0, first_repeat + 2 * pair + place, requests, perturbed_by=state)


if __name__ == "__main__":
    sys.exit(main())
