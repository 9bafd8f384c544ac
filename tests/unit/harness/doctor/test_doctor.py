"""Checks of machines that we do not have, and the explanations of failures."""

from __future__ import annotations

import dataclasses
import json
import os

import pytest
from failure_lines import SEED
from hypothesis import given
from hypothesis import strategies as st
from support import ROOT

from harness.cli.main import invoke
from harness.doctor import Facts, check_machine
from harness.doctor.facts import Gpu, HcaPort, Interface
from harness.doctor.gather import _ASKED, features, gather, missing_libraries
from harness.doctor.run_checks import RankPlace, RunFacts, run_checks
from harness.doctor.tool_checks import nsys_too_old

NODE = Facts(
    python="3.11.7",
    in_slurm_job=True,
    driver="580.95.05",
    gpus=(
        Gpu("0000:18:00.0", 0, frozenset(range(32))),
        Gpu("0000:9a:00.0", 1, frozenset({40, 41})),
    ),
    device_nodes=2,
    libcuda=True,
    nvml="ok",
    cuda_of_driver=(13, 0),
    torch="2.13.0",
    torch_cuda="12.8",
    interfaces=(Interface("lo", True, "loopback"), Interface("ens1", True)),
    hca_ports=(HcaPort("mlx5_0", 1, "ACTIVE"),),
    verbs_usable=True,
    libibverbs=True,
    shm_bytes=64 << 30,
    locked_bytes=-1,
    open_files=65536,
    open_files_hard=-1,
    disk_free_bytes=1 << 40,
    clock_source="tsc",
    clock_synchronised=True,
    clock_error_us=400,
    cpus_allowed=frozenset(range(64)),
    cpus_online=64,
    perf_paranoid=1,
    perf_missing=(),
    perf_features={"libdw": True, "libunwind": False},
    sacct=True,
    accounting="accounting_storage/slurmdbd",
)
"""A node on which nothing is wrong."""


def checks_of(**changes):
    found = check_machine(dataclasses.replace(NODE, **changes))
    return {check.name: check for check in found}


def test_nothing_is_wrong_with_a_good_node():
    assert [check for check in check_machine(NODE) if check.state != "ok"] == []


NO_LOOPBACK = (Interface("lo", True, "loopback"),)
DOCKER = (Interface("docker0", True), Interface("ib0", True, "infiniband"))
# What is changed about the good node; the check that must see it; its state; words of its lines.
WRONG = [
    ({"driver": None, "gpus": (), "device_nodes": 0}, "nvidia driver", "missing", "--gres=gpu"),
    ({"driver": None, "container": "apptainer"}, "nvidia driver", "missing", "--nv"),
    ({"driver": None, "container": "docker"}, "nvidia driver", "missing", "--gpus all"),
    ({"driver": None}, "nvidia driver", "missing", "modprobe"),
    ({"driver": None}, "nvidia driver", "missing", "Found no NVIDIA driver"),
    ({"libcuda": False, "container": "apptainer"}, "driver binding", "missing", "--nv"),
    ({"device_nodes": 0}, "driver binding", "missing", "--gres"),
    ({"env": {"CUDA_VISIBLE_DEVICES": ""}}, "driver binding", "warning", "unset"),
    ({"nvml": "Driver/library version mismatch"}, "nvml", "missing", "reboot"),
    ({"torch_cuda": ""}, "torch and CUDA", "warning", "CUDA build"),
    ({"torch_cuda": "13.0", "cuda_of_driver": (12, 4)}, "torch and CUDA", "warning", "too old"),
    ({"torch": None}, "torch and CUDA", "missing", "pip install"),
    ({"monitors": ("nv-hostengine",)}, "profiling lock", "warning", "dcgmi profile --pause"),
    ({"interfaces": NO_LOOPBACK}, "nccl interfaces", "warning", "one host"),
    ({"interfaces": DOCKER}, "nccl interfaces", "warning", "NCCL_SOCKET_IFNAME"),
    ({"env": {"NCCL_SOCKET_IFNAME": "eth"}}, "nccl interfaces", "warning", "ens1"),
    ({"env": {"NCCL_SOCKET_IFNAME": "^ens"}}, "nccl interfaces", "warning", "ens1"),
    ({"env": {"NCCL_IB_DISABLE": "1"}}, "infiniband", "warning", "unset"),
    ({"env": {"NCCL_NET": "Socket"}}, "infiniband", "warning", "sockets"),
    ({"hca_ports": (HcaPort("mlx5_0", 1, "DOWN"),)}, "infiniband", "warning", "ibstat"),
    ({"verbs_usable": False}, "infiniband", "warning", "/dev/infiniband"),
    ({"libibverbs": False}, "infiniband", "warning", "libibverbs1"),
    ({"locked_bytes": 65536}, "locked memory", "warning", "ulimit -l unlimited"),
    ({"shm_bytes": 64 << 20, "container": "docker"}, "/dev/shm", "warning", "--shm-size"),
    ({"shm_bytes": None}, "/dev/shm", "missing", "tmpfs"),
    ({"open_files": 1024, "open_files_hard": 4096}, "open files", "warning", "ulimit -n 4096"),
    ({"open_files": 64, "open_files_hard": 64}, "open files", "warning", "hard limit is as low"),
    ({"disk_free_bytes": 1 << 20}, "disk here", "warning", "--output"),
    ({"clock_source": "hpet"}, "clock source", "warning", "clocksource=tsc"),
    ({"clock_synchronised": False}, "clock sync", "warning", "chronyd"),
    ({"clock_error_us": 80_000}, "clock sync", "warning", "PTP"),
    ({"cpus_allowed": frozenset({3})}, "cpu cores", "warning", "--cpus-per-task"),
    ({"cpus_allowed": frozenset(range(8))}, "cpu and gpu affinity", "warning", "0000:9a:00.0"),
    ({"perf_paranoid": 3}, "perf_event_paranoid", "warning", "CAP_PERFMON"),
    ({"perf_missing": ("libdw.so.1",)}, "perf libraries", "missing", "libdw1"),
    ({"perf_missing": ("libunwind-x86_64.so.8",)}, "perf libraries", "missing", "libunwind8"),
    ({"perf_features": {"libdw": False}}, "perf libraries", "warning", "libunwind"),
    ({"sacct": False}, "slurm accounting", "missing", "ingest"),
    ({"accounting": "accounting_storage/none"}, "slurm accounting", "missing", "slurmdbd"),
    ({"env": {"SLURM_EXPORT_ENV": "NONE"}}, "slurm export", "warning", "HARNESS_"),
    ({"env": {"SBATCH_EXPORT": "PATH,HOME"}}, "slurm export", "warning", "srun --export=ALL"),
    ({"env": {"APPTAINER_CLEANENV": "1"}}, "container environment", "warning", "APPTAINERENV_"),
    ({"image_sets": ("NCCL_DEBUG", "LANG")}, "image variables", "warning", "NCCL_DEBUG"),
    ({"env": {"NCCL_DEBUG_FILE": "/tmp/nccl.log"}}, "nccl debug file", "warning", "%p"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "name", "state", "word"), WRONG)
def test_what_is_wrong_is_found_with_its_cost_and_mend(changes, name, state, word):
    found = checks_of(**changes)[name]
    assert found.state == state
    assert word in " ".join((found.found, found.cost, found.mend))
    assert found.cost and found.mend


@pytest.mark.parametrize("changes", [
    {"env": {"NCCL_SOCKET_IFNAME": "=ens1"}},
    {"env": {"NCCL_SOCKET_IFNAME": "^docker,lo"}},
    {"env": {"SLURM_EXPORT_ENV": "ALL,X=1"}},
    {"env": {"APPTAINER_CLEANENV": "0"}},
    {"torch_cuda": "13.1"},  # CUDA's minor versions are compatible
    {"hca_ports": (), "locked_bytes": 65536},
    {"image_sets": ("LD_LIBRARY_PATH",)},
])  # fmt: skip
def test_what_is_right_is_not_complained_about(changes):
    assert {check.name for check in checks_of(**changes).values() if check.state != "ok"} == set()


def test_every_check_that_can_fail_is_tried():
    assert {name for _, name, _, _ in WRONG} >= set(checks_of()) - {"python"}


@given(st.data())
def test_any_facts_give_checks_that_say_what_to_do(data):
    """Half-known machines too: what is unknown is no reason to fail, nor said to be ok."""
    names = [field.name for field in dataclasses.fields(Facts)]
    forgotten = data.draw(st.sets(st.sampled_from(names)))
    blank = {name: getattr(Facts(), name) for name in forgotten}
    for check in check_machine(dataclasses.replace(NODE, **blank)):
        assert check.state in ("ok", "warning", "missing")
        assert check.found or check.name == "python"


def test_gathering_never_fails_and_keeps_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    monkeypatch.setenv("PATH", str(tmp_path))
    empty = gather(tmp_path)
    assert empty.gpus == ()
    assert empty.driver is None
    assert set(empty.env) <= set(_ASKED)
    assert "hf_secret" not in repr(empty)


def write(root, **files):
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_machine_is_read_from_its_files(tmp_path):
    device = tmp_path / "sys/bus/pci/devices/0000:18:00.0"
    device.mkdir(parents=True)
    files = {
        "vendor": "0x10de\n",
        "class": "0x030200\n",
        "numa_node": "1\n",
        "local_cpulist": "0-3,8\n",
    }
    for name, text in files.items():
        (device / name).write_text(text)
    write(
        tmp_path,
        proc__driver__nvidia__version="NVRM version: NVIDIA UNIX Kernel Module  580.95.05  T\n",
        proc__77__comm="nv-hostengine\n",
        sys__class__net__ib0__operstate="up\n",
        sys__class__net__ib0__type="32\n",
        sys__class__infiniband__mlx5_0__ports__1__state="4: ACTIVE\n",
        proc__sys__kernel__perf_event_paranoid="4\n",
    )
    env = tmp_path / ".singularity.d/env"
    env.mkdir(parents=True)
    (env / "90-environment.sh").write_text("export NCCL_DEBUG=WARN\nexport A_TOKEN=hf_xyz\n")
    facts = gather(tmp_path)
    assert facts.driver == "580.95.05"
    assert facts.gpus == (Gpu("0000:18:00.0", 1, frozenset({0, 1, 2, 3, 8})),)
    assert facts.monitors == ("nv-hostengine",)
    assert facts.interfaces == (Interface("ib0", True, "infiniband"),)
    assert facts.hca_ports == (HcaPort("mlx5_0", 1, "ACTIVE"),)
    assert (facts.container, facts.perf_paranoid) == ("apptainer", 4)
    assert facts.image_sets == ("A_TOKEN", "NCCL_DEBUG")


def test_words_of_ldd_and_perf():
    assert missing_libraries("\tlibdw.so.1 => not found\n\tlibc.so.6 => /l/libc.so.6 (0x1)\n") == (
        "libdw.so.1",
    )
    said = "perf version 6.1\n  libdw: [ on  ]  # HAVE\n   libunwind: [ OFF ]\n"
    assert features(said) == {"libdw": True, "libunwind": False}


# --- the verb ----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", sorted(SEED))
def test_the_failures_of_the_seed_report_are_explained(line, tmp_path, capsys):
    log = tmp_path / "slurm-1.out"
    log.write_text(f"loading\n{line}\n")
    assert invoke(["doctor", "--log", str(log), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    name, word = SEED[line]
    assert row["verdict"] == name
    assert word in row["mend"]
    assert row["evidence"] in line


def test_a_run_is_explained_by_its_folder(tmp_path, capsys):
    run = tmp_path / "runs" / "r1"
    (run / "logs").mkdir(parents=True)
    exits = [{"rank": 2, "exit_code": 1, "message": "torch.OutOfMemoryError: CUDA out of memory"}]
    end = {"exit_code": 1, "timed_out": False, "interrupted": False, "rank_exits": exits}
    end |= {"oom_kills": None, "kernel_lines": []}
    (run / "run.json").write_text(json.dumps({"run_id": "r1", "end": end}))
    assert invoke(["doctor", str(run)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("verdict oom_gpu\n")
    assert "rank 2" in shown
    assert all(len(text) <= 100 for text in shown.splitlines())


PLACES = tuple(RankPlace(rank, "n1", frozenset({2 * rank, 2 * rank + 1})) for rank in range(4))
WRONG_RUNS = [
    (RunFacts(tuple(RankPlace(r, "n1", frozenset({0, 1})) for r in range(4))), "4 ranks share 2"),
    (
        RunFacts((*PLACES[:2], *(RankPlace(r, "n1", frozenset({9})) for r in (2, 3)))),
        "ranks 2, 3 are bound to the same CPU",
    ),
    (RunFacts(PLACES, frozenset({"P2P/CUMEM", "NET/Socket/0"})), "NET/Socket"),
    (RunFacts(planned_ranks=4), "--export=ALL"),
    (RunFacts(wrapped=True), "--cleanenv"),
]


@pytest.mark.parametrize(("facts", "word"), WRONG_RUNS)
def test_how_a_run_lay_on_its_hosts(facts, word):
    [found] = [check for check in run_checks(facts) if check.state != "ok"]
    assert word in " ".join((found.found, found.cost, found.mend))
    assert found.cost and found.mend


@pytest.mark.parametrize("facts", [
    RunFacts(PLACES, frozenset({"NET/IB/0/GDRDMA"}), 4),
    RunFacts(tuple(RankPlace(rank, None) for rank in range(2))),
    RunFacts(),
])  # fmt: skip
def test_a_run_that_lay_well_is_not_complained_about(facts):
    assert {check.state for check in run_checks(facts)} == {"ok"}


def test_a_run_with_a_database_is_shown_with_its_surroundings(tmp_path, capsys):
    database = tmp_path / "x.duckdb"
    nccl = ROOT / "tests" / "fixtures" / "nccl_log"
    assert invoke(["ingest", str(nccl), "-o", str(database)]) == 0
    capsys.readouterr()
    assert invoke(["doctor", str(database)]) == 0
    assert "nccl transports" in capsys.readouterr().out


def test_what_cannot_be_explained_is_refused(tmp_path, capsys):
    assert invoke(["doctor", str(tmp_path)]) == 2
    assert invoke(["doctor", "--log", str(tmp_path / "none")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_machine_at_hand_is_described(monkeypatch, capsys):
    monkeypatch.setitem(os.environ, "SLURM_EXPORT_ENV", "NONE")
    assert invoke(["doctor", "--json"]) == 0
    rows = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["slurm export"]["state"] == "warning"
    assert rows["slurm export"]["how to mend it"]
    assert {"python", "collector nsys", "/dev/shm"} <= rows.keys()


@pytest.mark.parametrize(
    ("version", "cuda", "state"),
    [("2023.4.4", (13, 0), "warning"), ("2025.3.2", (13, 0), None), ("2023.4.4", (12, 9), None),
     ("2023.4.4", None, None), (None, (13, 0), None)],
)  # fmt: skip
def test_an_nsys_older_than_the_driver_is_named(version, cuda, state):
    found = nsys_too_old("collector nsys", version, Facts(cuda_of_driver=cuda))
    assert (found and found.state) == state
    assert nsys_too_old("collector perf", version, Facts(cuda_of_driver=cuda)) is None


@pytest.mark.parametrize("name", ["APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"])
def test_a_folder_run_as_an_apptainer_container_is_one(name, tmp_path, monkeypatch):
    monkeypatch.setenv(name, "/some/folder")
    assert gather(tmp_path).container == "apptainer"
