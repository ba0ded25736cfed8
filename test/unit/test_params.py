"""Parameters as their specs check them, without ROS."""

from __future__ import annotations

import re

import pytest

from edge_vision.nodes.interface.specs import NODES, Param, Range

FLOAT = Param("rate", 1.0, "A rate.", Range("Hz", 0.0, 10.0))
INT = Param("count", 3, "A count.", Range("", 1, 5))
BOOL = Param("enabled", True, "On or off.")
TEXT = Param("classifier_input", "regions", "Where.", choices=("regions", "frame"))
FREE_TEXT = Param("uri", "", "Any text.")
LIST = Param("labels", [], "Words.")


@pytest.mark.parametrize(
    "param,given,expected",
    [
        (FLOAT, 2.5, 2.5),
        (FLOAT, 2, 2.0),
        (FLOAT, 0, 0.0),
        (FLOAT, 10.0, 10.0),
        (INT, 5, 5),
        (BOOL, False, False),
        (TEXT, "frame", "frame"),
        (FREE_TEXT, "", ""),
        (FREE_TEXT, 0, "0"),
        (LIST, [2024, 7], ["2024", "7"]),
        (LIST, [], []),
        (LIST, ("a", "b"), ["a", "b"]),
    ],
)
def test_good_values(param, given, expected):
    checked = param.check(given)
    assert checked == expected and type(checked) is type(expected)


@pytest.mark.parametrize(
    "param,given,needle",
    [
        (FLOAT, 10.1, "0..10 Hz, got 10.1"),
        (FLOAT, -1, "got -1"),
        (FLOAT, float("nan"), "got nan"),
        (FLOAT, float("inf"), "got inf"),
        (FLOAT, True, "double, got bool"),
        (FLOAT, "2", "double, got str '2'"),
        (FLOAT, None, "double, got NoneType"),
        (FLOAT, [1.0], "double, got list"),
        (FLOAT, 10**400, "double, got int '1000"),
        (BOOL, "x" * 100_000, "bool, got str 'xxx"),
        (TEXT, "x" * 100_000, "one of regions, frame, got 'xxx"),
        (INT, 0, "1..5, got 0"),
        (INT, 2.0, "int, got float"),
        (INT, True, "int, got bool"),
        (BOOL, 1, "bool, got int"),
        (BOOL, "true", "bool, got str"),
        (TEXT, "sky", "one of regions, frame, got 'sky'"),
        (TEXT, 5, "string, got int"),
        (LIST, "a", "string[], got str"),
        (LIST, [1.5], "string[], got list"),
        (FREE_TEXT, True, "string, got bool"),
        (FREE_TEXT, ["rtsp://u:secret@h/1"], "got list '['rtsp://***@h/1']'"),
        (LIST, ["a", None], "string[], got list"),
    ],
)
def test_bad_values_name_what_was_expected_and_what_came(param, given, needle):
    with pytest.raises(ValueError, match=f"{param.name}: expected") as caught:
        param.check(given)
    assert needle in str(caught.value) and len(str(caught.value)) < 400


ALL = [(node, param) for node in NODES for param in node.params]


@pytest.mark.parametrize("node,param", ALL, ids=lambda one: one.name)
def test_every_parameter_is_described_and_its_default_is_good(node, param):
    assert param.check(param.default) == param.default
    assert re.fullmatch(r"[a-z][a-z0-9_]*", param.name)
    assert param.description.endswith(".") and len(param.description) > 10
    assert param.applies in ("live", "configure", "start")
    if isinstance(param.default, float):
        assert param.range and param.unit, "a number has a range and a unit"


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.name)
def test_a_node_has_each_parameter_and_topic_once(node):
    for names in ([p.name for p in node.params], [(t.name, t.direction) for t in node.topics]):
        assert len(names) == len(set(names))
    with pytest.raises(KeyError):
        node.param("no such")
