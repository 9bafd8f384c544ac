"""What `harness run` finds before it makes a model or starts anything."""

from __future__ import annotations

import socket

import pytest

from harness.session import plan_run
from harness_schemas.errors import SpecError
from harness_schemas.rundir import name_run
from harness_schemas.spec import RunSpec


def test_a_port_that_is_taken_is_a_mistake_of_the_specification(tmp_path):
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        data = {"model": {"synthetic": "tiny-llama"}, "device": "cpu"}
        spec = RunSpec.model_validate({**data, "launcher": {"kind": "local", "port": port}})
        with pytest.raises(SpecError, match=f"port {port} cannot be used") as refused:
            plan_run(spec, name_run(tmp_path, "x"))
    assert refused.value.problems[0][0] == "launcher.port"
    assert list(tmp_path.iterdir()) == []
    plan_run(spec, name_run(tmp_path, "x"))
