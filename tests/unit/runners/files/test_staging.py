"""Weights on the nodes' own disks: who copies what, and what happens where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_runners.files import staging
from harness_runners.plan import RunPlan, StagePlan
from harness_runners.preflight import preflight
from harness_schemas.spec import RunSpec

needs = st.lists(
    st.tuples(
        st.sampled_from(["n1", "n2", "n3"]),
        st.dictionaries(st.sampled_from([f"f{k}" for k in range(9)]), st.just(7)),
    ),
    min_size=1,
    max_size=12,
)


@given(needs)
def test_every_host_has_what_its_ranks_need_and_nothing_is_copied_twice(needs):
    for host in {where for where, _ in needs}:
        ranks = [number for number, (where, _) in enumerate(needs) if where == host]
        copied = [file for rank in ranks for file in staging.share(needs, rank)]
        wanted = {Path(name) for rank in ranks for name in needs[rank][1]}
        assert len(copied) == len(wanted) and set(copied) == wanted
        counts = [len(staging.share(needs, rank)) for rank in ranks]
        assert max(counts) - min(counts) <= 1, "files of one size are shared evenly"


def test_the_largest_files_go_to_those_with_least():
    sizes = {"a": 90, "b": 60, "c": 50, "d": 40}
    both = [("n", sizes), ("n", {})]
    assert staging.share(both, 0) == [Path("a"), Path("d")]
    assert staging.share(both, 1) == [Path("b"), Path("c")]


@pytest.fixture
def alone(monkeypatch):
    """A world of one rank."""
    import torch.distributed as dist

    monkeypatch.setattr(staging, "_gather", lambda mine: [mine])
    monkeypatch.setattr(staging, "_own_rank", lambda: 0)
    monkeypatch.setattr(dist, "barrier", lambda: None)


def weights(tmp_path):
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for file in files:
        file.write_bytes(file.name.encode() * 1000)
    return files


@pytest.mark.parametrize("keep", [False, True])
def test_copies_are_read_and_then_kept_or_not(tmp_path, alone, keep):
    files = weights(tmp_path)
    disk = tmp_path / "disk" / "harness-weights-1" / "model"
    for _ in range(2):
        with staging.weights_on_node(StagePlan(str(disk), keep)) as locate:
            places = locate(files)
            assert [places[file].parent for file in files] == [disk, disk]
            assert all(places[file].read_bytes() == file.read_bytes() for file in files)
        assert [path.name for path in sorted(disk.glob("*"))] == (
            [file.name for file in files] if keep else []
        )


@pytest.mark.parametrize("why", ["full", "unwritable"])
def test_what_cannot_be_copied_is_read_where_it_lies(tmp_path, alone, monkeypatch, why):
    files = weights(tmp_path)
    disk = tmp_path / "disk"
    if why == "full":
        monkeypatch.setattr(staging, "KEEP_FREE", 1 << 60)
    else:
        disk.write_text("no folder")
    with staging.weights_on_node(StagePlan(str(disk / "m"))) as locate:
        assert locate(files) == {file: file for file in files}
    assert disk.is_file() or not list((disk / "m").glob("*"))


def test_a_spool_that_cannot_be_there_is_in_the_run_folder(tmp_path):
    (tmp_path / "disk").write_text("no folder")
    plan = RunPlan.from_json({"run_dir": str(tmp_path), "cache_dir": "", "layers": [1],
                              "model": {"folder": ""},
                              "stage": {"spool": str(tmp_path / "disk" / "x")}})  # fmt: skip
    folder, why = staging.spool_folder(plan)
    assert folder == plan.run.spans and "disk" in why


def test_folders_of_the_node_may_be_named_by_variables(monkeypatch, tmp_path):
    monkeypatch.setenv("NODE_DISK", "/local/4711")
    spec = {"model": {"synthetic": "tiny-llama"}, "device": "cpu"}
    assert preflight(RunSpec(**spec, stage={"spool": "$NODE_DISK/x"})) == []
    problems = preflight(RunSpec(**spec, stage={"weights": "$NOT_SET", "spool": "here"}))
    assert [path for path, _ in problems] == ["stage.weights", "stage.spool"]
