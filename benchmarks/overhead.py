"""What observing costs: `python benchmarks/overhead.py` prints a table in Markdown.

One run: pairs of the same batch with the recorder off and on, alternating inside the run (the
specification's `generation.calibrate`). By default TP=2 x PP=2 on the CPU with the quickstart's
model; on GPUs a 3B shape with random bfloat16 weights:

    python benchmarks/overhead.py --device cuda --mode graph --tp 2 --pp 1
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from harness.progress import Narrator
from harness.session import run_spec
from harness_analysis.answer import Overhead, load_answer
from harness_analysis.store import open_database
from harness_schemas.spec import RunSpec
from harness_schemas.units import format_ns


def main() -> None:
    """Run once and print the table."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(args.keep or name)
        result = run_spec(make_spec(folder, args), Narrator(quiet=args.quiet))
        if result.exit_code != 0:
            raise SystemExit(f"the run failed: {result.outcome}")
        with open_database(result.run.database) as con:
            costs = load_answer(con).overhead
    how = f"TP={args.tp} x PP={args.pp}, {args.device}, {args.mode}, batch {args.batch}"
    print("\n".join(table(how, costs)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--mode", choices=("eager", "graph"), default="eager")
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("--pp", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1, help="prompts decoded together")
    parser.add_argument("--tokens", type=int, help="new tokens of a batch; default 32, cuda 129")
    parser.add_argument("--keep", help="folder for the run; default: a temporary one")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser.parse_args()


def make_spec(folder: Path, args: argparse.Namespace) -> RunSpec:
    """The run: one measured batch, then the pairs."""
    gpu = args.device == "cuda"
    model: dict[str, Any] = {"synthetic": "tiny-llama"}
    if gpu:
        model = {"synthetic": "llama-3b", "weights": "random"}
    return RunSpec.model_validate(
        {
            "name": "overhead",
            "device": args.device,
            "dtype": "bfloat16" if gpu else "float32",
            "model": model,
            "prompts": {"limit": args.batch},
            "parallel": {"tp": args.tp, "pp": args.pp},
            "generation": {
                "batch_size": args.batch,
                "new_tokens": args.tokens or (129 if gpu else 32),
                "stop_at_eos": False,
                "warmup": 2,
                "mode": args.mode,
                "calibrate": args.pairs,
            },
            "launcher": {"threads": None if gpu else 1, "timeout": "9min"},
            "check": {"reference": False},
            "output": {"dir": str(folder)},
        }
    )


def table(how: str, costs: tuple[Overhead, ...]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [
        f"Recorder and rank hooks on against off: {how}.",
        "",
        "| unit | off | on - off | share | 95 % interval of the share | pairs | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for cost in costs:
        off, effect = cost.off_ns or 0, cost.effect_ns or 0
        interval, verdict = "too few pairs", "-"
        if cost.low_ns is not None and cost.high_ns is not None:
            interval = f"{100 * cost.low_ns / off:+.2f} to {100 * cost.high_ns / off:+.2f} %"
            verdict = "resolved" if cost.resolved else "not resolved from noise"
        lines.append(
            f"| {'batch' if cost.phase == 'all' else cost.phase} | {format_ns(off)} "
            f"| {format_ns(effect)} | {100 * effect / off:+.2f} % | {interval} | {cost.pairs} "
            f"| {verdict} |"
        )
    return lines


if __name__ == "__main__":
    main()
