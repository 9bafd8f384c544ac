"""The table of step marks: spellings met in the wild, its algebra, and mistakes in a user's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness_collectors.names import step_marks
from harness_collectors.names.step_marks import StepMarks, annotation, load_marks
from harness_schemas.errors import UsageError
from harness_schemas.spi import UnitKey
from harness_schemas.vocabulary import PHASES

SEEN = [
    ("ProfilerStep#1009", None, 1009),
    ("decode_step_7", "decode", 7),
    ("decode step 7", "decode", 7),
    ("Decode[12]", "decode", 12),
    ("generate_token_5", "decode", 5),
    ("DECODE_STEP_003", "decode", 3),
    ("decode step=7", "decode", 7),
    ("decode[7/32]", "decode", 7),
    ("Decode Iteration 5", "decode", 5),
    ("decode/step_7", "decode", 7),
    ("decode_step_7_bs4", "decode", 7),
    ("decode_step", "decode", None),
    ("decode", "decode", None),
    ("prefill", "prefill", 0),
    ("prefill_2", "prefill", 2),
    ("prefill chunk 3", "prefill", 3),
    ("iteration 12", None, 12),
    ("step_4", None, 4),
    ("execute_context_2(14721)_generation_0(0)", "prefill", None),
    ("execute_context_0(0)_generation_64(64)", "decode", None),
    ("execute_context_2(6144)_generation_3(3)", "mixed", None),
    ("execute_context_0(0)_generation_0(0)", None, None),
    (
        "execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk55086sqsq32sqsk55086)",
        "decode",
        None,
    ),
    ("execute_new_1_cached_7", "mixed", None),
    ("execute_new_0_cached_7", "decode", None),
    ("step[DECODE bs=64]", "decode", None),
    ("step[decode bs=64]", "decode", None),
    ("step[TARGET_VERIFY bs=2]", "decode", None),
    ("step[EXTEND bs=2 toks=14721]", "prefill", None),
    ("step[MIXED bs=2 c=1 g=1 c_sq=5]", "mixed", None),
    ("step[IDLE]", None, None),
    ("decode[bs=117/128 tok=117 d=117]", "decode", None),
    ("prefill[bs=2 tok=14721 ctx=[7803, 6918]]", "prefill", None),
    ("[Executor] _forward_step 41: 1 ctx reqs, 512 ctx tks, 3 gen reqs", "mixed", 41),
    ("[Executor] _forward_step 42: 0 ctx reqs, 3 gen reqs", "decode", 42),
    ("[Executor] _forward_step: 1 ctx reqs, 0 gen reqs", "prefill", None),
    ("execute_model", None, None),
    ("gpu_model_runner: forward", None, None),
    ("v2_gpu_model_runner: forward", None, None),
]
UNSEEN = [
    "",
    "## forward ##",
    "DistributedDataParallel.forward",
    "Optimizer.step#SGD.step",
    "ProfilerStep#",
    "decode_step_7 later",
    "decoder_layer_3",
    "decode_layer_3",
    "decode_loop",
    "gpu_model_runner: preprocess",
    "step/forward",
    "nccl:all_reduce",
    "prefilling",
    "step[DRAFT_EXTEND_V2 bs=1]",
]


@pytest.fixture
def marks():
    return StepMarks(load_marks())


def chosen(marks, *names):
    return marks.best_family([marks.find(name) for name in names])


@pytest.mark.parametrize(("name", "phase", "step"), SEEN)
def test_spellings_in_the_wild(marks, name, phase, step):
    mark = marks.find(name)
    assert (mark.phase, mark.step) == (phase, step)


@pytest.mark.parametrize("name", UNSEEN)
def test_what_marks_no_step(marks, name):
    assert marks.find(name) is None


def test_every_shipped_rule_is_met_by_an_example(marks):
    names = [name for name, _, _ in SEEN] + [annotation(UnitKey("decode", step=1))]
    assert {marks.find(name).rule for name in names} == {rule.id for rule in load_marks()}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("decode[bs=117/128 tok=117 d=117]", (117, 128, None, 117)),
        ("execute_context_2(6144)_generation_3(3)", (5, None, 6144, 3)),
        ("step[EXTEND bs=2 toks=14721]", (2, None, 14721, None)),
        ("step[mixed bs=9 ext=100 dec=8]", (9, None, 100, 8)),
        ("decode_step_7", ()),
    ],
)
def test_sizes(marks, name, sizes):
    assert marks.find(name).sizes == sizes


small = st.one_of(st.none(), st.integers(0, 2**31 - 1))


@given(
    st.builds(
        UnitKey,
        phase=st.sampled_from(PHASES),
        batch=small,
        microbatch=small,
        repeat=small,
        step=small,
        warmup=st.booleans(),
    )
)
def test_our_own_annotation_says_the_whole_key(key):
    mark = StepMarks(load_marks()).find(annotation(key))
    found = UnitKey(mark.phase, mark.batch, mark.microbatch, mark.repeat, mark.step, mark.warmup)
    assert found == key
    assert mark.numbered == (key.step is not None)


@given(st.text(max_size=200))
def test_any_name_has_an_answer(name):
    mark = StepMarks(load_marks()).find(name)
    assert mark is None or mark.phase is None or mark.phase in PHASES


def test_numbers_beyond_the_tables_are_unknown(marks):
    assert marks.find("decode_step_99999999999").step is None


def test_families_rank_as_they_stand(marks):
    assert chosen(marks, "ProfilerStep#1", "decode_step_1", "aten::mm") == "script"
    assert chosen(marks, "ProfilerStep#1") == "profiler"
    assert chosen(marks) is None


def test_a_plain_decode_counts_only_beside_a_prefill(marks):
    assert chosen(marks, "ProfilerStep#1", "decode") == "profiler"
    assert chosen(marks, "ProfilerStep#1", "decode", "prefill") == "phase"
    assert chosen(marks, "decode", "prefill", "decode_step_1") == "script"
    assert marks.find("prefill").counts_in("script") and not marks.find("decode").counts_in(
        "script"
    )


def test_a_users_rules_come_first(tmp_path, monkeypatch):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[mark]]\nid="mine"\nfamily="mine"\npattern=\'tick (?P<step>\\d+)\'\nphase="decode"\n'
    )
    monkeypatch.setenv(step_marks.MARKS_ENV, str(path))
    marks = step_marks.step_marks()
    assert (marks.find("tick 3").rule, marks.find("tick 3").step) == ("mine", 3)
    assert marks.find("prefill").rule == "prefill"
    assert chosen(marks, "harness:decode warmup=0", "tick 3") == "mine"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("[[mark]]\nid='x'\n", "mark 1 lacks family, pattern"),
        ("[[mark]]\nid='x'\nfamily='f'\npattern='('\n", "not a regular expression"),
        ("[[mark]]\nid='x'\nfamily='f'\npattern='a'\nphase='dance'\n", "no such phase: 'dance'"),
        ("[[mark]]\nid='x'\nfamily='f'\npattern='a'\nstep=-1\n", "step must be a number"),
        ("[[mark]]\nid='x'\nfamily='f'\npattern='(?P<stp>1)'\n", "unknown groups: stp"),
        ("[[mark]]\nid='x'\nfamily='f'\npattern='a'\nregex='b'\n", "unknown keys: regex"),
        ("[[mark]]\nid='x'\nfamily='f'\npattern='a'\njoins='b'\n", "joins must be a list"),
        ("[[mark]]\nid='x'\nfamily='f'\npattern='a'\nfollows=1\n", "follows must be true"),
        ("mark = 3\n", "must be a list of tables"),
        ("mark = [3]\n", "mark 1 is not a table"),
        ("[[mark\n", "cannot read"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, body, says):
    path = tmp_path / "mine.toml"
    path.write_text(body)
    with pytest.raises(UsageError, match=r"mine\.toml") as caught:
        load_marks(path)
    assert says in caught.value.message


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load_marks(tmp_path / "absent.toml")
