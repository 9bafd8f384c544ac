"""What launchers and containers put in front of a line, and the rank in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_schemas.log_prefix import is_labelled, peeled

SAID = "KeyError: 'lm_head'"
HEADS = {
    "": None,
    "[rank3]: ": 3,
    "[rank3]:": 3,
    "> > [rank3]: ": 3,  # quoted
    "[default1]:[rank5]: ": 5,  # --tee of torchrun: a local rank
    "[1,12]<stderr>:": 12,
    "[prterun-n1-99@1,4]<stderr>: ": 4,
    "[7]<stderr>:": 7,
    "Thu Jan  1 03:04:05 2026[1,4]<stdout>:": 4,
    "[1,mpirank:5,algo-1]<stderr>:": 5,
    "(VllmWorker rank=1 pid=99) ": 1,
    "(Worker_TP2 pid=99) ERROR 01-02 03:04:05 [multiproc_executor.py:99] ": 2,
    "(Worker_PP1_TP0 pid=99) ": None,
    "(Worker_DP1_TP0_EP2 pid=99) ": None,
    "(EngineCore_DP0 pid=99) ": None,
    "\x1b[36m(RayWorkerWrapper pid=99, ip=10.0.0.9)\x1b[0m ": None,
    "[2026-01-02 03:04:05 TP2] ": 2,
    "[2026-01-02 03:04:05 TP2 EP2] ": 2,
    "[2026-01-02 03:04:05 DP0 TP2] ": None,
    "[01/02/2026-03:04:05] [TRT-LLM] [RANK 6] [E] ": 6,
    "2026-01-02T03:04:05.678901234Z stderr F [rank1]: ": 1,
    "[2026-01-02T03:04:05Z] ": None,
    "2026-01-02 03:04:05,678 ": None,
    "03:04:05.678 [rank4]: ": 4,
    "Jan  2 03:04:05 n1 slurmd[99]: ": None,
    "worker-1    | ": None,
    "node12: ": None,
    "stderr: [rank8]: ": 8,
    "[n1:2] ": None,
    "[pod/serve-0/engine] 2026-01-02T03:04:05.678901234Z [rank2]: ": 2,
    "[1;36m(Worker_TP2 pid=99)[0;0m ERROR 01-02 03:04:05 [m.py:99] ": 2,  # its escape sign is lost
    "#033[2m#033[36m(RayWorkerWrapper pid=99)#033[0m ": None,  # of syslog
    "^[[36m(Worker_TP1 pid=99)^[[0m ": 1,
}


@pytest.mark.parametrize("head", sorted(HEADS))
def test_a_head_is_peeled_off_and_names_its_rank(head):
    assert peeled(head + SAID) == (SAID, HEADS[head])


@pytest.mark.parametrize("before", ["", "2026-01-02T03:04:05.6Z stderr F ", "03:04:05 ", "w-1  | "])
def test_a_label_of_srun_names_the_rank_behind_other_heads_too(before):
    lines = [f"{before}{task}: step {n}" for n in range(3) for task in (1, 0, 2)]
    assert is_labelled(lines)
    assert peeled(lines[2], labelled=True) == ("step 0", 2)
    assert not is_labelled([f"03:04:{second:02} step" for second in range(9)])


@pytest.mark.parametrize(
    "line", ["ValueError: 3: no", "srun: error: n1: task 3: Killed", "  what():  x", "0: x"]
)
def test_what_is_no_head_stays(line):
    assert peeled(line) == (line, None)


def test_the_launcher_of_shards_names_the_rank_last():
    assert peeled(f"2026-01-02T03:04:05.6Z {SAID} rank=3") == (f"{SAID} rank=3", 3)


def test_a_line_glued_to_a_progress_bar_is_torchs():
    glued = " 94%|####  | 8/9 [9:42<0:08, 40s/it][rank7]:[E1 x.cpp:1] a watchdog"
    assert peeled(glued) == ("[E1 x.cpp:1] a watchdog", 7)


@given(st.text(max_size=80), st.sampled_from(sorted(HEADS)))
def test_it_only_ever_takes_away_from_the_front(text, head):
    bare, _ = peeled(head.replace("\x1b", "") + text)
    assert text.endswith(bare) or bare.endswith(text) or "\x1b" in text or "[rank" in text


def test_srun_labels_are_told_from_numbers_of_lines():
    assert is_labelled(["0: a", " 1: b", "0: c", "10: d", "1: e"])
    assert not is_labelled([f"{number}: frame" for number in range(9)])
    assert not is_labelled(["0: a", "1: b", "0: c", "plain", "plain too"])
    assert peeled(" 1: [rank9]: x", labelled=True) == ("x", 9)
    assert peeled(" 1: x", labelled=True) == ("x", 1)
