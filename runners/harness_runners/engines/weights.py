"""Fill a stage from safetensors: every parameter reads its own slice and nothing else."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import harness_probe as probe
from harness_runners.files.staging import Locate
from harness_runners.files.storage import storage_bytes_read, storage_bytes_since
from harness_runners.model.checkpoint import TensorEntry, read_header, tensor_files
from harness_schemas.errors import HarnessError, UsageError

TIED = {"lm_head.weight": "model.embed_tokens.weight"}


@dataclass(frozen=True)
class Cut:
    """The part of a checkpoint tensor that a parameter holds; `dim` None: all of it."""

    key: str
    entry: TensorEntry
    dim: int | None = None
    start: int = 0
    stop: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of the part."""
        count = 1
        for dim, size in enumerate(self.entry.shape):
            count *= self.stop - self.start if dim == self.dim else size
        return count * self.entry.element_bytes


def load_weights(
    model: nn.Module, folder: Path, tensor_group: Any, locate: Locate | None = None
) -> dict[str, Path]:
    """Read every parameter of a stage; returns the tensors it left alone, with their files.

    `locate` says where each file is to be read; all ranks call it.

    A tensor-parallel layer's parameter is smaller than its tensor along one dimension. Shards
    may be uneven, so where ours begins follows from the sizes that the other ranks hold.

    Raises:
        UsageError: the checkpoint lacks a tensor or its shape does not fit the model.
    """
    files = tensor_files(folder)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    keys = {name: _key(name, files) for name in parameters}
    entries: dict[str, TensorEntry] = {}
    needed = sorted({files[key] for key in keys.values()})
    places = locate(needed) if locate else {file: file for file in needed}
    for file in needed:
        entries.update(_read_header(places[file]))
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    peers, own = _gather_shapes(shapes, tensor_group)
    by_file: dict[Path, list[tuple[nn.Parameter, Cut]]] = {}
    for name, parameter in parameters.items():
        cut = _cut(keys[name], entries, [peer[name] for peer in peers], own)
        by_file.setdefault(cut.entry.file, []).append((parameter, cut))
    for file, wanted in sorted(by_file.items()):
        _read_file(file, wanted)
    return {name: file for name, file in files.items() if name not in keys.values()}


def _key(name: str, files: Mapping[str, Path]) -> str:
    """The tensor that a parameter is filled from."""
    for key in (name, TIED.get(name, name)):
        if key in files:
            return key
    raise UsageError(f"the checkpoint has no tensor {name}")


def _read_header(path: Path) -> dict[str, TensorEntry]:
    with probe.io("read", path) as file:
        file.note(part="header")
        return read_header(path)


def _gather_shapes(
    shapes: dict[str, tuple[int, ...]], group: Any
) -> tuple[list[dict[str, tuple[int, ...]]], int]:
    """The shapes on every TP rank, and which of them is this one."""
    import torch.distributed as dist

    size = dist.get_world_size(group)
    if size == 1:
        return [shapes], 0
    gathered: list[Any] = [None] * size
    dist.all_gather_object(gathered, shapes, group=group)
    return gathered, dist.get_rank(group)


def _cut(
    key: str, entries: Mapping[str, TensorEntry], shapes: list[tuple[int, ...]], own: int
) -> Cut:
    """The part of a tensor that this rank holds; `shapes`: of the parameter on all TP ranks."""
    entry = entries.get(key)
    if entry is None:
        raise UsageError(f"the checkpoint's index promises {key}, but its file does not hold it")
    mine = shapes[own]
    if mine == entry.shape:
        return Cut(key, entry)
    differing = [dim for dim, size in enumerate(entry.shape) if mine[dim : dim + 1] != (size,)]
    sizes = [shape[differing[0]] for shape in shapes] if len(mine) == len(entry.shape) else []
    if len(differing) != 1 or sum(sizes) != entry.shape[differing[0]]:
        raise UsageError(
            f"{key} has the shape {list(entry.shape)} in {entry.file.name}; "
            f"the model's config gives this rank {list(mine)}"
        )
    start = sum(sizes[:own])
    return Cut(key, entry, differing[0], start, start + sizes[own])


def _read_file(path: Path, wanted: Iterable[tuple[nn.Parameter, Cut]]) -> None:
    from safetensors import safe_open

    before = storage_bytes_read()
    with probe.io("read", path) as file, safe_open(str(path), framework="pt") as tensors:
        for parameter, cut in wanted:
            view = tensors.get_slice(cut.key)
            part = view[:] if cut.dim is None else view[_index(cut)]
            # The slice is a view of the mapped file: this copy is what reads it.
            parameter.data.copy_(part)
            file.add(cut.num_bytes)
        file.note(storage_bytes=storage_bytes_since(before))


def _index(cut: Cut) -> tuple[slice, ...]:
    part = slice(cut.start, cut.stop)
    return (part,) if cut.dim == 0 else (slice(None), part)


def random_weights(model: nn.Module, seed: int, tp_rank: int) -> None:
    """Fill a stage on its device with small random numbers; norms are one.

    A parameter's stream depends on its name, so replicated ones agree over TP ranks; those that
    tensor parallelism cuts also depend on the rank.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        generator = torch.Generator(parameter.device)
        replicated = name.endswith("embed_tokens.weight")
        own = zlib.crc32(name.encode()) + (0 if replicated else 1_000_003 * tp_rank)
        generator.manual_seed(seed * 2_000_003 + own)
        parameter.data.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)


def check_loaded(model: nn.Module) -> None:
    """Every parameter and buffer is real.

    Raises:
        HarnessError: something is still on the meta device.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    left = [name for name, tensor in tensors if tensor.is_meta]
    if left:
        raise HarnessError(f"{len(left)} tensors were never loaded, the first is {left[0]}")


def weights_bytes(model: nn.Module) -> int:
    """Bytes of all parameters, shared ones once."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def skipped_by_owner(skipped: Iterable[str], layers: tuple[int, ...]) -> dict[str, int]:
    """How many tensors this rank left to whom: `stage 1`, or `nobody` for unknown names."""
    counts: dict[str, int] = {}
    for key in skipped:
        owner = _owner(key, layers)
        counts[owner] = counts.get(owner, 0) + 1
    return counts


def _owner(key: str, layers: tuple[int, ...]) -> str:
    if key.startswith("model.layers."):
        index, stage = int(key.split(".")[2]), 0
        while stage < len(layers) and index >= layers[stage]:
            index -= layers[stage]
            stage += 1
        return f"stage {stage}" if stage < len(layers) else "nobody"
    if key == "model.embed_tokens.weight":
        return "stage 0"
    if key in ("model.norm.weight", "lm_head.weight"):
        return f"stage {len(layers) - 1}"
    return "nobody"


def fresh_rotary(model: nn.Module, device: torch.device) -> None:
    """Replace the rotary embedding: its buffers are computed, not stored, and stay float32."""
    body: Any = model.model
    with torch.device("cpu"):
        rotary = type(body.rotary_emb)(config=model.config)
    body.rotary_emb = rotary.to(device)
