"""`harness schema`."""

from __future__ import annotations

import click

from harness.cli.options import format_options
from harness.cli.output import emit, emit_rows


@click.command(
    "schema",
    epilog="Examples: `harness schema spans`; `harness schema run`; "
    "`harness schema --markdown > docs/schema.md`",
)
@click.argument("name", required=False)
@format_options
def command(name: str | None, style: str) -> int:
    """Show the tables and views, the columns of one (NAME), or a specification's schema.

    NAME may be `run` or `sweep`: the JSON Schema of a specification, or of its table [sweep].

    Without NAME, --markdown writes the whole documentation, column by column.
    """
    from harness_analysis.documentation import describe, markdown
    from harness_schemas.errors import UsageError, meant

    if name in ("run", "sweep"):
        emit(run_schema() if name == "run" else sweep_schema())
        return 0
    relations = describe()
    if name is None and style == "markdown":
        emit(markdown(relations).rstrip("\n"))
        return 0
    if name is None:
        rows = [(relation.kind, relation.name, relation.doc) for relation in relations]
        emit_rows(("kind", "name", "a row is"), rows, style)
        return 0
    found = next((relation for relation in relations if relation.name == name), None)
    if found is None:
        near = meant(name, [relation.name for relation in relations])
        raise UsageError(f"no table, view or schema {name!r}{near}", "`harness schema` lists them")
    columns = [(column.name, column.type, column.doc) for column in found.columns]
    emit_rows(("column", "type", "meaning"), columns, style)
    return 0


def run_schema() -> str:
    """JSON Schema of a run specification (schemas/json/run.schema.json)."""
    import json

    from harness_schemas.spec import RunSpec

    return json.dumps(RunSpec.model_json_schema(), indent=2)


def sweep_schema() -> str:
    """JSON Schema of a specification's table [sweep]."""
    import json

    from harness_schemas.spec.sweep import SweepSpec

    return json.dumps(SweepSpec.model_json_schema(), indent=2)
