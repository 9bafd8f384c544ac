"""What the ranks are told: the run specification resolved into plain data (`plan.json`).

Ranks read this file instead of the specification, so they need neither pydantic nor the
session's code, and every rank decides the same things from the same bytes.
"""

from __future__ import annotations

import importlib.metadata
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness_runners.capacity.split import make_layout
from harness_runners.files import cache
from harness_runners.model import checkpoint, synthetic, tokenizer
from harness_runners.model.config import read_shape
from harness_runners.model.shape import Shape, shape_of
from harness_schemas.errors import HarnessError, UsageError
from harness_schemas.rundir import RunDir, write_json
from harness_schemas.spi import RankHookSpec
from harness_schemas.units import parse_duration_ns

if TYPE_CHECKING:
    from harness_schemas.spec import RunSpec


@dataclass(frozen=True)
class ModelPlan:
    """Where the ranks read the model, and how it comes to be there.

    `source` is the user's directory, None for a synthetic model. `folder` is what ranks read:
    the source itself, or a folder of the cache that `harness_runners.prepare` fills.
    """

    folder: str
    source: str | None = None
    convert: bool = False
    synthetic: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    weights: str = "files"


@dataclass(frozen=True)
class PromptPlan:
    """Which prompts; see harness_schemas.spec.PromptSpec."""

    source: str = "shipped"
    variant: str | None = "short"
    limit: int | None = None
    override: bool = False


@dataclass(frozen=True)
class GenerationPlan:
    """What is generated; see harness_schemas.spec.GenerationSpec."""

    batch_size: int = 1
    microbatches: int = 1
    new_tokens: int = 16
    stop_at_eos: bool = True
    seed: int = 0
    warmup: int = 1
    repeats: int = 1
    mode: str = "eager"
    instrument_every: int = 32
    calibrate: int = 0
    calibrate_collectors: tuple[str, ...] = ()
    peaks: bool = False


@dataclass(frozen=True)
class InjectPlan:
    """A delay of `delay_ns` put into one rank on purpose, every step or layer."""

    rank: int
    delay_ns: int
    every: str = "step"
    where: str = "host"


@dataclass(frozen=True)
class HookPlan:
    """A rank hook, imported by name (harness_schemas.spi.RankHook)."""

    target: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StagePlan:
    """Folders of this run on every node's own disk; see harness_schemas.spec.StageSpec."""

    weights: str | None = None
    keep: bool = False
    spool: str | None = None


@dataclass(frozen=True)
class RunPlan:
    """Everything the ranks need. Rank = stage * tp + rank within the stage."""

    run_dir: str
    cache_dir: str
    model: ModelPlan
    layers: tuple[int, ...]
    tp: int = 1
    engine: str = "deepspeed"
    dtype: str = "float32"
    device: str = "cpu"
    prompts: PromptPlan = field(default_factory=PromptPlan)
    generation: GenerationPlan = field(default_factory=GenerationPlan)
    check_prompts: int = 0
    inject: InjectPlan | None = None
    hooks: tuple[HookPlan, ...] = ()
    threads: int | None = None
    strict: bool = False
    stage: StagePlan = field(default_factory=StagePlan)

    @property
    def pp(self) -> int:
        """Pipeline stages."""
        return len(self.layers)

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.tp * self.pp

    @property
    def run(self) -> RunDir:
        """The run folder."""
        return RunDir(Path(self.run_dir))

    def to_json(self) -> dict[str, Any]:
        """Plain data for plan.json."""
        return dict(msgspec.to_builtins(self))

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RunPlan:
        """The plan that `to_json` gave; raises msgspec.ValidationError for anything else."""
        return msgspec.convert(data, cls)

    def write(self) -> Path:
        """Write plan.json into the run folder and return its path."""
        write_json(self.run.plan_json, self.to_json())
        return self.run.plan_json

    @classmethod
    def read(cls, path: Path) -> RunPlan:
        """Read plan.json.

        Raises:
            HarnessError: it is missing or no plan.
        """
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise HarnessError(f"{path} is no plan: {error}") from None


def make_plan(
    spec: RunSpec, run: RunDir, hooks: tuple[RankHookSpec, ...] = (), strict: bool = False
) -> RunPlan:
    """Resolve a specification that `preflight` found no fault with. Imports no torch.

    Raises:
        UsageError: the model directory cannot be read.
    """
    model = plan_model(spec)
    parallel = spec.parallel
    layout = make_layout(planned_shape(model), parallel.tp, parallel.pp, parallel.layers)
    inject = spec.inject
    return RunPlan(
        run_dir=str(run.path.absolute()),
        cache_dir=str(cache.cache_dir()),
        model=model,
        layers=layout.layers,
        tp=layout.tp,
        engine=spec.runner,
        dtype=spec.dtype,
        device=resolve_device(spec.device),
        prompts=plan_prompts(spec),
        generation=GenerationPlan(**spec.generation.model_dump()),
        check_prompts=spec.check.limit if compares(spec) else 0,
        inject=None
        if inject is None
        else InjectPlan(inject.rank, parse_duration_ns(inject.delay), inject.every, inject.where),
        hooks=tuple(HookPlan(hook.target, dict(hook.options)) for hook in hooks),
        threads=spec.launcher.threads,
        strict=strict,
        stage=plan_stage(spec, model),
    )


def compares(spec: RunSpec) -> bool:
    """Whether a reference can be compared: random weights exist on no other machine."""
    return spec.check.reference and spec.model.weights == "files"


def planned_shape(model: ModelPlan) -> Shape:
    """The shape of the model that ranks will find, also before it has been made."""
    if model.synthetic is None:
        return read_shape(Path(model.source or model.folder))
    vocabulary = {"vocab_size": tokenizer.VOCABULARY} if model.weights == "files" else {}
    return shape_of({**model.config, **vocabulary}, model.synthetic)


def plan_model(spec: RunSpec) -> ModelPlan:
    """Where the model is or will be; writes nothing."""
    models = cache.cache_dir() / "models"
    if spec.model.synthetic is not None:
        name = spec.model.synthetic
        config = synthetic.synthetic_config(name, spec.model.layers)
        weights = spec.model.weights
        key = cache.content_key(
            synthetic.GENERATOR_VERSION, config, spec.model.seed, tokenizer.corpus_key(), weights
        )
        folder = models / f"{name}-{key}"
        seed = spec.model.seed
        return ModelPlan(str(folder), None, False, name, config, seed, weights)
    source = Path(spec.model.path or "").absolute()
    if spec.model.weights == "random" or not needs_conversion(source):
        return ModelPlan(str(source), source=str(source), weights=spec.model.weights)
    files = sorted(source.glob("*.bin")) + sorted(source.glob("*.json"))
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    folder = models / f"{source.name}-{cache.content_key(str(source), facts)}"
    return ModelPlan(str(folder), source=str(source), convert=True)


def needs_conversion(folder: Path) -> bool:
    """Whether a model directory holds only `.bin` weights, which are converted once."""
    safe = any((folder / name).exists() for name in (checkpoint.INDEX, checkpoint.SINGLE))
    names = (checkpoint.BIN_INDEX, checkpoint.BIN_SINGLE)
    return not safe and any((folder / name).exists() for name in names)


def plan_prompts(spec: RunSpec) -> PromptPlan:
    """Which prompts, with an absolute path."""
    source = spec.prompts.source
    if source != "shipped":
        source = str(Path(source).absolute())
    return PromptPlan(source, spec.prompts.variant, spec.prompts.limit, spec.prompts.override)


def plan_stage(spec: RunSpec, model: ModelPlan) -> StagePlan:
    """Folders of this run below those that the specification names, whose variables are this
    node's. Copies of one model are shared by runs; a spool is this run's alone."""
    stage, user = spec.stage, os.getuid()
    weights = spool = None
    if stage.weights is not None:
        key = cache.content_key(model.folder, _facts(Path(model.folder)))
        name = f"{Path(model.folder).name}-{key}"
        weights = f"{node_folder(stage.weights)}/harness-weights-{user}/{name}"
    if stage.spool is not None:
        spool = f"{node_folder(stage.spool)}/harness-spool-{user}-{secrets.token_hex(4)}"
    return StagePlan(weights, stage.keep, spool)


def node_folder(text: str) -> str:
    """A folder as a node has it: $VARIABLES and ~ replaced; those that are not set stay."""
    return os.path.expandvars(Path(text).expanduser())


def _facts(folder: Path) -> list[tuple[str, int, int]]:
    """What changes when the weights do; empty before a model is made."""
    files = sorted(folder.glob("*.safetensors"))
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def resolve_device(requested: str) -> str:
    """`cpu` or `cuda`; `auto` is cuda where there is a GPU that torch was built to use.

    Raises:
        UsageError: cuda was asked for and there is none.
    """
    has_gpu = Path("/dev/nvidiactl").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    if requested == "cuda" and not has_gpu:
        raise UsageError("device is cuda, but this machine has no NVIDIA driver", "use device cpu")
    if requested == "auto":
        return "cuda" if has_gpu and not _torch_is_cpu_only() else "cpu"
    return requested


def _torch_is_cpu_only() -> bool:
    """Whether the installed torch says so in its version, as in 2.9.0+cpu; it is not imported."""
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
