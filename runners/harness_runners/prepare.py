"""Make what the ranks will read, before they start: `python -m harness_runners.prepare --plan P`.

A synthetic model is generated, a `.bin` checkpoint is converted; both once, into the cache.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from harness_runners.files.cache import publish_folder
from harness_runners.plan import ModelPlan, RunPlan
from harness_schemas.errors import HarnessError


def main(argv: list[str] | None = None) -> int:
    """Prepare a plan's model; returns the exit code."""
    parser = argparse.ArgumentParser(prog="harness_runners.prepare", description=__doc__)
    parser.add_argument("--plan", type=Path, required=True, help="plan.json of the run")
    try:
        prepare_model(RunPlan.read(parser.parse_args(argv).plan).model)
    except HarnessError as error:
        sys.stderr.write(f"harness: {error.message}\n" + (f"{error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


def prepare_model(model: ModelPlan) -> bool:
    """Fill `model.folder` unless it is there; returns whether anything had to be done.

    Raises:
        HarnessError: the cache cannot be written, or the checkpoint cannot be converted.
    """
    folder = Path(model.folder)
    if folder.is_dir():
        return False
    if model.synthetic is not None:
        make_synthetic(folder, model)
    elif model.convert:
        from harness_runners.model.convert import convert_bin

        convert_bin(Path(model.source or ""), folder)
    else:
        raise HarnessError(f"{folder} has vanished")
    return True


def make_synthetic(folder: Path, model: ModelPlan) -> None:
    """Write a synthetic model's directory: tokenizer, config.json, sharded safetensors."""
    from harness_runners.model import synthetic, tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with publish_folder(folder) as target:
        context = int(model.config["max_position_embeddings"])
        vocabulary = tokenizer.train_tokenizer(tokenizer.corpus(), target, context)
        ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
        config = {"vocab_size": vocabulary, **model.config, **ids}
        (target / "config.json").write_text(json.dumps(config, indent=1))
        if model.weights == "files":
            synthetic.write_weights(target, config, model.seed)


if __name__ == "__main__":
    sys.exit(main())
