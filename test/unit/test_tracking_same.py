"""The fast tracker gives what the plain one gives, on real clips and on whatever comes."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import SSD, bundle_or_skip, clip_or_skip
from slow_tracking import SlowTracker

from edge_vision.backends import open_session
from edge_vision.core.detections import Detections
from edge_vision.core.detector import Detector
from edge_vision.core.frame import Frame
from edge_vision.core.tracking import Tracker

FRAMES = 120
PAN = np.array([[1.0, 0.001, 2.5], [-0.001, 1.0, -1.0], [0, 0, 1]])
ZOOM = np.array([[1.01, 0, -3.0], [0, 1.01, -2.0], [1e-6, 0, 1]])


@cache
def found_on(clip: str) -> tuple[list[Detections], tuple[int, int]]:
    """What the real detector finds on the first frames of a clip, and their size."""
    path, bundle = clip_or_skip(clip), bundle_or_skip(SSD)
    session, _ = open_session(bundle, "onnxruntime")
    detector, out, size = Detector.from_bundle(bundle, session), [], (0, 0)
    capture = cv2.VideoCapture(path)
    for n in range(FRAMES):
        ok, image = capture.read()
        if not ok:
            break
        size = image.shape[1], image.shape[0]
        out.append(detector.detect(Frame(image, n, "camera")))
    session.close()
    return out, size


def assert_same(fast, slow) -> None:
    np.testing.assert_array_equal(fast.ids, slow.ids)
    np.testing.assert_array_equal(fast.class_ids, slow.class_ids)
    np.testing.assert_array_equal(fast.scores, slow.scores)
    np.testing.assert_array_equal(fast.age_ms, slow.age_ms)
    np.testing.assert_allclose(fast.xyxy_px, slow.xyxy_px, rtol=1e-6, atol=1e-3)
    for name in ("xyxy_px", "scores", "class_ids", "ids", "age_ms"):
        assert getattr(fast, name).dtype == getattr(slow, name).dtype
        assert getattr(fast, name).flags.c_contiguous


@pytest.mark.parametrize("clip", ["vtest.avi", "bikes.mp4"])
@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("motion", ["still", "told", "unknown"])
def test_real_detections_give_the_same_tracks(clip: str, every: int, motion: str) -> None:
    found, size = found_on(clip)
    fast, slow, shown = Tracker(*size), SlowTracker(*size), 0
    for n, seen in enumerate(found):
        move = {"still": np.eye(3), "told": (PAN, ZOOM)[n % 7 == 0], "unknown": None}[motion]
        stamp_ns = 10**9 + n * 10**8
        if n % every == 0:
            assert_same(fast.update(seen, stamp_ns, move), slow.update(seen, stamp_ns, move))
        else:
            rests = n % 11 == 0
            told = fast.predict(stamp_ns, move, rests)
            assert_same(told, slow.predict(stamp_ns, move, rests))
            shown += len(told)
    assert every == 1 or shown > 25, "there was something to compare"


BOX = st.tuples(
    st.floats(-50, 700), st.floats(-50, 500), st.floats(0, 200), st.floats(0, 200), st.integers(0, 2)
)
STEP = st.tuples(
    st.booleans(),
    st.lists(BOX, max_size=30),
    st.integers(-20, 400),
    st.sampled_from([None, PAN, ZOOM, np.eye(3)]),
)


@settings(deadline=None, max_examples=150)
@given(st.lists(STEP, max_size=10))
def test_whatever_comes_they_agree(steps) -> None:
    """Crowds too: above some number of pairs, another way is taken to compare them."""
    fast, slow, stamp_ns = Tracker(640, 480), SlowTracker(640, 480), 10**9
    for inferred, boxes, ms, motion in steps:
        stamp_ns += ms * 10**6
        if inferred:
            rows = np.array([box[:4] for box in boxes], np.float32).reshape(-1, 4)
            rows[:, 2:] += rows[:, :2]
            scores = np.linspace(0.9, 0.1, len(rows), dtype=np.float32)
            seen = Detections(rows, scores, np.array([box[4] for box in boxes], np.int32))
            assert_same(fast.update(seen, stamp_ns, motion), slow.update(seen, stamp_ns, motion))
        else:
            assert_same(fast.predict(stamp_ns, motion), slow.predict(stamp_ns, motion))
