"""Stacks of ranks: what faulthandler and py-spy write is read, and equal places become one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness_analysis.hang.stacks import Frame, folded, group_stacks, main_stack

FAULT = """Thread 0x00007f1c2bfff6c0 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait
  File "/usr/lib/python3.11/threading.py", line 982 in run

Current thread 0x00007f1c5c0e3740 (most recent call first):
  File "/site/harness_probe/distributed.py", line 264 in wait
  File "/site/engines/wire.py", line 53 in take
  File "/site/engines/pipeline.py", line 171 in _take
  File "<frozen runpy>", line 198 in _run_module_as_main
"""
# py-spy 0.4.3, dump --nonblocking
SPY = """Process 8405: python worker.py
Python v3.11.7 (/usr/bin/python3.11)

Thread 8405 (idle): "MainThread"
    _wrap.<locals>.traced (harness_probe/distributed.py:127)
    take (/site/engines/wire.py:53)
    _take (/site/engines/pipeline.py:171)
    <module> (worker.py:6)
Thread 8407 (idle): "helper (2)"
    <lambda> (worker.py:5)
    Thread.run (threading.py:982)
"""


def test_the_main_thread_of_a_faulthandler_dump():
    frames = main_stack(FAULT)
    assert [frame.short() for frame in frames[:2]] == [
        "wait (distributed.py:264)",
        "take (wire.py:53)",
    ]
    assert frames[-1] == Frame("_run_module_as_main", "<frozen runpy>", 198)


def test_the_last_of_several_dumps_counts():
    later = FAULT.replace("line 53 in take", "line 99 in send")
    assert main_stack(FAULT + "\n" + later)[1] == Frame("send", "/site/engines/wire.py", 99)


def test_the_main_thread_of_py_spy():
    assert [frame.name for frame in main_stack(SPY)][1:] == ["take", "_take", "<module>"]
    assert group_stacks({0: SPY}, {}, {})[0].line().startswith("take (wire.py:53) < _take")


def test_equal_places_are_one_line_and_the_rarest_comes_first():
    other = FAULT.replace("line 171 in _take", "line 180 in _pass_on")
    texts = dict.fromkeys(range(512), FAULT) | {77: other, 511: ""}
    states = {511: "T (stopped), in do_signal_stop"}
    first, second, third = group_stacks(texts, states, {511: "a stopped process answers no signal"})
    assert first.ranks == (77,) and second.ranks == (511,) and len(third.ranks) == 510
    assert (
        third.line()
        == "take (wire.py:53) < _take (pipeline.py:171) < _run_module_as_main (<frozen runpy>:198)"
    )
    assert second.line() == "a stopped process answers no signal"
    assert folded([third])[0].endswith(";take (wire.py:53);wait (distributed.py:264) 510")


@given(
    st.dictionaries(st.integers(0, 20), st.sampled_from([FAULT, SPY, "", "Thread", FAULT[:150]]))
)
def test_every_rank_is_in_exactly_one_group(texts):
    groups = group_stacks(texts, {}, {})
    assert sorted(rank for group in groups for rank in group.ranks) == sorted(texts)


@given(st.text(alphabet='ThreadCurnt 0x1f():"File,line in\n?', max_size=300))
def test_any_text_is_read_or_passed_over(text):
    assert all(frame.name for frame in main_stack(text))
