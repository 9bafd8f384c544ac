"""`harness schema`."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.output import emit, emit_rows, format_options


@click.command("schema", epilog="Examples: `harness schema spans`; `harness schema run`")
@click.argument("name", required=False)
@format_options
def command(name: str | None, style: str) -> int:
    """Show the tables and views, the columns of one (NAME), or a specification's schema (`run`)."""
    from harness_analysis.views import load_views
    from harness_schemas.errors import UsageError
    from harness_schemas.tables import BY_NAME, TABLES

    views = {view.name: view for view in load_views()}
    if name is None:
        rows: list[tuple[Any, ...]] = [("view", view.name, view.doc) for view in views.values()]
        rows += [("table", table.name, table.doc) for table in TABLES]
        emit_rows(("kind", "name", "a row is"), rows, style)
    elif name == "run":
        emit(run_schema())
    elif name in views:
        emit_rows(("column", "meaning"), list(views[name].columns.items()), style)
    elif name in BY_NAME:
        columns = [(column.name, column.type, column.doc) for column in BY_NAME[name].columns]
        emit_rows(("column", "type", "meaning"), columns, style)
    else:
        raise UsageError(f"no table, view or schema {name!r}", "`harness schema` lists them")
    return 0


def run_schema() -> str:
    """JSON Schema of a run specification (schemas/json/run.schema.json)."""
    import json

    from harness_schemas.spec import RunSpec

    return json.dumps(RunSpec.model_json_schema(), indent=2)
