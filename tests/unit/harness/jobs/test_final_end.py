"""How a job ended where its own mark and Slurm's state differ."""

from __future__ import annotations

import pytest

from harness.jobs.finish import final_end
from harness_collectors.sacct.fields import Step
from harness_schemas.rundir import RunDir
from harness_slurm.job.controller import JobState
from harness_slurm.job.marks import write_end

ENDS = [
    # mark's code, told itself, Slurm's state, code returned, whether the limit ran out
    (143, True, "TIMEOUT", 124, True),
    (143, False, "TIMEOUT", 124, True),  # its srun was ended before the script was told
    (1, False, "TIMEOUT", 124, True),
    (0, False, "TIMEOUT", 0, False),  # all was done when the limit came
    (143, False, "CANCELLED", 143, False),
    (1, False, "PREEMPTED", 143, False),
    (9, False, "OUT_OF_MEMORY", 9, False),
    (9, True, "OUT_OF_MEMORY", 137, False),
    (5, False, "FAILED", 5, False),
    (None, False, "NODE_FAIL", 137, False),
]


@pytest.mark.parametrize(("code", "told", "named", "returned", "late"), ENDS)
@pytest.mark.parametrize("source", ["sacct", "squeue"])
def test_what_slurm_ended_has_slurms_code(tmp_path, code, told, named, returned, late, source):
    run = RunDir(tmp_path)
    if code is not None:
        (tmp_path / "job").mkdir()
        write_end(run, code, told)
    row = Step("sacct", "7", state=named) if source == "sacct" else None
    end = final_end(run, {}, row, JobState(named) if row is None else None)
    assert (end.exit_code, end.timed_out) == (returned, late)
