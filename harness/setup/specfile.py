"""Read a specification: TOML first, YAML and JSON accepted; every mistake at once."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from harness_schemas.errors import SpecError, UsageError, meant
from harness_schemas.spec import RunSpec


def load_spec(path: Path, overrides: Sequence[str] = ()) -> RunSpec:
    """The specification in `path`, with `key.path=value` overrides applied.

    Relative paths of model, prompts and image are taken from the specification's own folder.

    Raises:
        UsageError: unreadable, or not TOML, YAML or JSON.
        SpecError: mistakes in it, all of them.
    """
    data = read_spec(path, overrides)
    if "sweep" in data:
        raise UsageError(
            f"{path} describes a sweep", f"run it with `harness sweep {path}`, or remove [sweep]"
        )
    return spec_from(data, path)


def read_spec(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The keys in `path` with overrides applied, not validated yet.

    Raises:
        UsageError: unreadable, or not TOML, YAML or JSON.
    """
    data = _parse(path)
    for text in overrides:
        _override(data, text)
    return data


def spec_from(data: dict[str, Any], source: Path) -> RunSpec:
    """The specification that `data` describes; relative paths are taken from `source`'s folder.

    Raises:
        SpecError: mistakes in it, all of them.
    """
    try:
        spec = RunSpec.model_validate(data)
    except ValidationError as error:
        raise SpecError(str(source), problems_of(error)) from None
    return _resolve_paths(spec, source.resolve().parent)


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise UsageError(
            f"no specification {path}",
            "name a TOML, YAML or JSON file; `harness run -- COMMAND` wraps a command",
        ) from None
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a folder, not a specification", "name a TOML, YAML or JSON file in it"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text in UTF-8, so no specification") from None
    try:
        parse: Callable[[str], Any] = _PARSERS.get(path.suffix.lower(), tomllib.loads)
        data = parse(text)
    except ValueError as error:
        kind = path.suffix.lstrip(".").lower()
        if kind not in ("", "toml", "yaml", "yml", "json"):
            raise UsageError(
                f"{path} is no specification (TOML, YAML or JSON)",
                "a program is wrapped with `harness run -- COMMAND`",
            ) from None
        raise UsageError(f"{path} is not valid {kind or 'toml'}: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path} does not hold a table of keys")
    return data


def _yaml(text: str) -> Any:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError("PyYAML is not installed; use TOML or JSON") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{getattr(error, 'problem', None) or error}{where}") from None


_PARSERS: dict[str, Callable[[str], Any]] = {".json": json.loads, ".yaml": _yaml, ".yml": _yaml}


def _override(data: dict[str, Any], text: str) -> None:
    key, sign, raw = text.partition("=")
    if not sign or not key:
        raise UsageError(f"--set {text!r} is not key.path=value", "as in --set parallel.tp=2")
    try:
        value = tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        value = raw
    set_key(data, key.strip(), value)


def set_key(data: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, with the tables on its way.

    Raises:
        UsageError: something on its way is not a table.
    """
    *parents, last = key.split(".")
    place = data
    for name in parents:
        child = place.setdefault(name, {})
        if not isinstance(child, dict):
            raise UsageError(f"cannot set {key}: {name} is not a table")
        place = child
    place[last] = value


def problems_of(error: ValidationError, table: Any = RunSpec) -> list[tuple[str, str]]:
    """Dotted path and sentence of every mistake; `table`: the class that refused."""
    return [
        (
            ".".join(str(part) for part in problem["loc"]),
            _unknown_key(problem["loc"], table)
            if problem["type"] == "extra_forbidden"
            else _sentence(problem["type"], problem["msg"], problem["input"]),
        )
        for problem in error.errors()
    ]


def _sentence(kind: str, message: str, given: Any) -> str:
    """Pydantic's message in our words, with what was given where that is one value."""
    if kind == "missing":
        return "is missing"
    if not message.startswith("Input should be "):
        return message.removeprefix("Value error, ")
    wanted = message.removeprefix("Input should be ")
    wanted = re.split(", unable to parse |, got | or instance of ", wanted)[0]
    for theirs, ours in (("valid integer", "whole number"), ("valid dictionary", "table")):
        wanted = wanted.replace(theirs, ours)
    wanted = wanted.replace("a valid ", "a ")
    shown = f", not {given!r}" if isinstance(given, str | int | float) else ""
    return f"must be {wanted}{shown}"


def _unknown_key(place: Sequence[int | str], table: Any) -> str:
    """That a key is unknown, with the key of its table that it resembles."""
    for part in place[:-1]:
        field = getattr(table, "model_fields", {}).get(part)
        kinds = () if field is None else (field.annotation, *get_args(field.annotation))
        table = next((kind for kind in kinds if hasattr(kind, "model_fields")), None)
    return f"unknown key{meant(str(place[-1]), getattr(table, 'model_fields', {}))}"


def _resolve_paths(spec: RunSpec, folder: Path) -> RunSpec:
    model, prompts = spec.model, spec.prompts
    if model.path is not None:
        model = model.model_copy(update={"path": str(folder / Path(model.path).expanduser())})
    if prompts.source != "shipped":
        source = str(folder / Path(prompts.source).expanduser())
        prompts = prompts.model_copy(update={"source": source})
    slurm = spec.slurm
    if slurm.container is not None:
        image = str(folder / Path(slurm.container).expanduser())
        slurm = slurm.model_copy(update={"container": image})
    return spec.model_copy(update={"model": model, "prompts": prompts, "slurm": slurm})
