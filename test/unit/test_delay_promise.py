"""What the cameras' promises need of one detector, and which of them no schedule can keep."""

from __future__ import annotations

import pytest

from edge_vision.detect.delay_promise import CameraNeed, unmet_promise


def test_the_need_is_one_inference_per_delay_and_frame_period() -> None:
    """10 fps and 100 ms: every second frame, as an object may appear on the first skipped one."""
    need = CameraNeed(service_ms=20.0, period_ms=100.0, max_delay_ms=100.0)
    assert need.interval_ms == 200.0 and need.share == pytest.approx(0.1)
    assert CameraNeed(20.0, 1000.0 / 30.0, 100.0).share == pytest.approx(0.15)


@pytest.mark.parametrize("count", [1, 4, 10])
def test_what_can_be_kept_is_no_problem(count: int) -> None:
    assert unmet_promise({f"/c{i}": CameraNeed(20.0, 100.0, 100.0) for i in range(count)}) == ""
    assert unmet_promise({}) == ""


def test_a_sum_above_the_detectors_time_is_named_with_its_figures() -> None:
    needs = {f"/c{i}": CameraNeed(31.0, 33.0, 100.0) for i in range(4)} | {
        "/slow": CameraNeed(40.0, 50.0, 200.0)
    }
    text = unmet_promise(needs)
    assert "needs 109% of the detector" in text, text
    assert "/c0 31 ms every 133 ms" in text and "/slow 40 ms every 250 ms" in text
    assert text.endswith("raise max_delay_ms, or select a faster model, backend or device")


def test_a_detector_slower_than_one_promise_is_named_first() -> None:
    text = unmet_promise({"/front": CameraNeed(20.0, 100.0, 100.0), "/rear": CameraNeed(140.4, 100.0, 100.0)})
    assert "takes 140 ms for a frame of /rear, more than its max_delay_ms 100" in text
    assert "no schedule can keep" in text


@pytest.mark.parametrize(("max_delay_ms", "period_ms"), [(1.0, 33.3), (10.0, 1000.0)])
def test_a_detector_that_infers_every_frame_keeps_any_delay(max_delay_ms: float, period_ms: float) -> None:
    """The preset recall promises 1 ms: every frame that differs."""
    assert unmet_promise({"/c": CameraNeed(20.0, period_ms, max_delay_ms)}) == ""
    assert "takes 40 ms" in unmet_promise({"/c": CameraNeed(40.0, 33.3, 1.0)})
