"""Compare a run with plain transformers: `python -m harness_runners.check.reference --plan PLAN`.

One process, the whole model as `from_pretrained` loads it, no cache, no padding, one prompt at a
time: nothing of the run's code takes part. Writes artifacts/correctness/result.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from harness_runners.check.compare import compare_prompt, summarise
from harness_runners.check.logits_store import NAME, Sample, read_samples
from harness_runners.model.checkpoint import read_checkpoint
from harness_runners.plan import RunPlan
from harness_schemas.errors import HarnessError
from harness_schemas.rundir import write_json

ELEMENT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def main(argv: list[str] | None = None) -> int:
    """Compare, write the result, return 0 (also where the run is wrong: the result says so)."""
    parser = argparse.ArgumentParser(prog="harness_runners.check.reference", description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the run")
    try:
        plan = RunPlan.read(parser.parse_args(argv).plan)
        write_json(plan.run.artifacts / NAME / "result.json", compare_run(plan))
    except HarnessError as error:
        sys.stderr.write(f"harness: {error.message}\n" + (f"{error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


def compare_run(plan: RunPlan) -> dict[str, Any]:
    """The comparison as result.json holds it; verdict `unknown` where it cannot be made."""
    import torch
    import transformers

    folder = Path(plan.model.folder)
    needed, available = _bytes_needed(folder, plan.dtype), _bytes_available()
    if available is not None and needed > available:
        return {
            "verdict": "unknown",
            "why": f"the whole model needs {needed / 1e9:.0f} GB in one process, "
            f"this machine has {available / 1e9:.0f} GB free",
        }
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, plan.dtype), local_files_only=True
    )
    model.eval()
    results = [
        compare_prompt(
            sample.id, sample.tokens, sample.logits, reference_logits(model, sample), plan.dtype
        )
        for sample in read_samples(plan.run)
    ]
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    return {**summarise(results, plan.dtype), "reference": {"device": "cpu", **versions}}


def reference_logits(model: Any, sample: Sample) -> np.ndarray:
    """Float32 logits [tokens, vocabulary] that the model gives before each of the run's tokens."""
    import torch

    tokens = torch.tensor([[*sample.prompt, *sample.tokens[:-1]]], device=model.device)
    with torch.inference_mode():
        output = model(tokens, use_cache=False, logits_to_keep=len(sample.tokens))
    return np.asarray(output.logits[0].float().cpu().numpy())


def _bytes_needed(folder: Path, dtype: str) -> int:
    """Memory for the weights, and a quarter more for everything else."""
    elements = sum(int(np.prod(entry.shape)) for entry in read_checkpoint(folder).values())
    return elements * ELEMENT_BYTES[dtype] * 5 // 4


def _bytes_available() -> int | None:
    """MemAvailable of /proc/meminfo (proc(5)); None where it cannot be told."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(field[1]) * 1024 for field in fields), None)


if __name__ == "__main__":
    sys.exit(main())
