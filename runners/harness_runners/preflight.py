"""Find a specification's mistakes before anything is started: files, shapes, prompts.

Reads headers and text only; imports neither torch nor transformers; well under a second.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness_runners import plan, prompts
from harness_runners.files import cache
from harness_runners.model.checkpoint import read_checkpoint
from harness_runners.model.convert import bin_files
from harness_runners.model.shape import Shape
from harness_schemas.errors import UsageError

if TYPE_CHECKING:
    from harness_schemas.spec import RunSpec

Problem = tuple[str, str]
"""Dotted path of a key of the specification, and a sentence."""

RANK_PACKAGES = ("torch", "deepspeed", "transformers", "safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def preflight(spec: RunSpec) -> list[Problem]:
    """Everything that is wrong with a specification on this machine; empty: it can run."""
    # In a container the packages are the image's, which its own test has looked at.
    problems = [] if spec.slurm.container else [*_packages()]
    problems += _device(spec)
    problems += _model_files(spec)
    problems += _stage(spec)
    try:
        model = plan.plan_model(spec)
        shape = plan.planned_shape(model)
    except UsageError as error:
        if Path(spec.model.path or "").is_dir():
            problems.append(("model.path", error.message))
        return _once(problems + _prompts(spec, None, None))
    problems += _parallel(spec, shape)
    problems += _prompts(spec, Path(model.folder), shape)
    return _once(problems)


def _once(problems: list[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))


def _packages() -> Iterator[Problem]:
    """What the ranks import; looked for without importing it."""
    missing = [name for name in RANK_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        what = ", ".join(missing)
        yield "runner", f"{what} not installed here; pip install 'inference-harness[run]'"


def _device(spec: RunSpec) -> Iterator[Problem]:
    try:
        device = plan.resolve_device(spec.device)
    except UsageError as error:
        yield "device", error.message
        return
    inject, graph = spec.inject, spec.generation.mode == "graph"
    if device == "cpu" and graph:
        yield "generation.mode", "graph replays CUDA graphs, and the device is cpu"
    if device == "cpu" and inject is not None and inject.where == "device":
        yield "inject.where", "device keeps a GPU busy, and the device is cpu"
    if graph and inject is not None and inject.where == "host" and inject.every == "layer":
        yield (
            "inject.every",
            "the host does nothing a layer in a graph: delay the device, or a step",
        )


def _model_files(spec: RunSpec) -> Iterator[Problem]:
    """Weights and tokenizer of a model directory; a synthetic model cannot be wrong."""
    if spec.model.path is None:
        return
    folder = Path(spec.model.path)
    if not folder.is_dir():
        yield "model.path", f"{folder} is no folder"
        return
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        yield "model.path", f"{folder} holds no tokenizer ({', '.join(TOKENIZER_FILES)})"
    try:
        if spec.model.weights == "random":
            return
        if plan.needs_conversion(folder):
            bin_files(folder)
        else:
            read_checkpoint(folder)
    except UsageError as error:
        yield "model.path", error.message


def _stage(spec: RunSpec) -> Iterator[Problem]:
    """Folders of the node: named from the root, all their variables set."""
    for key, text in (("weights", spec.stage.weights), ("spool", spec.stage.spool)):
        folder = plan.node_folder(text) if text is not None else "/"
        if not folder.startswith("/") or "$" in folder:
            yield f"stage.{key}", f"{folder} is no folder of this node: is its variable set here?"


def _parallel(spec: RunSpec, shape: Shape) -> Iterator[Problem]:
    tp, pp, layers = spec.parallel.tp, spec.parallel.pp, spec.parallel.layers
    if pp > shape.layers:
        yield "parallel.pp", f"{pp} stages, but the model has {shape.layers} layers"
    if layers is not None and sum(layers) != shape.layers:
        yield "parallel.layers", f"they add up to {sum(layers)}, the model has {shape.layers}"
    if tp > shape.kv_heads:
        yield (
            "parallel.tp",
            f"{tp} ranks share a layer, but the model has {shape.kv_heads} key/value heads: "
            f"some ranks would hold none; use tp {shape.kv_heads} or less and more stages",
        )
        return
    for count, what in ((shape.heads, "attention heads"), (shape.kv_heads, "key/value heads")):
        if count % tp:
            yield "parallel.tp", f"{count} {what} cannot be divided among {tp} ranks"


def _prompts(spec: RunSpec, folder: Path | None, shape: Shape | None) -> list[Problem]:
    prompt_plan = plan.plan_prompts(spec)
    try:
        texts = prompts.read_prompts(prompt_plan)
    except prompts.PromptErrors as error:
        return [("prompts.source", problem) for problem in error.problems]
    except UsageError as error:
        return [("prompts.source", error.message)]
    if folder is None or shape is None or not folder.is_dir():
        return []
    # Only where an earlier run has counted the tokens: loading a tokenizer takes seconds.
    file = prompts.token_file(cache.cache_dir(), folder, texts)
    if prompt_plan.override or not file.exists():
        return []
    requests = prompts.read_tokens(file)
    sentences = prompts.too_long(requests, shape.max_positions, spec.generation.new_tokens)
    return [("prompts", sentence) for sentence in sentences]
