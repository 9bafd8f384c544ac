"""What is to be planned: read from a specification, or from options and a model's config.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness_runners.capacity.hardware import Card, Links, find_card
from harness_runners.capacity.memory import Workload
from harness_runners.capacity.shards import DTYPE_BYTES
from harness_runners.capacity.split import Layout, make_layout
from harness_runners.model.shape import Shape, load_shape
from harness_schemas.errors import UsageError

if TYPE_CHECKING:
    from harness_schemas.spec import RunSpec

DEFAULT_CARD = "h100-80g"
LOOPBACK = 5e9
"""Assumed bytes/s between processes of one host through its sockets."""
TOKENS_A_CHARACTER = 1 / 3
"""Where no tokenizer has counted: English text has a token every three to four characters."""


@dataclass(frozen=True)
class Options:
    """What the command line says; None: not said."""

    tp: int | None = None
    pp: int | None = None
    layers: tuple[int, ...] | None = None
    batch: int | None = None
    microbatches: int | None = None
    context: int | None = None
    prompt: int | None = None
    dtype: str | None = None
    kv_dtype: str | None = None
    gpu: str | None = None
    gpus_per_node: int | None = None


@dataclass(frozen=True)
class Request:
    """A model, a workload and a machine. `layout` None: a split is to be suggested.

    `card` None: a CPU, whose memory and peaks no datasheet says.
    """

    shape: Shape
    work: Workload
    layout: Layout | None
    card: Card | None
    links: Links
    notes: tuple[str, ...] = ()


def from_config(source: str, options: Options) -> Request:
    """A plan of any model: `source` is a shipped shape, a config.json or its folder.

    Raises:
        UsageError: a model, card or split that there is not.
    """
    shape = load_shape(source)
    context = options.context or min(4096, shape.max_positions or 4096)
    dtype = options.dtype or (shape.dtype if shape.dtype in DTYPE_BYTES else "bfloat16")
    work = Workload(
        batch=options.batch or 1,
        context=context,
        prompt=options.prompt or max(1, context // 2),
        microbatches=options.microbatches or 1,
        dtype=dtype,
        kv_dtype=options.kv_dtype or dtype,
    )
    notes = () if options.prompt else (f"half of the context is taken as prompt ({work.prompt})",)
    layout = None
    if options.tp or options.pp or options.layers:
        stages = options.pp or (len(options.layers) if options.layers else 1)
        layout = make_layout(shape, options.tp or 1, stages, options.layers)
    return _checked(
        Request(shape, work, layout, *_machine(options, "cuda"), (*shape.notes, *notes))
    )


def from_spec(spec: RunSpec, options: Options) -> Request:
    """A plan of a specification; options override it. The model need not have been made yet.

    Raises:
        UsageError: a model that cannot be read, a card or split that there is not.
    """
    from harness_runners.plan import resolve_device

    device = "cuda" if options.gpu else _device(resolve_device, spec.device)
    shape = spec_shape(spec)
    prompt, counted = (options.prompt, "") if options.prompt else prompt_tokens(spec)
    generation, parallel = spec.generation, spec.parallel
    dtype = options.dtype or spec.dtype
    work = Workload(
        batch=options.batch or generation.batch_size,
        context=options.context or prompt + generation.new_tokens,
        prompt=prompt,
        microbatches=options.microbatches or generation.microbatches,
        dtype=dtype,
        kv_dtype=options.kv_dtype or dtype,
        windowed=False,
        device=device,
    )
    tp, pp = options.tp or parallel.tp, options.pp or parallel.pp
    layers = options.layers or (parallel.layers if pp == parallel.pp else None)
    layout = make_layout(shape, tp, pp, layers)
    notes = (*shape.notes, *((counted,) if counted else ()))
    return _checked(Request(shape, work, layout, *_machine(options, device), notes))


def _device(resolve: Any, wanted: str) -> str:
    """The plan of a GPU run can be made where there is none."""
    return "cuda" if wanted == "cuda" else str(resolve(wanted))


def _machine(options: Options, device: str) -> tuple[Card | None, Links]:
    per_node = options.gpus_per_node or 8
    if device == "cpu":
        return None, Links(LOOPBACK, per_node)
    card = find_card(options.gpu or DEFAULT_CARD)
    return card, Links(card.peer_bandwidth, per_node)


def _checked(request: Request) -> Request:
    """Raise UsageError for what cannot be; or note it where only the model says no."""
    work, shape = request.work, request.shape
    if work.prompt > work.context:
        raise UsageError(f"{work.prompt} prompt tokens exceed the context of {work.context}")
    most = shape.max_positions
    if most and work.context > most:
        note = f"the context of {work.context:,} exceeds the model's {most:,} positions"
        return replace(request, notes=(*request.notes, note))
    return request


def spec_shape(spec: RunSpec) -> Shape:
    """The shape of a specification's model, also before it has been made.

    Raises:
        UsageError: the model directory holds no usable config.json.
    """
    from harness_runners.plan import plan_model, planned_shape

    if spec.model.synthetic is None:
        return load_shape(str(spec.model.path))
    # Random weights exist in the run's own type, whatever the published shape says.
    return replace(planned_shape(plan_model(spec)), dtype=spec.dtype)


def prompt_tokens(spec: RunSpec) -> tuple[int, str]:
    """Tokens of the longest prompt, and a sentence where they are an estimate.

    Raises:
        UsageError: the prompts cannot be read.
    """
    from harness_runners import prompts
    from harness_runners.files import cache
    from harness_runners.plan import plan_model, plan_prompts

    texts = prompts.read_prompts(plan_prompts(spec))
    file = prompts.token_file(cache.cache_dir(), Path(plan_model(spec).folder), texts)
    if file.exists():
        return max(len(request.tokens) for request in prompts.read_tokens(file)), ""
    longest = max(len(prompt.text) for prompt in texts)
    tokens = max(1, round(longest * TOKENS_A_CHARACTER))
    return tokens, f"prompt length estimated from {longest:,} characters; --prompt says it"


def parse_layers(text: str | None) -> tuple[int, ...] | None:
    """`27,26,27` as numbers.

    Raises:
        UsageError: anything else.
    """
    if not text:
        return None
    parts: Sequence[str] = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise UsageError(f"{text!r} is not a list of layers such as 27,26,27")
    return tuple(int(part) for part in parts)
