"""Which detections are reported: by class, size and zone, and how many are not."""

from __future__ import annotations

import numpy as np
import pytest
from box_cases import boxes

from edge_vision.core.detections import DetectionResult, Detections
from edge_vision.core.geometry.zones import Zones
from edge_vision.detect.report_filter import ReportConfig, ReportFilter, check_names, unknown_classes

LABELS = ("person", "bicycle", "car", "traffic light")
SIZE = (640, 360)
RIGHT = Zones.parse(["exclude left 0,0 0.5,0 0.5,1 0,1"])


def three(score: float = 0.9) -> Detections:
    """A person at the left, a small person and a car at the right."""
    found = boxes((100, 100, 160, 200), (400, 100, 408, 160), (500, 100, 600, 180), score=score)
    return Detections(found.xyxy_px, found.scores, np.array([0, 0, 2], np.int32))


def reported(config: ReportConfig, result: DetectionResult | None = None) -> tuple[list[int], dict[str, int]]:
    """The left sides of the reported boxes, and the counts."""
    report = ReportFilter()
    report.configure(config, LABELS)
    kept = report.apply(result or DetectionResult(three()), SIZE)
    return kept.detections.xyxy_px[:, 0].astype(int).tolist(), report.status()


@pytest.mark.parametrize(
    "config,left,counts",
    [
        (ReportConfig(), [100, 400, 500], (0, 0, 0)),
        (ReportConfig(wanted_classes=("Person",)), [100, 400], (1, 0, 0)),
        (ReportConfig(wanted_classes=("bicycle",)), [], (3, 0, 0)),
        (ReportConfig(min_box_px=8), [100, 400, 500], (0, 0, 0)),
        (ReportConfig(min_box_px=9), [100, 500], (0, 1, 0)),
        (ReportConfig(zones=RIGHT), [400, 500], (0, 0, 1)),
        (ReportConfig(("car",), 9, RIGHT), [500], (2, 0, 0)),
        (ReportConfig(("person",), 9, RIGHT), [], (1, 1, 1)),
    ],
)
def test_each_rule_drops_its_objects_and_counts_the_first_reason(config, left, counts):
    keys = ("filtered.class", "filtered.size", "filtered.zone")
    assert reported(config) == (left, dict(zip(keys, counts, strict=True)))


def test_low_score_detections_are_filtered_and_not_counted():
    report = ReportFilter()
    report.configure(ReportConfig(zones=RIGHT), LABELS)
    kept = report.apply(DetectionResult(Detections.empty(), low_score=three(0.3), top_score=0.3), SIZE)
    assert kept.low_score is not None and len(kept.low_score) == 2 and kept.top_score == 0.3
    assert not any(report.status().values())


def test_nothing_detected_is_nothing_reported():
    assert reported(ReportConfig(("car",), 9, RIGHT), DetectionResult(Detections.empty()))[0] == []


def test_statistics_are_reset():
    report = ReportFilter()
    report.configure(ReportConfig(min_box_px=9), LABELS)
    report.apply(DetectionResult(three()), SIZE)
    report.reset_stats()
    assert report.status()["filtered.size"] == 0


def test_a_name_that_the_model_does_not_know_has_no_effect_and_is_reported():
    report = ReportFilter()
    report.configure(ReportConfig(("car", "preson")), LABELS)
    assert "'preson' (did you mean 'person'?)" in report.trouble
    assert report.keeps(three().xyxy_px, three().class_ids, SIZE).tolist() == [False, False, True]
    report.configure(ReportConfig(("preson",)), LABELS)
    assert report.keeps(three().xyxy_px, three().class_ids, SIZE).all(), "nothing wanted is left: all classes"
    report.configure(ReportConfig(("person",)), LABELS)
    assert report.trouble == ""


def test_unknown_names_are_listed_with_the_nearest_label():
    assert unknown_classes(["person", "Traffic Light"], LABELS) == ""
    assert unknown_classes(["anything"], ()) == "", "a model without labels knows no names"
    text = unknown_classes(["cra", "zzzzz", "x" * 1000, "more"], LABELS)
    assert text.startswith("expected labels of the model, got 'cra' (did you mean 'car'?), 'zzzzz', 'xxx")
    assert len(text) < 300


@pytest.mark.parametrize("names,needle", [([""], "'' as a name"), (["car", "Car"], "'car' more than once")])
def test_empty_and_repeated_names_are_refused(names, needle):
    with pytest.raises(ValueError, match="expected different names") as caught:
        check_names(names)
    assert needle in str(caught.value)
    check_names(["car", "person"])


def test_very_many_names_are_checked_in_linear_work():
    """If each were compared with each other, half a million would take hours."""
    check_names([str(number) for number in range(500_000)])
