"""Real ranks that run one plan after another: torch and deepspeed are imported once for all.

`python ranks.py JOBS.json RANK`: a job is {plan, world, port, mutation}. Ranks beyond a
job's world sit it out. Everything below `worker.run_rank` is the product's own code; a mutation
breaks it on purpose, to prove that the comparison with the reference notices.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from pathlib import Path
from unittest import mock

import harness_probe as probe
from harness_runners.plan import RunPlan
from harness_runners.rank import worker
from harness_runners.rank.process import RankEnv
from harness_runners.rank.units import Units


def main(jobs_file: str, rank: int) -> int:
    for number, job in enumerate(json.loads(Path(jobs_file).read_text())):
        if rank >= job["world"]:
            continue
        plan = RunPlan.read(Path(job["plan"]))
        os.environ["MASTER_PORT"] = str(job["port"])
        probe.start(plan.run.spans, rank, job["world"], rank)
        try:
            with MUTATIONS[job.get("mutation")]():
                units = Units()
                worker.run_rank(plan, RankEnv(rank, rank, job["world"]), units)
                units.close()
        except Exception:  # noqa: BLE001 (whatever it was, the test shows it)
            sys.stderr.write(f"job {number}: {job}\n{traceback.format_exc()}")
            os._exit(1)
        probe.stop()
        forget_world()
    return 0


def forget_world():
    """DeepSpeed keeps a handle of the destroyed world, which init_distributed would return."""
    import deepspeed.comm.comm

    deepspeed.comm.comm.cdb = None


@contextlib.contextmanager
def _after_load(change):
    """Change the loaded model of every rank."""
    from harness_runners.engines.deepspeed_engine import DeepSpeedEngine

    load = DeepSpeedEngine.load

    def load_and_change(self):
        load(self)
        change(self._pipeline.stage)

    with mock.patch.object(DeepSpeedEngine, "load", load_and_change):
        yield


def no_rotation():
    def change(stage):
        rotary = stage.model.model.rotary_emb
        rotary.inv_freq.zero_()

    return _after_load(change)


def dropped_all_reduce():
    def change(stage):
        stage.model.model.layers[stage.layers[-1]].mlp.down_proj.mp_group = None

    return _after_load(change)


def swapped_layers():
    def change(stage):
        layers, first, last = stage.model.model.layers, stage.layers[0], stage.layers[-1]
        for part in ("mlp", "input_layernorm"):
            one, other = getattr(layers[first], part), getattr(layers[last], part)
            setattr(layers[first], part, other)
            setattr(layers[last], part, one)

    return _after_load(change)


def shifted_cache():
    from harness_runners.engines.kv_cache import StageCache

    update = StageCache.update

    def shifted(self, key, value, layer, *args, **kwargs):
        keys, values = update(self, key, value, layer, *args, **kwargs)
        return keys.roll(1, dims=2), values

    return mock.patch.object(StageCache, "update", shifted)


MUTATIONS = {
    None: contextlib.nullcontext,
    "no_rotation": no_rotation,
    "dropped_all_reduce": dropped_all_reduce,
    "swapped_layers": swapped_layers,
    "shifted_cache": shifted_cache,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
