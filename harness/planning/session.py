"""From the words of the command line to the tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.planning.measured import compare_section, read_peaks, run_floors
from harness.planning.request import Options, Request, from_config, from_spec
from harness.planning.tables import decide, plan_sections
from harness.runs import find_databases
from harness.sections import Section
from harness_analysis.store import open_database, require
from harness_runners.capacity.hardware import card_of_device, find_card, load_floors
from harness_schemas.errors import UsageError

if TYPE_CHECKING:
    from harness_schemas.spec import RunSpec

SPECIFICATIONS = (".toml", ".yaml", ".yml")


def make_sections(
    what: str | None, model: str | None, options: Options, measured: tuple[str, ...]
) -> list[Section]:
    """Tables of the plan of a specification, a model's config, or a run.

    Raises:
        UsageError: both or none is named, or what is named cannot be read.
    """
    if what is None and model is None:
        raise UsageError("nothing to plan", "name a specification, a run, or --model-config MODEL")
    if what is not None and model is not None:
        raise UsageError(f"{what} is one model, --model-config another", "name one of them")
    if model is not None:
        return plan_sections(decide(_measured(from_config(model, options), measured)))
    assert what is not None
    if _is_specification(Path(what)):
        return _of_specification(Path(what), options, measured)
    return _of_run(what, options, measured)


def _of_specification(path: Path, options: Options, measured: tuple[str, ...]) -> list[Section]:
    """The plan of a specification; of one that describes a sweep its cells, and the one that
    needs most."""
    from harness.planning.cells import cells_section, needs, sweep_cells
    from harness.setup.specfile import load_spec, read_spec

    data = read_spec(path)
    if "sweep" not in data:
        request = from_spec(load_spec(path), options)
        return plan_sections(decide(_measured(request, measured)))
    planned = [
        (cell, decide(_measured(from_spec(cell.spec, options), measured)))
        for cell in sweep_cells(data, path)
    ]
    return [cells_section(planned), *plan_sections(max((p for _, p in planned), key=needs))]


def _is_specification(path: Path) -> bool:
    if path.suffix.lower() in SPECIFICATIONS:
        return True
    return path.suffix.lower() == ".json" and path.is_file() and path.name != "run.json"


def _measured(request: Request, sources: tuple[str, ...]) -> Request:
    """The request with measured floors and peaks in place of assumed ones."""
    for source in sources:
        if Path(source).suffix == ".json":
            floors = load_floors(Path(source))
            request = replace(request, links=replace(request.links, floors=floors))
        else:
            request = _from_run(request, find_databases([source])[0])
    return request


def _from_run(request: Request, database: Path) -> Request:
    with open_database(database) as con:
        require(con, "ranks.peak_source")
        floors, peaks = run_floors(con), read_peaks(con)
    card = request.card
    if card is not None:
        card = card.measured(peaks.bandwidth, peaks.flops)
    links = replace(request.links, floors=floors) if floors else request.links
    return replace(request, card=card, links=links)


def _of_run(name: str, options: Options, measured: tuple[str, ...]) -> list[Section]:
    """The plan of a run's own specification, and what was measured beside it."""
    database = find_databases([name])[0]
    with open_database(database) as con:
        require(con, "ranks.peak_source", "run_summary")
        row = con.execute("SELECT spec, device FROM runs").fetchone()
        spec = _spec(row[0] if row else None)
        device = con.execute("SELECT any_value(gpu_name) FROM ranks").fetchone()
        prompt = con.execute("SELECT max(prompt_tokens) FROM requests").fetchone()
        if options.prompt is None and prompt and prompt[0]:
            options = replace(options, prompt=int(prompt[0]))
        card = card_of_device(device[0]) if device and device[0] else None
        if options.gpu is None and card is not None:
            options = replace(options, gpu=find_card(card.key).key)
        request = from_spec(spec, options)
        if row and row[1] == "cuda" and card is None and options.gpu is None:
            note = "the GPU is not among the cards: the default's figures are used"
            request = replace(request, notes=(*request.notes, note))
        request = _from_run(_measured(request, measured), database)
        plan = decide(request)
        return [compare_section(con, plan), *plan_sections(plan)]


def _spec(text: str | None) -> RunSpec:
    """The run's specification.

    Raises:
        UsageError: it has none: somebody else's evidence, or a wrapped command.
    """
    from pydantic import ValidationError

    from harness_schemas.spec import RunSpec

    data: Any = json.loads(text) if text else None
    try:
        return RunSpec.model_validate(data)
    except ValidationError:
        raise UsageError(
            "this run has no specification to plan from",
            "name its model with --model-config instead",
        ) from None
