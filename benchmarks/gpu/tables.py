"""The tables of docs/performance.md on GPUs: `python -m benchmarks.gpu.tables` prints Markdown.

    python -m benchmarks.gpu.tables --tp 2 --pp 1
    python -m benchmarks.gpu.tables --only injection --budget 540 --cases graph:device:layer
    python -m benchmarks.gpu.tables --only injection --cases eager:device:layer \
        --model llama-70b --layers 4 --batch 128 --prompt-words 1500

The last one has steps long enough on the device that its hosts run ahead: eager steps of a small
model are bound by their hosts, and a delay on the device vanishes in its idle time.

Each section runs what it needs in a folder of its own and asks the databases; a section that
fails says why, and the others go on. Without GPUs a small model shows that everything works.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.gpu.injection import injection
from benchmarks.gpu.runs import Bench
from benchmarks.gpu.sections import classified, floors, overheads, timers
from harness.bench import gpu_count
from harness.progress import Narrator

SECTIONS: dict[str, Callable[[Bench], Iterator[str]]] = {
    "floors": floors,
    "classified": classified,
    "timers": timers,
    "overhead": overheads,
    "injection": injection,
}


def main() -> int:
    """Print the chosen sections; 1 if one failed."""
    args = _arguments()
    chosen = [name for name in SECTIONS if name in args.only.split(",")]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="harness-tables-") as name:
        bench = make_bench(args, Path(args.keep or name))
        for section in chosen:
            failed += not show(section, bench)
    return 1 if failed else 0


def show(name: str, bench: Bench) -> bool:
    """Print one section; whether it worked."""
    print(f"## {name}\n", flush=True)
    bench.narrator.say(f"section {name}")
    started = time.monotonic()
    try:
        for text in SECTIONS[name](bench):
            print(text.rstrip("\n") + "\n", flush=True)
    except Exception as error:  # noqa: BLE001 - the other sections are still worth having
        print(f"failed: {type(error).__name__}: {error}\n", flush=True)
        return False
    print(f"({time.monotonic() - started:.0f} s)\n", flush=True)
    return True


def make_bench(args: argparse.Namespace, folder: Path) -> Bench:
    """The machine as the arguments describe it."""
    on_gpu = args.device == "cuda"
    model = {"synthetic": args.model or "openllama-3b", "weights": "random"}
    if not on_gpu:
        model = {"synthetic": args.model or "tiny-llama"}
    if args.layers:
        model["layers"] = args.layers
    return Bench(
        folder=folder,
        device=args.device,
        tp=args.tp,
        pp=args.pp,
        tokens=args.tokens or (40 if on_gpu else 14),
        batch=args.batch,
        prompt_words=args.prompt_words,
        model=model,
        budget_s=args.budget,
        narrator=Narrator(quiet=args.quiet),
        cases=tuple(tuple(case.split(":")) for case in args.cases.split(",") if case),
        delays_us=tuple(int(delay) for delay in args.delays.split(",") if delay),
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma-separated")
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--tp", type=int, default=2)
    parser.add_argument("--pp", type=int, default=1)
    parser.add_argument("--model", help="synthetic shape; default openllama-3b, cpu tiny-llama")
    parser.add_argument("--layers", type=int, help="decoder layers; default: the shape's own")
    parser.add_argument("--tokens", type=int, help="new tokens of a run")
    parser.add_argument("--batch", type=int, default=1, help="prompts decoded together")
    parser.add_argument("--prompt-words", type=int, help="length of prompts; default: shipped")
    parser.add_argument("--delays", default="", help="injected us, as in 50,250,1000")
    parser.add_argument("--cases", default="", help="mode:where:every, comma-separated")
    parser.add_argument("--budget", type=float, default=170, help="seconds for injection")
    parser.add_argument("--keep", help="folder for the runs; default: a temporary one")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    args = parser.parse_args()
    args.device = args.device or ("cuda" if gpu_count() else "cpu")
    unknown = set(args.only.split(",")) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {sorted(unknown)[0]!r}; there are {', '.join(SECTIONS)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
