"""Collectors by name, strangers' included."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from harness import registry
from harness_collectors.psutil_host import COLLECTOR
from harness_schemas.errors import UsageError


@pytest.fixture
def foreign(monkeypatch):
    def declare(**targets):
        points = {
            name: EntryPoint(name, target, registry.ENTRY_POINT_GROUP)
            for name, target in targets.items()
        }
        monkeypatch.setattr(registry, "_entry_points", lambda: points)

    return declare


def test_built_in_names_are_found_without_looking_for_strangers(monkeypatch):
    monkeypatch.setattr(registry, "_entry_points", lambda: pytest.fail("looked"))
    assert registry.load_collector("psutil") is COLLECTOR
    assert [c.name for c in registry.all_collectors()] == registry.collector_names()


def test_unknown_name_lists_what_there_is(foreign):
    foreign(mine="x:y")
    with pytest.raises(UsageError, match="no collector is called 'nope'") as caught:
        registry.load_collector("nope")
    assert "app_timers" in caught.value.hint and "mine" in caught.value.hint


def test_a_stranger_s_collector_is_loaded(foreign):
    foreign(mine="harness_collectors.psutil_host:COLLECTOR")
    assert registry.load_collector("mine") is COLLECTOR


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_such_module:X", "cannot be imported: ModuleNotFoundError"),
        ("os:no_such_thing", "cannot be imported: AttributeError"),
        ("os:sep", "os:sep is no collector"),
    ],
)
def test_a_stranger_s_mistake_is_a_usage_error(foreign, target, says):
    foreign(mine=target)
    with pytest.raises(UsageError, match=says):
        registry.load_collector("mine")
