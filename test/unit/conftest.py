"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def trials_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every graph counts as tried: files and graphs are read in this process, without a child process."""
    from edge_vision.backends.trial import record

    monkeypatch.setattr(record, "passed", lambda key: True)
