"""Which Python the ranks' programs run in: this one, or the one of a container image."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness_schemas.errors import SpecError
from harness_slurm.step import container

if TYPE_CHECKING:
    from harness_runners.plan import RunPlan
    from harness_schemas.spec import RunSpec

GATE = "harness.doctor.gate"


@dataclass(frozen=True)
class Interpreter:
    """`words` start Python; `gate` comes before a rank's and looks for the GPU's driver first."""

    words: tuple[str, ...] = (sys.executable,)
    gate: tuple[str, ...] = ()

    def module(self, name: str, *arguments: str) -> tuple[str, ...]:
        """Runs a module once, beside no rank."""
        return (*self.words, "-m", name, *arguments)

    def rank(self, name: str, *arguments: str) -> tuple[str, ...]:
        """Runs a module as a rank."""
        if not self.gate:
            return self.module(name, *arguments)
        own = self.words[-len(container.PYTHON) :] if self.contained else self.words
        return (*self.words, *self.gate, *own, "-m", name, *arguments)

    @property
    def contained(self) -> bool:
        """Whether it is an image's."""
        return self.words[0] != sys.executable


def choose_interpreter(spec: RunSpec, ranks: RunPlan, on_nodes: bool) -> Interpreter:
    """The interpreter of a run's ranks and of what makes and checks their model.

    `on_nodes`: the ranks run on other nodes too, where nobody has looked for a driver yet.

    Raises:
        SpecError: the image is not there, or nothing here runs images.
    """
    device, image = ranks.device, spec.slurm.container
    if image is None:
        gated = device == "cuda" and on_nodes
        return Interpreter(gate=("-P", "-m", GATE, "--") if gated else ())
    program = container.runtime()
    problems = list(_problems(Path(image).expanduser(), program))
    if problems:
        raise SpecError(spec.name, problems)
    folders = bound_folders(ranks)
    prefix = container.container_prefix(spec.slurm, device, folders, program or "")
    gate = ("-m", GATE, "--nv", "--") if device == "cuda" else ()
    return Interpreter((*prefix, *container.PYTHON), gate)


def bound_folders(ranks: RunPlan) -> list[Path]:
    """What the ranks read and write: run folder, cache, model, prompts, the node's own disk."""
    folders = [Path(ranks.run_dir), Path(ranks.cache_dir)]
    for model in (ranks.model.folder, ranks.model.source or ranks.model.folder):
        folders += container.model_folders(Path(model))
    if ranks.prompts.source != "shipped":
        folders.append(Path(ranks.prompts.source).parent)
    if ranks.stage.weights is not None:
        folders.append(Path(ranks.stage.weights).parents[1])
    if ranks.stage.spool is not None:
        folders.append(Path(ranks.stage.spool).parent)
    return folders


def _problems(image: Path, program: str | None) -> Iterator[tuple[str, str]]:
    if not image.exists():
        yield "slurm.container", f"there is no {image}"
    if program is None:
        names = " nor ".join(container.RUNTIMES)
        yield (
            "slurm.container",
            f"neither {names} is on PATH: name its module in slurm.modules, or add it to PATH in "
            "slurm.prologue",
        )
