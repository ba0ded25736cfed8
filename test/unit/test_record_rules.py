"""The rules that start a recording: what they accept, when they become true, and when not again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_vision.core.detections import Detections
from edge_vision.core.geometry.zones import Zones
from edge_vision.record.rules import ABSENT_NS, ALLOWED, Rule, RuleWatch, parse_rules

LABELS = ("person", "dog", "traffic light", "dog in zone")
ZONES = Zones.parse(["include door 0,0 0.5,0 0.5,1 0,1", "exclude tree 0,0 0.1,0 0.1,1 0,1"])
SIZE_PX = (100, 100)


class Watched:
    """A watch that notes the rules as they become true."""

    def __init__(self, *texts: str) -> None:
        self.fired: list[str] = []
        self.watch = RuleWatch(parse_rules(texts), lambda rule: self.fired.append(rule.text))

    def see(self, at_s: float, *objects: tuple[int, float], **given: Any) -> list[str]:
        """Objects as class and x of the bottom centre. Returns what has fired since the last call."""
        boxes = np.array([(x - 1, 10, x + 1, 20) for _, x in objects], np.float32).reshape(-1, 4)
        classes = np.array([one for one, _ in objects], np.int32)
        found = Detections(boxes, np.full(len(objects), 0.9, np.float32), classes)
        settings = {"size_px": SIZE_PX, "zones": ZONES, **given}
        self.watch.on_detections(found, LABELS, int(at_s * 1e9), **settings)
        return self.take()

    def take(self) -> list[str]:
        fired, self.fired = self.fired, []
        return fired


@pytest.mark.parametrize(
    ("text", "kind", "name", "zone"),
    [
        ("audit_miss", "audit_miss", "", None),
        ("fallback", "fallback", "", None),
        (" cause ", "cause", "", None),
        ("cause:camera_silent", "cause", "camera_silent", None),
        ("class:person", "class", "person", None),
        ("class:person in zone", "class", "person", ""),
        ("class: traffic  light in zone door", "class", "traffic light", "door"),
    ],
)
def test_each_form_is_accepted(text, kind, name, zone):
    rule = Rule.parse(text)
    assert (rule.kind, rule.name, rule.zone) == (kind, name, zone)
    assert rule.slug and set(rule.slug) <= set("abcdefghijklmnopqrstuvwxyz_-")


def test_a_temperature_has_a_limit():
    assert Rule.parse("temperature").limit_c == 85.0
    assert Rule.parse("temperature:72.5").limit_c == 72.5


@pytest.mark.parametrize(
    "text",
    ["", "person", "class:", "temperature:hot", "temperature:1000", "cause:", "audit_miss:3", "x" * 500],
)
def test_another_text_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"^expected audit_miss, fallback, cause, .*; got '") as caught:
        parse_rules(["fallback", text])
    assert ALLOWED in str(caught.value) and len(str(caught.value)) < 400


def test_a_repeated_rule_counts_once():
    assert len(parse_rules(["fallback", "fallback ", "cause"])) == 2


def test_a_miss_of_the_audit_fires_for_each_one_but_not_for_those_before_the_start():
    one = Watched("audit_miss")
    fired = []
    for missed in ("4", "4", "5", "5", "7", "0", "1"):
        one.watch.on_status({"audit.missed": missed, "state": "active"})
        fired.append(bool(one.take()))
    assert fired == [False, False, True, False, True, False, True]


def test_a_fallback_fires_once_per_reason():
    one = Watched("fallback")
    fired = []
    for reason in ("", "no GPU", "no GPU", "", "no GPU", "driver lost"):
        one.watch.on_status({"backend.fallback_reason": reason})
        fired.append(bool(one.take()))
    assert fired == [False, True, False, False, True, True]


def test_a_cause_fires_when_it_becomes_the_cause_and_a_harmless_one_only_by_name():
    one = Watched("cause", "cause:source_finished")
    fired = []
    for level, name in ((0, "none"), (1, "no_images"), (1, "no_images"), (0, "source_finished"), (2, "x")):
        one.watch.on_output(level, {"cause": name})
        fired.append(one.take())
    assert fired == [[], ["cause"], [], ["cause:source_finished"], ["cause"]]


def test_a_temperature_fires_again_only_after_it_has_clearly_fallen():
    one = Watched("temperature:80")
    fired = []
    for value in ("79.9", "unavailable", "80", "79", "81", "76.9", "80"):
        one.watch.on_system({"temperature_c.max": value})
        fired.append(bool(one.take()))
    assert fired == [False, False, True, False, False, False, True]


def test_a_class_fires_when_it_appears_and_flicker_is_no_appearance():
    one = Watched("class:person")
    assert one.see(0.0, (1, 30)) == []
    assert one.see(0.1, (0, 30)) == ["class:person"]
    assert one.see(0.2) == one.see(0.3, (0, 30)) == one.see(0.9, (0, 90)) == []
    assert one.see(0.9 + ABSENT_NS / 1e9) == []
    assert one.see(2.5, (0, 30)) == ["class:person"]


def test_a_time_without_inferences_is_no_absence():
    one = Watched("class:person")
    assert one.see(0.0, (0, 30)) == ["class:person"]
    assert one.see(60.0, (0, 30)) == [], "the gate has skipped unchanged frames"


def test_a_zone_is_entered_at_the_bottom_centre():
    texts = "class:person in zone", "class:person in zone door", "class:person in zone tree"
    one = Watched(*texts)
    assert one.see(0, (0, 80)) == []
    assert one.see(1, (0, 30)) == list(texts[:2])
    assert one.see(3) == []
    # In the door, but in the tree, too: the zones together do not report it.
    assert one.see(5, (0, 5)) == list(texts[1:])


def test_without_zones_or_a_known_size_nothing_is_in_a_zone():
    one = Watched("class:person in zone")
    assert one.see(0, (0, 30), zones=Zones()) == one.see(1, (0, 30), size_px=None) == []


def test_what_the_model_and_the_zones_do_not_have_is_reported():
    watch = Watched("class:persn", "class:dog in zone gate", "class:person in zone door").watch
    assert (
        watch.trouble(LABELS, ZONES)
        == "rules: the model has no class persn and the detector has no zone gate"
    )
    assert watch.trouble((), Zones()) == "", "nothing is known yet"
    assert Watched("class:dog").watch.trouble(LABELS, ZONES) == ""


def test_only_what_a_rule_needs_is_evaluated():
    watch = Watched("fallback", "class:dog").watch
    assert watch.kinds() == {"fallback", "class"}
