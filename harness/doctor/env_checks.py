"""Checks of the environment on its way to the ranks: what srun, sbatch and containers cut off."""

from __future__ import annotations

from collections.abc import Iterator

from harness.doctor.check import Check, ok, warning
from harness.doctor.facts import Facts

_EXPORTS = ("SLURM_EXPORT_ENV", "SBATCH_EXPORT", "SRUN_EXPORT_ENV")
_CLEAN = (
    "APPTAINER_CLEANENV",
    "SINGULARITY_CLEANENV",
    "APPTAINER_CONTAINALL",
    "SINGULARITY_CONTAINALL",
)
_FALSE = ("", "0", "false", "no")
OURS = ("HARNESS_", "NCCL_", "TORCH_", "CUDA_", "OMP_", "TRACEPARENT", "PYTHONPATH")
"""Variables that a run hands to its ranks begin so."""


def env_checks(facts: Facts) -> Iterator[Check]:
    """Slurm's export, the container's cleaning, variables of the image, preloads."""
    yield _slurm_export(facts)
    yield _clean_env(facts)
    yield _image(facts)
    if facts.env.get("NCCL_DEBUG_FILE") and "%p" not in facts.env["NCCL_DEBUG_FILE"]:
        yield _one_file(facts)


def _slurm_export(facts: Facts) -> Check:
    name = "slurm export"
    for variable in _EXPORTS:
        value = facts.env.get(variable)
        if value is None:
            continue
        words = [word.strip() for word in value.split(",")]
        if words[0].upper() in ("NONE", "NIL"):
            return _cut(name, variable, value)
        if "ALL" not in (word.upper() for word in words):
            return _cut(name, variable, value)
    return ok(name, "srun hands the environment on")


def _cut(name: str, variable: str, value: str) -> Check:
    cost = (
        "the ranks do not get HARNESS_*, NCCL_* and TRACEPARENT: nothing is recorded in them, and "
        "no NCCL log is written"
    )
    mend = (
        f"`unset {variable}` in the job script (sbatch --export=NONE set it), or srun --export=ALL"
    )
    return warning(name, f"{variable}={value}", cost, mend)


def _clean_env(facts: Facts) -> Check:
    name = "container environment"
    set_ = [each for each in _CLEAN if facts.env.get(each, "").lower() not in _FALSE]
    if set_:
        cost = "the container's programs do not see HARNESS_* and NCCL_*: nothing is recorded"
        mend = (
            f"unset {set_[0]}, or hand them on one by one: APPTAINERENV_NAME=value, or "
            "`apptainer exec --env NAME=value`"
        )
        return warning(name, f"{set_[0]} is set (--cleanenv)", cost, mend)
    return ok(name, f"inside {facts.container}" if facts.container else "no container")


def _image(facts: Facts) -> Check:
    name = "image variables"
    ours = [each for each in facts.image_sets if each.startswith(OURS)]
    if not ours:
        return ok(name, "the image sets none that a run needs")
    cost = f"the image's own value of {', '.join(ours[:6])} outdoes the one a run sets"
    mend = f"take it out of the image's %environment, or set APPTAINERENV_{ours[0]}"
    return warning(name, ", ".join(ours[:6]), cost, mend)


def _one_file(facts: Facts) -> Check:
    found = f"NCCL_DEBUG_FILE={facts.env['NCCL_DEBUG_FILE']}"
    cost = "all ranks write one file, each over the others' lines"
    return warning("nccl debug file", found, cost, "name it with %h and %p, or unset it")
