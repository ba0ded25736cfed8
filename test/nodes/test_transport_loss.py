"""Counts of lost messages that DDS reports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge_vision.nodes.transport.frame_input import LostMessages


@pytest.mark.parametrize(("reported", "lost"), [(0, 0), (7, 7), (2**31, 0), (-3, 0)])
def test_a_count_that_cannot_be_is_none(reported: int, lost: int) -> None:
    losses = LostMessages.__new__(LostMessages)
    losses._event = SimpleNamespace(take_event=lambda: SimpleNamespace(total_count_change=reported))
    assert losses.take() == lost
