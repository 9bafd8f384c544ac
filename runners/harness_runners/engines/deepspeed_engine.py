"""DeepSpeed AutoTP inside a stage, our own pipeline between the stages.

DeepSpeed's inference engine knows no pipeline, and takes its tensor-parallel group from two
places that must agree (an `mpu` object and `tensor_parallel.tp_group`, deepspeed 0.19
inference/engine.py): with only one of them the ranks silently keep whole layers or build a group
of the wrong ranks. The stage is on the meta device then, so only shapes are cut; each parameter
later reads its own slice of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import harness_probe as probe
from harness_runners.engines import BatchJob, Generated, OpenUnit, weights
from harness_runners.engines.facts import work_facts
from harness_runners.engines.kv_cache import StageCache
from harness_runners.engines.microbatch import MicroBatch, divide, pad_left
from harness_runners.engines.pipeline import Pipeline
from harness_runners.engines.sampling import Sampler
from harness_runners.engines.stage import Stage, build_stage, layer_windows
from harness_runners.files.staging import weights_on_node
from harness_runners.model.config import eos_tokens
from harness_runners.plan import RunPlan
from harness_runners.rank.groups import Groups, Place, layers_of
from harness_runners.rank.inject import make_injector


@dataclass(frozen=True)
class _StageGroup:
    """What DeepSpeed calls an mpu: it asks for the group that shares every layer."""

    group: Any
    rank: int
    size: int

    def get_model_parallel_group(self) -> Any:
        return self.group

    def get_model_parallel_rank(self) -> int:
        return self.rank

    def get_model_parallel_world_size(self) -> int:
        return self.size


class DeepSpeedEngine:
    """One rank of a tensor- and pipeline-parallel model (harness_runners.engines.Engine)."""

    def __init__(self, plan: RunPlan, place: Place, groups: Groups, device: torch.device) -> None:
        self._plan = plan
        self._place = place
        self._groups = groups
        self._device = device
        self._dtype: torch.dtype = getattr(torch, plan.dtype)
        self._folder = Path(plan.model.folder)
        self._eos = eos_tokens(self._folder)
        self._caches: list[StageCache] = []
        self._slots = 0
        self._captured: dict[tuple[int, int], MicroBatch] = {}
        self._pipeline: Pipeline | None = None

    def load(self) -> None:
        """Build the stage, let AutoTP cut it, and read this rank's slices."""
        place, layers = self._place, layers_of(self._plan, self._place)
        model = build_stage(self._folder, self._dtype, layers, place.is_first, place.is_last)
        model = self._cut_layers(model)
        if self._plan.model.weights == "random":
            weights.random_weights(model, self._plan.model.seed, self._place.tp_rank)
        else:
            self._read_weights(model)
        if model.config.tie_word_embeddings and place.tp == place.pp == 1:
            model.lm_head.weight = model.model.embed_tokens.weight
        weights.fresh_rotary(model, self._device)
        weights.check_loaded(model)
        probe.fact(**work_facts(model, layers))
        windows = layer_windows(model.config, sum(self._plan.layers))
        stage = Stage(model, layers, windows, place.is_first, place.is_last)
        injector = make_injector(self._plan.inject, place.rank, self._device)
        generation = self._plan.generation
        self._pipeline = Pipeline(
            stage,
            place,
            self._groups,
            generation.new_tokens,
            generation.instrument_every,
            injector,
        )

    def _read_weights(self, model: Any) -> None:
        with weights_on_node(self._plan.stage) as locate:
            skipped = weights.load_weights(model, self._folder, self._groups.tensor, locate)
        probe.fact(skipped_tensors=weights.skipped_by_owner(skipped, self._plan.layers))

    def _cut_layers(self, model: Any) -> Any:
        import deepspeed

        size = self._place.tp
        unit = _StageGroup(self._groups.tensor, self._place.tp_rank, size)
        engine = deepspeed.init_inference(
            model,
            config={
                "dtype": self._dtype,
                "replace_with_kernel_inject": False,
                "tensor_parallel": {"tp_size": size, "mpu": unit, "tp_group": unit.group},
            },
        )
        return engine.module

    def reserve(self, jobs: Sequence[BatchJob]) -> None:
        """Allocate the caches of all micro-batches for the largest of the jobs, and in graph
        mode capture the decode step of every shape of micro-batch that they hold."""
        generation = self._plan.generation
        rows = max(len(job.requests) for job in jobs)
        longest = max(len(request.tokens) for job in jobs for request in job.requests)
        self._slots = longest + generation.new_tokens
        heads, head_dim = self._cache_shape()
        layers = layers_of(self._plan, self._place)
        self._caches = [
            StageCache(layers, len(part), heads, self._slots, head_dim, self._dtype, self._device)
            for part in divide(rows, generation.microbatches)
        ]
        if generation.mode == "graph":
            self._capture(sorted({len(job.requests) for job in jobs}, reverse=True))

    def _capture(self, sizes: Sequence[int]) -> None:
        assert self._pipeline is not None
        for size in sizes:
            for index, part in enumerate(divide(size, self._plan.generation.microbatches)):
                key = (index, len(part))
                if key not in self._captured:
                    microbatch = self._microbatch(index, part, self._slots)
                    self._pipeline.capture(microbatch)
                    self._captured[key] = microbatch

    def _microbatch(self, index: int, rows: range, num_slots: int) -> MicroBatch:
        """State for these rows: the captured one of their shape, or a new one."""
        captured = self._captured.get((index, len(rows)))
        cache = self._caches[index]
        if captured is not None:
            cache.resize(len(rows), self._slots)
            captured.rows = rows
            return captured
        generation = self._plan.generation
        stop_at = self._eos if generation.stop_at_eos else ()
        sampler = Sampler(len(rows), generation.new_tokens, stop_at, self._fill, self._device)
        cache.resize(len(rows), num_slots)
        return MicroBatch(index, rows, sampler, cache, num_slots)

    @property
    def _fill(self) -> int:
        return self._eos[0] if self._eos else 0

    def _cache_shape(self) -> tuple[int, int]:
        """KV heads of this rank and their size, from the layers as they were cut."""
        assert self._pipeline is not None
        layer = self._pipeline.stage.model.model.layers[layers_of(self._plan, self._place)[0]]
        head_dim = int(layer.self_attn.head_dim)
        return layer.self_attn.k_proj.weight.shape[0] // head_dim, head_dim

    def generate(self, job: BatchJob, open_unit: OpenUnit) -> Generated:
        """Decode a batch; every rank returns the same tokens."""
        assert self._pipeline is not None
        generation = self._plan.generation
        rows, pads = pad_left([request.tokens for request in job.requests], self._fill)
        num_slots = len(rows[0]) + generation.new_tokens
        microbatches = []
        for index, part in enumerate(divide(len(rows), generation.microbatches)):
            microbatch = self._microbatch(index, part, num_slots)
            tokens = torch.tensor([rows[row] for row in part], device=self._device)
            pad = torch.tensor([pads[row] for row in part], device=self._device)
            microbatch.begin(tokens, pad)
            microbatches.append(microbatch)
        stoppable = generation.stop_at_eos and bool(self._eos)
        generated: Generated = self._pipeline.run(job, microbatches, open_unit, stoppable)
        generated.tokens = torch.cat([microbatch.sampler.tokens for microbatch in microbatches])
        return generated

    def close(self) -> None:
        """Free the model and the caches."""
        self._pipeline = None
        for microbatch in self._captured.values():
            if microbatch.graph is not None:
                microbatch.graph.close()
                microbatch.graph = None
        self._captured = {}
        self._caches = []
