"""The keys of work of a trace's rows, by the unit that each belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from harness_collectors.names.step_marks import SIZE_GROUPS
from harness_collectors.traces.columns import coded, texts
from harness_collectors.traces.units import Unit


class UnitKeys:
    """The keys of every unit of a trace, to be taken by rows."""

    def __init__(self, units: Sequence[Unit]) -> None:
        number = pa.int32()
        self._columns = {
            "batch": pa.array([unit.batch for unit in units], number),
            "microbatch": pa.array([unit.mark.microbatch for unit in units], number),
            "repeat": pa.array([unit.mark.repeat for unit in units], number),
            "step": pa.array([unit.step for unit in units], number),
            "warmup": pa.array([unit.mark.warmup for unit in units], pa.bool_()),
        }
        self._phase, self._phases = texts([unit.mark.phase for unit in units])

    def columns(self, unit: np.ndarray) -> dict[str, pa.Array]:
        """The keys of rows, given the index of their unit (-1: none)."""
        index = pa.array(unit, mask=unit < 0)
        keys = {name: values.take(index) for name, values in self._columns.items()}
        phase = np.where(unit >= 0, self._phase[unit], -1)
        return {**keys, "phase": coded(phase, self._phases)}


def step_rows(rank: int | None, units: Sequence[Unit]) -> list[dict[str, Any]]:
    """Rows of `steps` for units whose mark gives sizes."""
    return [
        {
            "rank": rank,
            "batch": unit.batch,
            "microbatch": unit.mark.microbatch,
            "repeat": unit.mark.repeat,
            "phase": unit.mark.phase,
            "step": unit.step,
            "warmup": unit.mark.warmup,
            **dict(zip(SIZE_GROUPS, unit.mark.sizes, strict=True)),
        }
        for unit in units
        if unit.mark.sizes
    ]
