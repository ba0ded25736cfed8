"""A pipeline in this process and a robot's node, ended after each test whatever happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ros_cases import Robot, Running
    from update_cases import World
    from updater_cases import Camera


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


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A repository of updates and its server."""
    from model_cases import SSD, bundle_or_skip
    from update_cases import World

    bundle_or_skip(SSD)
    world = World(tmp_path)
    yield world
    world.close()


@pytest.fixture
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an updater keeps its state that decides after few frames."""
    from updater_cases import hurry

    hurry(monkeypatch, tmp_path / "cache")
    return tmp_path / "cache" / "updates" / "default"


@pytest.fixture
def camera(robot: Robot) -> Iterator[Callable[[Running], Camera]]:
    """Starts a camera in front of running nodes."""
    from updater_cases import Camera

    cameras: list[Camera] = []

    def begin(running: Running) -> Camera:
        cameras.append(Camera(robot, running))
        return cameras[-1]

    yield begin
    for one in cameras:
        one.stop()
