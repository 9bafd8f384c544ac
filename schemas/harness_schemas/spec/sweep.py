"""The table `[sweep]` of a specification: which keys `harness sweep` varies, and how often."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Preset = Literal["strong", "weak", "batch"]


class SweepSpec(BaseModel):
    """A grid over keys of the specification, repeated."""

    model_config = ConfigDict(extra="forbid")

    preset: Preset | None = Field(
        None,
        description="strong: fixed prompts over more ranks; weak: prompts proportional to the "
        "ranks (prompts.limit is that of the fewest); batch: the same prompts in larger batches.",
    )
    ranks: list[Annotated[int, Field(ge=1)]] = Field(
        [1, 2, 4], min_length=1, description="Ranks of the presets strong and weak."
    )
    axis: Literal["tp", "pp"] = Field(
        "tp",
        description="What strong and weak increase with the ranks; without effect where the "
        "grid or the points set a key of [parallel].",
    )
    batches: list[Annotated[int, Field(ge=1)]] = Field(
        [1, 2, 4], min_length=1, description="Batch sizes of the preset batch."
    )
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(
        default_factory=dict,
        description='Values of dotted keys, as in "parallel.tp" = [1, 2]; every combination.',
    )
    points: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Keys that change together: a table of dotted keys a point, each combined "
        "with the whole grid.",
    )
    repeats: int = Field(
        1, ge=1, description="Times every cell is run: first all cells once, then all again."
    )
    budget_gpuh: float | None = Field(
        None, gt=0, description="Refuse to start more estimated GPU-hours than this."
    )
