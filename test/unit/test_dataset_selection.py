"""Which frames are kept: scores near the threshold, disagreement, quotas, random times, duplicates."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from dataset_cases import detections, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.core.detections import Detections
from edge_vision.dataset.picture_hash import (
    OBJECT_BITS,
    PICTURE_BITS,
    KnownPictures,
    difference_hash,
    differing_bits,
)
from edge_vision.dataset.selection import DailyQuota, RandomTimes, uncertain, unmatched

HASHES = st.integers(0, 2**64 - 1)


def gray(seed: int) -> np.ndarray:
    return cv2.cvtColor(picture(seed), cv2.COLOR_BGR2GRAY)


def test_objects_near_the_threshold_are_uncertain_on_both_sides_the_closest_first() -> None:
    found = detections((0, 0, 9, 9, 0.9, 0), (0, 0, 9, 9, 0.58, 1))
    low = detections((0, 0, 9, 9, 0.45, 2), (0, 0, 9, 9, 0.3, 0))
    assert uncertain(found, low, 0.5, 0.1).class_ids.tolist() == [2, 1]
    assert uncertain(found, None, 0.5, 0.1).class_ids.tolist() == [1]
    assert len(uncertain(Detections.empty(), None, 0.5, 0.1)) == 0


def test_models_disagree_about_sure_objects_that_the_other_one_lacks() -> None:
    ours = detections((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.8, 1), (80, 80, 90, 90, 0.4, 1))
    theirs = detections((0, 0, 10, 11, 0.2, 0), (50, 50, 60, 60, 0.9, 2))
    assert unmatched(ours, theirs, 0.5).class_ids.tolist() == [1]
    assert unmatched(theirs, ours, 0.5).class_ids.tolist() == [2]
    assert len(unmatched(Detections.empty(), theirs, 0.5)) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.lists(st.sampled_from("123"), min_size=1))
    ),
    st.integers(1, 4),
)
def test_no_day_reason_and_class_gets_more_than_its_quota(frames: list, limit: int) -> None:
    quota, kept = DailyQuota(), []
    for day, reason, classes in frames:
        if chosen := quota.open_classes(day, reason, classes, limit):
            assert set(chosen) <= set(classes)
            quota.add(day, reason, chosen)
            kept.append((day, reason, chosen))
    for day, reason, one in {(d, r, c) for d, r, classes in kept for c in classes}:
        assert sum(d == day and r == reason and one in classes for d, r, classes in kept) <= limit
    # What was refused was full, also after a restart from what is kept.
    again = DailyQuota(kept)
    for day, reason, classes in frames:
        assert again.open_classes(day, reason, classes, limit) == quota.open_classes(
            day, reason, classes, limit
        )


@pytest.mark.parametrize("per_hour", [60.0, 1800.0])
def test_random_times_have_their_mean_rate(per_hour: float) -> None:
    times = RandomTimes(seed=1)
    step_s, hours = 0.5, 50
    drawn = sum(times.is_due(i * step_s, per_hour) for i in range(int(hours * 3600 / step_s)))
    assert drawn / hours == pytest.approx(per_hour, rel=0.15)


def test_a_rate_of_0_draws_nothing_and_another_rate_takes_effect_at_once() -> None:
    times = RandomTimes(seed=1)
    assert not any(times.is_due(1e6 * i, 0.0) for i in range(100))
    assert any(times.is_due(1e8 + i, 3600.0) for i in range(60))


@given(HASHES, st.lists(HASHES, max_size=20))
def test_bits_are_counted_as_python_counts_them(one: int, others: list[int]) -> None:
    found = differing_bits(one, np.array(others, np.uint64))
    assert found.tolist() == [bin(one ^ other).count("1") for other in others]


@given(st.integers(0, 1000), st.integers(-20, 20), st.floats(0.7, 1.0))
@settings(deadline=None)
def test_the_hash_ignores_brightness_contrast_and_size(seed: int, offset: int, gain: float) -> None:
    image = gray(seed)
    brighter = np.clip(image * gain + 40 + offset, 0, 255).astype(np.uint8)
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    for changed in (brighter, small):
        bits = differing_bits(difference_hash(image), np.array([difference_hash(changed)], np.uint64))
        assert bits[0] <= PICTURE_BITS


def test_other_pictures_have_other_hashes() -> None:
    hashes = np.array([difference_hash(gray(seed)) for seed in range(60)], np.uint64)
    bits = np.stack([differing_bits(int(one), hashes) for one in hashes])
    assert bits[~np.eye(60, dtype=bool)].min() > PICTURE_BITS


@given(st.lists(st.tuples(st.sampled_from("ab"), HASHES, HASHES), min_size=1, max_size=10), HASHES, HASHES)
def test_a_kept_picture_stays_known_for_its_reason_only(kept: list, picture: int, crop: int) -> None:
    known = KnownPictures()
    before = known.contains("a", picture, crop)
    for one in kept:
        known.add(*one)
        assert known.contains(*one)
    assert all(known.contains(*one) for one in kept)
    assert not before and not known.contains("c", picture, crop)
    expected = any(
        reason == "a"
        and bin(picture ^ one).count("1") <= PICTURE_BITS
        and bin(crop ^ other).count("1") <= OBJECT_BITS
        for reason, one, other in kept
    )
    assert known.contains("a", picture, crop) == expected


def test_on_the_same_scene_only_another_object_is_new() -> None:
    known = KnownPictures()
    known.add("low_margin", 0b1011, 0)
    assert known.contains("low_margin", 0b1010, 0b1)
    assert not known.contains("low_margin", 0b1010, 2**32 - 1)
