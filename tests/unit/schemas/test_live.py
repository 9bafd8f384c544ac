"""Live pages: what the recorder writes is read back, and nothing that a page holds can raise."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from harness_probe.live import LiveFile, packed_unit, slot_of
from harness_schemas import spool
from harness_schemas.live import PendingCall, Slot, UnitNow, parse_page, read_page

KEY = {"phase": "decode", "step": 7, "batch": 0, "microbatch": None, "repeat": -1}
KEY |= {"warmup": True, "perturbed_by": "torch_profiler"}


def written(path):
    page = LiveFile(path)
    page.group(slot_of("broadcast", 3, 2), 8, 8)
    page.group(slot_of("all_reduce", 3, -1), 9, 8)
    page.group(slot_of("send", 4, 0), 5, 5)
    page.group(slot_of("recv", 4, 0), 7, 6)
    page.update(1000, 12, 2, 3 << 32, 9, 990, 4096, 31)
    page.unit(packed_unit(12, 900, KEY))
    page.prefill(800)
    page.recorded(950)
    page.close()
    return path


def test_a_page_is_read_as_the_recorder_wrote_it(tmp_path):
    page = read_page(written(tmp_path / "rank-00000.live"))
    assert (page.updated_ns, page.unit, page.entered) == (1000, 12, 31)
    assert page.pending == PendingCall(2, 3, None, 9, 990, 4096)
    collectives = Slot(3, None, None, 9, 8)  # one for all of a group, whatever their roots
    assert page.slots == (collectives, Slot(4, "send", 0, 5, 5), Slot(4, "recv", 0, 7, 6))


def test_a_page_says_in_which_unit_the_rank_is(tmp_path):
    path = written(tmp_path / "rank-00000.live")
    page = read_page(path)
    assert page.now == UnitNow(900, "decode", 7, 0, None, -1, True, "torch_profiler")
    assert (page.prefill_ns, page.recorded_ns) == (800, 950)
    data = bytearray(path.read_bytes())
    older = parse_page(bytes(data[: spool.LIVE_UNIT_AT]) + bytes(2048))
    assert (older.unit, older.now, older.prefill_ns, older.recorded_ns) == (12, None, None, None)
    data[spool.LIVE_UNIT_AT] += 1  # another unit than the head's, as between two stores
    assert parse_page(bytes(data)).now is None


def test_a_unit_that_no_page_can_hold_is_not_known(tmp_path):
    page = LiveFile(tmp_path / "rank-00000.live")
    page.update(1000, 12)
    for odd in ({"step": "last"}, {"batch": 1 << 70}, {"phase": None}):
        page.unit(packed_unit(12, 900, KEY | odd))
        assert read_page(tmp_path / "rank-00000.live").now is None
    page.close()


def test_no_file_and_a_foreign_file_are_no_page(tmp_path):
    assert read_page(tmp_path / "none.live") is None
    (tmp_path / "other.live").write_bytes(b"HPSPAN01" + bytes(200))
    assert read_page(tmp_path / "other.live") is None


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_a_page_or_none(data, with_magic):
    page = parse_page(spool.LIVE_MAGIC + data if with_magic else data)
    if page is not None:
        assert all(slot.entered >= slot.left >= -1 for slot in page.slots)
        assert len(page.slots) <= spool.LIVE_GROUP_SLOTS


@given(st.integers(0, spool.LIVE_BYTES), st.integers(0, 2**32))
def test_a_cut_or_damaged_page_is_read_as_far_as_it_goes(tmp_path_factory, length, seed):
    path = tmp_path_factory.mktemp("page") / "rank-00000.live"
    data = bytearray(written(path).read_bytes())
    noise = random.Random(seed)
    for _ in range(noise.randrange(8)):
        data[noise.randrange(300)] = noise.randrange(256)
    page = parse_page(bytes(data[:length]))
    assert page is None or page.pending is None or page.pending.start_ns > 0
