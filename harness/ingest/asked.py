"""Collectors that a run was asked for and of which nothing came: said, with the reason."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import Any

from harness_schemas.errors import HarnessError
from harness_schemas.spi import Batch

LEFT_NOTHING = "it was asked for and left nothing"
NO_JOB = "this was no Slurm job, and only jobs are accounted for"


def with_silent(
    batches: Generator[Batch, None, None], run: Mapping[str, Any]
) -> Generator[Batch, None, None]:
    """The same batches, and a row of `collection` a collector that run.json asked for and that
    none of them tells of; `run` is empty where there was no run of ours."""
    told: set[str] = set()
    with contextlib.closing(batches):
        for batch in batches:
            if batch.table == "collection" and "collector" in batch.data.column_names:
                told.update(batch.data.column("collector").to_pylist())
            yield batch
    rows = list(_silent(run, told))
    if rows:
        import pyarrow as pa

        yield Batch("collection", pa.Table.from_pylist(rows))


def _silent(run: Mapping[str, Any], told: set[str]) -> Iterator[dict[str, str]]:
    ended = run.get("status") not in (None, "running", "submitted")
    if not ended or not isinstance(run.get("spec"), dict):
        return
    # Both import pydantic, which strangers' evidence never needs.
    from harness.setup.capture import wanted_collectors
    from harness_schemas.spec import RunSpec

    try:
        wanted = wanted_collectors(RunSpec.model_validate(run["spec"]), str(run.get("device")))
    except (HarnessError, ValueError):  # of another version, or with a plug-in that is not here
        return
    for name in wanted:
        if name not in told:
            no_job = name == "sacct" and not run.get("job_id")
            state, reason = ("skipped", NO_JOB) if no_job else ("failed", LEFT_NOTHING)
            yield {"collector": name, "state": state, "reason": reason}
