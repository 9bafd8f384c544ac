"""From a specification and a grid to cells, in the order in which they are run. Pure."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.setup.specfile import set_key, spec_from
from harness_schemas.errors import SpecError, UsageError
from harness_schemas.spec import RunSpec
from harness_schemas.spec.sweep import SweepSpec

KEY_DIGITS = 12
UNADDRESSED = ("name", "output")
"""Keys that say where a run goes, not what it is."""


@dataclass(frozen=True)
class Cell:
    """One configuration of a sweep."""

    label: str
    """What differs from the other cells, as in `tp=2 batch_size=4`."""
    settings: Mapping[str, Any]
    """The varied keys with their values."""
    key: str
    """Address of the resolved specification: the same configuration has the same key."""
    spec: RunSpec


@dataclass(frozen=True)
class Item:
    """One run of a sweep: a cell, and which of its repeats, counted from 0."""

    cell: Cell
    repeat: int


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep consists of."""

    name: str
    sweep_id: str
    preset: str | None
    repeats: int
    cells: tuple[Cell, ...]
    source: str = ""
    """The specification's file, as it was named."""

    def items(self) -> Iterator[Item]:
        """Every run, interleaved: a slow hour of the machine meets all cells, not one."""
        for repeat in range(self.repeats):
            for cell in self.cells:
                yield Item(cell, repeat)


def plan_sweep(data: Mapping[str, Any], sweep: SweepSpec, source: Path) -> SweepPlan:
    """The cells of a sweep over the specification `data` (read from `source`).

    Raises:
        UsageError: the grid varies nothing that can be varied, or a preset lacks what it needs.
        SpecError: cells whose specification is wrong; all mistakes of all cells.
    """
    grid, points = _with_preset(data, sweep)
    if not grid and points == [{}]:
        raise UsageError(
            f"{source}: nothing to vary", "give --preset, --grid key=1,2 or a table [sweep]"
        )
    settings = [
        {**point, **dict(zip(grid, values, strict=True))}
        for point in points
        for values in itertools.product(*grid.values())
    ]
    cells, problems = [], []
    fewest = min((_ranks(data, found) for found in settings), default=1)
    names = _short_names({key for found in settings for key in found})
    for found in settings:
        if sweep.preset == "weak":
            found["prompts.limit"] = _weak_limit(data, found, fewest)
        label = " ".join(f"{names.get(key, key)}={_show(found[key])}" for key in found)
        try:
            cells.append(_cell(data, found, label, source))
        except SpecError as error:
            problems += [(f"[{label}] {path}", text) for path, text in error.problems]
    if problems:
        raise SpecError(str(source), list(dict.fromkeys(problems)))
    name = str(data.get("name") or source.stem)
    varied = sorted({key for found in settings for key in found})
    identity = _sweep_id(data, [name, sweep.preset, varied], varied)
    return SweepPlan(name, identity, sweep.preset, sweep.repeats, _distinct(cells), str(source))


def cell_key(spec: RunSpec) -> str:
    """The address of a resolved specification: equal where the same thing would be run."""
    resolved = spec.model_dump(mode="json")
    for name in UNADDRESSED:
        resolved.pop(name, None)
    resolved["launcher"].pop("port", None)
    return _digest(resolved)[:KEY_DIGITS]


def parse_grid(text: str) -> tuple[str, list[Any]]:
    """`key=1,2,4` as the key and its values, each read as TOML or else as a word.

    Raises:
        UsageError: no key, or no value.
    """
    import tomllib

    key, sign, raw = text.partition("=")
    if not sign or not key.strip() or not raw.strip():
        raise UsageError(
            f"--grid {text!r} is not key.path=value,value", "as in --grid parallel.tp=1,2"
        )
    try:
        return key.strip(), list(tomllib.loads(f"v = [{raw}]")["v"])
    except tomllib.TOMLDecodeError:
        return key.strip(), [_word(part.strip()) for part in raw.split(",")]


def _word(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _with_preset(
    data: Mapping[str, Any], sweep: SweepSpec
) -> tuple[dict[str, list[Any]], list[dict[str, Any]]]:
    grid = dict(sweep.grid)
    points = [dict(point) for point in sweep.points] or [{}]
    given = {*grid, *(key for point in points for key in point)}
    parallel = any(key.startswith("parallel.") for key in given)
    if sweep.preset in ("strong", "weak") and not parallel:
        grid = {f"parallel.{sweep.axis}": list(sweep.ranks), **grid}
    if sweep.preset == "batch" and "generation.batch_size" not in given:
        grid = {"generation.batch_size": list(sweep.batches), **grid}
    if sweep.preset in ("strong", "weak") and "prompts.limit" in given:
        raise UsageError(f"the preset {sweep.preset} sets prompts.limit; do not vary it")
    if sweep.preset == "batch":
        _check_batches(data, grid, points)
    return grid, points


def _check_batches(
    data: Mapping[str, Any], grid: Mapping[str, list[Any]], points: Sequence[Mapping[str, Any]]
) -> None:
    """A batch that the prompts cannot fill measures a smaller batch."""
    limit = (data.get("prompts") or {}).get("limit")
    key = "generation.batch_size"
    sizes = [*grid.get(key, []), *(point[key] for point in points if key in point)]
    partial = [size for size in sizes if isinstance(size, int) and limit and limit % size]
    if partial:
        raise UsageError(
            f"prompts.limit = {limit} does not fill batches of {', '.join(map(str, partial))}",
            "choose a multiple of every batch size: a batch that is not full is a smaller one",
        )


def _weak_limit(data: Mapping[str, Any], settings: Mapping[str, Any], fewest: int) -> int:
    limit = (data.get("prompts") or {}).get("limit")
    if not isinstance(limit, int):
        raise UsageError(
            "the preset weak needs prompts.limit: the prompts of the fewest ranks",
            "the other cells get proportionally more",
        )
    total = limit * _ranks(data, settings)
    if total % fewest:
        raise UsageError(
            f"prompts.limit = {limit} for {fewest} ranks does not scale to "
            f"{_ranks(data, settings)} ranks in whole prompts"
        )
    return total // fewest


def _ranks(data: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    parallel = data.get("parallel") or {}
    sizes = [settings.get(f"parallel.{name}", parallel.get(name, 1)) for name in ("tp", "pp")]
    return sizes[0] * sizes[1] if all(isinstance(size, int) for size in sizes) else 1


def _cell(data: Mapping[str, Any], settings: dict[str, Any], label: str, source: Path) -> Cell:
    changed = copy.deepcopy(dict(data))
    for key, value in settings.items():
        set_key(changed, key, value)
    spec = spec_from(changed, source)
    return Cell(label, settings, cell_key(spec), spec)


def _distinct(cells: list[Cell]) -> tuple[Cell, ...]:
    """A configuration that the grid names twice is run once."""
    return tuple({cell.key: cell for cell in reversed(cells)}[key] for key in _keys(cells))


def _keys(cells: list[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.key for cell in cells))


def _sweep_id(data: Mapping[str, Any], more: list[Any], varied: list[str]) -> str:
    """The same for a sweep with more values or repeats, so that it goes on in its folder."""
    base = copy.deepcopy(dict(data))
    for key in UNADDRESSED:
        base.pop(key, None)
    for key in varied:
        set_key(base, key, None)
    return _digest([base, *more])[:6]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _short_names(keys: set[str]) -> dict[str, str]:
    """The last part of each key, where that names one key only."""
    last = [key.rpartition(".")[2] for key in keys]
    return {
        key: short if last.count(short) == 1 else key
        for key in keys
        for short in [key.rpartition(".")[2]]
    }


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
