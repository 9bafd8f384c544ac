"""The run specification: what `harness run SPEC` accepts, with every key documented.

Only the harness itself imports this module; ranks are given plain JSON (`plan.json`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness_schemas.spec.slurm import SlurmSpec
from harness_schemas.units import parse_duration_ns

FILED_SHAPES = ("tiny-llama", "tiny-mistral", "tiny-qwen2", "small-llama")
"""Synthetic shapes small enough to be written to files; the others take random weights only."""
SyntheticShape = Literal[
    "tiny-llama",
    "tiny-mistral",
    "tiny-qwen2",
    "small-llama",
    "openllama-3b",
    "llama-3b",
    "llama-8b",
    "llama-70b",
]
Dtype = Literal["float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True)


class ModelSpec(_Section):
    """Which model: a local Hugging Face directory, or a synthetic one made on the spot."""

    path: str | None = Field(None, description="Local Hugging Face model directory.")
    synthetic: SyntheticShape | None = Field(
        None,
        description="Named shape with seeded weights, written once as sharded safetensors; "
        "its tokenizer is trained on the shipped prompts.",
    )
    weights: Literal["files", "random"] = Field(
        "files",
        description="`random`: made on the device, no files are read; for shapes of any size. "
        "Tokens then mean nothing and no reference is compared.",
    )
    seed: int = Field(0, description="Seed of synthetic weights.")
    layers: int | None = Field(
        None, ge=1, description="Decoder layers of a synthetic model; default: the shape's own."
    )
    checksums: bool = Field(
        False,
        description="Read all weight files before the ranks start and compare them with the "
        "checksums that came with them (SHA256SUMS, or what a Hugging Face download left).",
    )

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        if (self.path is None) == (self.synthetic is None):
            raise ValueError("give either `path` or `synthetic`")
        if self.synthetic not in (None, *FILED_SHAPES) and self.weights == "files":
            raise ValueError(f"{self.synthetic} is too large to be written: weights = 'random'")
        if self.checksums and (self.path is None or self.weights == "random"):
            raise ValueError("`checksums` are of files: they need `path`, and weights from files")
        return self


class PromptSpec(_Section):
    """Which prompts."""

    source: str = Field(
        "shipped",
        description="`shipped`, or a JSONL or Parquet file with a column `prompt` "
        "(optional: `id`, `variant`).",
    )
    variant: str | None = Field(
        "short", description="Keep the prompts of this variant: short, 2k or 4k in the shipped set."
    )
    limit: int | None = Field(None, ge=1, description="Use the first so many prompts.")
    override: bool = Field(False, description="Tokenise again even if the cache has the tokens.")


class ParallelSpec(_Section):
    """How the model is cut: tensor-parallel inside a stage, pipeline over stages."""

    tp: int = Field(1, ge=1, description="Ranks that share every layer of a stage.")
    pp: int = Field(1, ge=1, description="Pipeline stages.")
    layers: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, description="Decoder layers of each stage; default: balanced by parameter bytes."
    )

    @model_validator(mode="after")
    def _layers_match(self) -> ParallelSpec:
        if self.layers is not None and len(self.layers) != self.pp:
            raise ValueError(f"`layers` names {len(self.layers)} stages, `pp` is {self.pp}")
        return self


class GenerationSpec(_Section):
    """What is generated. Decoding is greedy."""

    batch_size: int = Field(1, ge=1, description="Prompts decoded together.")
    microbatches: int = Field(
        1, ge=1, description="Micro-batches of a batch that are in the pipeline at once."
    )
    new_tokens: int = Field(16, ge=1, description="Tokens to generate for each prompt, at most.")
    stop_at_eos: bool = Field(True, description="End a sequence at the end-of-sequence token.")
    seed: int = Field(0, description="Seed of everything random in the ranks.")
    warmup: int = Field(1, ge=0, description="Batches run first and left out of headline numbers.")
    repeats: int = Field(1, ge=1, description="Times the whole set of prompts is run.")
    mode: Literal["eager", "graph"] = Field(
        "eager", description="`graph` replays decode steps from a CUDA graph (GPU only)."
    )
    instrument_every: int = Field(
        32,
        ge=0,
        description="In graph mode every so many decode steps the graph with timing events "
        "inside is replayed, and its unit marked perturbed; 0: never.",
    )
    calibrate: int = Field(
        0,
        ge=0,
        description="Pairs of batches run with the recorder off and on, alternating, after the "
        "measured ones: what observing costs, with its 95 % interval (table `overhead`).",
    )
    calibrate_collectors: tuple[str, ...] = Field(
        (),
        description="Collectors that are also switched alone, in `calibrate` pairs each: those "
        "with rank hooks or samplers (torch_profiler, nvml, psutil).",
    )
    peaks: bool = Field(
        False,
        description="Measure what memory and arithmetic of each device reach, under a second "
        "at start-up: MBU and MFU (view `utilisation`) then rest on them.",
    )


class LauncherSpec(_Section):
    """How ranks are started."""

    kind: Literal["auto", "local", "slurm"] = Field(
        "auto",
        description="local: on this host. slurm: in the Slurm job that this runs in, else in one "
        "of its own (section slurm). auto: slurm inside a job, else local.",
    )
    port: int | None = Field(
        None, ge=1, le=65535, description="Rendezvous port; default: a free one."
    )
    timeout: str | None = Field(None, description="Stop the run after this long, as in 10min.")
    hang_timeout: str | None = Field(
        None,
        description="End the run, with the stacks of its ranks, when no rank makes progress for "
        "so long, as in 60s: verdict `hang`. Choose it longer than the ranks take to start.",
    )
    threads: int | None = Field(
        None, ge=1, description="CPU threads of each rank; default: cores divided by ranks."
    )

    @field_validator("timeout", "hang_timeout")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None and parse_duration_ns(value) <= 0:
            raise ValueError(f"{value!r} is no time at all")
        return value


class CheckSpec(_Section):
    """Comparison with a single-process reference."""

    reference: bool = Field(
        True, description="Compare greedy tokens and logits with plain transformers after the run."
    )
    limit: int = Field(4, ge=1, description="Prompts that are compared.")


class StageSpec(_Section):
    """The nodes' own disks, where the shared file system is slow. Folders may name variables of
    the job, as in $TMPDIR; nothing is staged where they are left out."""

    weights: str | None = Field(
        None,
        description="Folder of the node to which the weight files that its ranks read are copied "
        "first. A file that does not fit is read where it lies.",
    )
    keep: bool = Field(
        False, description="Leave the copies there, for the next run on the node (a sweep)."
    )
    spool: str | None = Field(
        None,
        description="Folder of the node in which ranks record; a process beside them brings "
        "their files to the run folder.",
    )
    every: str = Field(
        "10s", description="How often it does: what a node's death loses of its spans at most."
    )

    @field_validator("every")
    @classmethod
    def _duration(cls, value: str) -> str:
        parse_duration_ns(value)
        return value


class OutputSpec(_Section):
    """Where results go."""

    dir: str = Field("runs", description="Folder in which the run's folder is made.")


class InjectSpec(_Section):
    """A delay put into one rank on purpose, to test that it is found (harness run --inject)."""

    rank: int = Field(ge=0, description="Rank that is delayed.")
    delay: str = Field(description="How long, as in 250us or 2ms.")
    every: Literal["step", "layer"] = Field("step", description="Once a step, or once a layer.")
    where: Literal["host", "device"] = Field("host", description="Busy host or busy device.")

    @field_validator("delay")
    @classmethod
    def _duration(cls, value: str) -> str:
        parse_duration_ns(value)
        return value


class RunSpec(_Section):
    """A run: one configuration of one model, executed once."""

    name: str = Field("run", description="Name of the run; part of its folder's name.")
    runner: Literal["deepspeed"] = Field("deepspeed", description="Engine that runs the model.")
    dtype: Dtype = Field("float32", description="Type of weights and activations.")
    device: Device = Field("auto", description="Where the ranks compute.")
    model: ModelSpec
    prompts: PromptSpec = Field(default_factory=lambda: PromptSpec())
    parallel: ParallelSpec = Field(default_factory=lambda: ParallelSpec())
    generation: GenerationSpec = Field(default_factory=lambda: GenerationSpec())
    collectors: dict[str, bool | dict[str, Any]] = Field(
        default_factory=dict,
        description="Collectors by name: true, false, or a table of options. "
        "app_timers and psutil are on unless switched off; nvml and topology are on where "
        "a GPU is used.",
    )
    launcher: LauncherSpec = Field(default_factory=lambda: LauncherSpec())
    slurm: SlurmSpec = Field(default_factory=lambda: SlurmSpec())
    stage: StageSpec = Field(default_factory=lambda: StageSpec())
    check: CheckSpec = Field(default_factory=lambda: CheckSpec())
    output: OutputSpec = Field(default_factory=lambda: OutputSpec())
    inject: InjectSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> RunSpec:
        world = self.parallel.tp * self.parallel.pp
        if self.inject is not None and self.inject.rank >= world:
            raise ValueError(
                f"inject.rank is {self.inject.rank}, but tp {self.parallel.tp} x pp "
                f"{self.parallel.pp} has ranks 0 to {world - 1}"
            )
        if self.generation.microbatches > self.generation.batch_size:
            raise ValueError(
                f"generation.microbatches is {self.generation.microbatches}, more than "
                f"generation.batch_size {self.generation.batch_size}"
            )
        return self

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.parallel.tp * self.parallel.pp
