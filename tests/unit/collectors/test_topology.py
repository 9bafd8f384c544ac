"""Links between devices: matrices of nvidia-smi, NVML's NVLinks, damage to both."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import cuts, flipped
from support import ROOT, SAMPLES, needs_samples
from unit.collectors.nvml.fake import FakeLibrary

from harness_collectors.nvml.api import NvmlError
from harness_collectors.topology import COLLECTOR
from harness_collectors.topology.capture import nvlinks
from harness_collectors.topology.matrix import is_matrix, read_matrix
from harness_schemas.spi import IngestContext

TOPO = SAMPLES / "logs" / "topo" if SAMPLES else Path()
FIXTURE = ROOT / "tests" / "fixtures" / "topology" / "topo.txt"


@needs_samples
@pytest.mark.parametrize(
    ("name", "links", "first"),
    [
        ("topo_2x5090", {("GPU0", "GPU1"): "PHB", ("GPU1", "GPU0"): "PHB"}, ("0-63", "0")),
        ("topo_4xh200", {("GPU3", "GPU0"): "NV18", ("GPU0", "GPU2"): "NV18"}, ("0-63", "0")),
        (
            "topo_dgx_a100",
            {("GPU0", "GPU7"): "NV12", ("GPU0", "NIC1"): "PXB", ("GPU2", "NIC11"): "SYS"},
            ("48-63,176-191", "3"),
        ),
    ],
)
def test_matrices_of_strangers(name, links, first):
    [path] = TOPO.glob(f"{name}*")
    text = path.read_text()
    assert is_matrix(text)
    rows, unreadable = read_matrix(text)
    assert unreadable == 0
    found = {(row["a"], row["b"]): row["link"] for row in rows}
    assert {key: found[key] for key in links} == links
    devices = len({a for a, _ in found} | {b for _, b in found})
    assert len(found) == len({a for a, _ in found}) * (devices - 1)
    assert (rows[0]["cpus"], rows[0]["numa"]) == first


@pytest.mark.parametrize(
    "before", ["2025-01-02T03:04:05.678901234Z stdout F ", "[1,0]<stdout>:", "\x1b[4m"]
)
def test_a_matrix_in_a_log(before):
    lines = ["\tGPU0\tGPU1\tCPU Affinity\tNUMA Affinity", "GPU0\t X \tNV18\t0-9\t0",
             "GPU1\tNV18\t X \t0-9\t0"]  # fmt: skip
    text = "".join(f"{before}{line}\x1b[0m\n" for line in lines)
    assert is_matrix(text)
    rows, unreadable = read_matrix(text)
    assert [(row["a"], row["b"], row["lanes"], row["cpus"]) for row in rows] == [
        ("GPU0", "GPU1", 18, "0-9"),
        ("GPU1", "GPU0", 18, "0-9"),
    ]
    assert unreadable == 0


@needs_samples
def test_a_matrix_of_peer_access_has_states_and_no_links():
    [path] = TOPO.glob("topo_p2p*")
    rows, unreadable = read_matrix(path.read_text())
    assert unreadable == 0
    assert [(row["a"], row["b"], row["state"]) for row in rows] == [
        ("GPU0", "GPU1", "GPU not supported"),
        ("GPU1", "GPU0", "GPU not supported"),
    ]
    assert "link" not in rows[0]


@settings(deadline=None)
@given(st.one_of(cuts(FIXTURE.read_bytes()), flipped(FIXTURE.read_bytes(), 2)))
def test_damage_loses_rows_and_invents_no_link(data):
    whole = {(row["a"], row["b"]): row for row in read_matrix(FIXTURE.read_text())[0]}
    rows, _ = read_matrix(data.decode("utf-8", "replace"))
    assert len(rows) <= len(whole)
    known = {row["link"] for row in whole.values()} | {"NODE", "PHB", "PXB", "SOC", "PSB"}
    for row in rows:
        link = row.get("link")
        assert link is None or link in known or link.startswith("NV")


class _Linked:
    def __init__(self, index, links):
        self._identity, self._links = {"index": index, "pci": f"pci{index}"}, links

    def identity(self):
        return self._identity

    def links(self):
        if isinstance(self._links, Exception):
            raise self._links
        return self._links


def test_links_are_asked_of_every_gpu_and_one_that_fails_is_left_out():
    link = {"link": 0, "active": True, "remote": "pci1"}
    library = FakeLibrary(_Linked(0, [link]), _Linked(1, NvmlError(15, "lost")))
    assert nvlinks(library) == [{"index": 0, "pci": "pci0", "links": [link]}]
    assert library.closed


def test_a_device_number_that_is_none_is_unreadable(tmp_path):
    path = tmp_path / "nvlinks.json"
    path.write_text('{"format": "harness-nvlinks", "devices": [{"pci": "a", "index": 1e400}]}')
    context = IngestContext(tmp_path)
    (found,) = list(COLLECTOR.ingest([path], context))
    assert found.data.to_pylist()[0]["state"] in ("degraded", "failed")


def test_a_matrix_that_srun_labelled():
    text = FIXTURE.read_text() + "\nLegend:\n\n  X    = Self\n"
    labelled = "".join(f"0: {line}\n" for line in text.splitlines())
    assert is_matrix(labelled)
    assert read_matrix(labelled) == read_matrix(text)


def test_columns_that_lack_the_tab_between_them():
    text = (
        "\tGPU0\tGPU1\tNIC8NIC9\tNIC10CPU Affinity\tNUMA Affinity\n"
        "GPU0\t X \tNV18\tPXBNODE\tSYS\t0-9\t0\n"
        "GPU1\tNV18\t X \tNODEPIX\tSYS\t10-19\t1\n"
    )
    assert is_matrix(text)
    rows, unreadable = read_matrix(text)
    found = {(row["a"], row["b"]): row["link"] for row in rows}
    assert (len(rows), unreadable) == (8, 0)
    assert (found["GPU0", "NIC9"], found["GPU1", "NIC9"]) == ("NODE", "PIX")
    assert (rows[-1]["cpus"], rows[-1]["numa"]) == ("10-19", "1")
