"""What all tests share. Tests that need ROS, a model or a clip say so and skip where it is not there."""

from __future__ import annotations

import fcntl
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "unit"))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"


@pytest.fixture
def domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS domain that no other test on this machine uses now: a lock on a file says so."""
    with _free_domain() as file:
        number = int(Path(file.name).name.rpartition("_")[2])
        monkeypatch.setenv("ROS_DOMAIN_ID", str(number))
        yield number


def _free_domain():
    """Above 101 the ports of a domain lie among those that Linux hands out; the low ones are people's own."""
    numbers = list(range(20, 86))
    random.shuffle(numbers)
    for number in numbers:
        file = (Path(tempfile.gettempdir()) / f"edge_vision_test_domain_{number}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        return file
    raise RuntimeError("no free ROS domain: do other tests hang?")
