"""How far two runtimes agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.backends.selection.parity import SAME_DB, sample_image, sqnr_db


def test_the_same_is_the_same():
    values = {"a": np.arange(5, dtype=np.float32)}
    assert sqnr_db(values, values) == SAME_DB
    assert sqnr_db({}, {}) == SAME_DB


@given(st.floats(1e-3, 0.5), st.floats(0.1, 100.0))
def test_a_share_of_noise_has_its_decibels(share, scale):
    """Noise of a tenth of the signal's amplitude is 20 dB below it, whatever the scale."""
    signal = scale * np.array([1.0, -1.0, 1.0, -1.0])
    noisy = signal * (1.0 + share)
    assert sqnr_db({"a": signal}, {"a": noisy}) == pytest.approx(-20.0 * np.log10(share), abs=0.01)


def test_the_worst_output_counts():
    wanted = {"good": np.ones(4), "bad": np.ones(4)}
    assert sqnr_db(wanted, {"good": np.ones(4), "bad": np.zeros(4)}) == pytest.approx(0.0)


def test_minus_infinity_in_both_is_the_same():
    masked = {"a": np.array([1.0, -np.inf, 2.0], np.float32)}
    assert sqnr_db(masked, {"a": masked["a"].copy()}) == SAME_DB
    assert sqnr_db(masked, {"a": np.array([1.1, -np.inf, 2.2])}) == pytest.approx(20.0, abs=0.01)
    assert sqnr_db(masked, {"a": np.array([-np.inf, -np.inf, 2.0])}) == float("-inf")


@pytest.mark.parametrize(
    "got",
    [{}, {"a": np.ones(3)}, {"a": np.array([1.0, np.nan])}, {"a": np.array([1.0, np.inf])}],
    ids=["missing", "shape", "nan", "inf"],
)
def test_what_cannot_be_compared_does_not_agree(got):
    assert sqnr_db({"a": np.ones(2)}, got) == float("-inf")


def test_something_where_nothing_should_be_does_not_agree():
    assert sqnr_db({"a": np.zeros(2)}, {"a": np.ones(2)}) == float("-inf")


def test_the_sample_image_is_always_the_same_and_uses_all_greys():
    first, second = sample_image(64, 48), sample_image(64, 48)
    assert (first.image == second.image).all() and first.image.shape == (48, 64, 3)
    assert first.image.min() == 0 and first.image.max() == 255 and first.image.std() > 20
