"""A pipeline in this process and a robot's node, ended after each test whatever happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ros_cases import Robot, Running


@pytest.fixture
def start(domain: int, robot: Robot) -> Iterator[Callable[..., Running]]:
    """Starts nodes: start(kinds, overrides, ros_args). In the end the ledger must balance, none in flight.

    It needs the robot only to end before it: rclpy's events executor keeps a publisher that was notified of a
    subscription's end, and with it the whole DDS participant, for as long as the process lives.
    """
    from ros_cases import Running

    started: list[Running] = []

    def begin(*args: Any, **kwargs: Any) -> Running:
        started.append(Running(domain, *args, **kwargs))
        return started[-1]

    yield begin
    for running in started:
        running.end()
        for hub in {running.hub, *running.hubs.values()}:
            ledger = hub.ledger.snapshot()
            assert ledger.balanced and ledger.in_flight == 0, f"the ledger at the end: {ledger}"
