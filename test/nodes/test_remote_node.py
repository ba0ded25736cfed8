"""The pipeline with the detector's model on a server that stops, dies and returns."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
from model_cases import DETECTOR, bundle_or_skip, video_frame
from ros_cases import CascadeNode, GateNode, Image, image_message, wait_until
from stage_cases import color_bundle
from v2_server import Server

from edge_vision.backends.serving import failure_history

WATCHDOG_MS = 2000.0


@pytest.fixture
def server() -> Iterator[Server]:
    started = Server(bundle_or_skip(DETECTOR).folder)
    yield started
    started.kill()


def detector(server: Server, **more: object) -> dict[str, dict[str, object]]:
    values = {
        "backend": "kserve",
        "remote_url": server.url,
        "watchdog_ms": WATCHDOG_MS,
        "fallback": ["onnxruntime"],
    }
    return {"detector": {**values, **more}, "gate": {"enabled": False}}


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP"])
def test_the_same_frame_is_inferred_here_and_the_server_returns(start, robot, server, monkeypatch, how):
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 1.0)
    running = start(overrides=detector(server))
    camera = robot.publisher(Image, "image_raw")
    street = video_frame("vtest.avi", 200).image
    camera.publish(image_message(street, 1))
    running.settled(1)
    _, values = robot.status(
        "detector", lambda status, values: values["backend.actual.backend"].startswith("kserve")
    )
    assert values["backend.actual.device"] == "cpu" and values["backend.actual.precision"] == "unavailable"
    model = running["detector"].model
    wait_until(lambda: model.current.session.deadline_s < WATCHDOG_MS / 1e3, "the deadline of the watchdog")
    server.signal(getattr(signal, how))
    camera.publish(image_message(street, 2))
    assert running.settled(2)["inferred"] == 2
    status, values = robot.status("detector")
    assert status.level == b"\x01" and status.message.startswith("fallback: kserve: the server 127.0.0.1:")
    assert values["backend.actual.backend"].startswith("onnxruntime ")
    if how == "SIGKILL":
        server.kill()
        server.start()
    else:
        server.signal(signal.SIGCONT)
    robot.status(
        "detector",
        lambda status, values: (
            values["backend.actual.backend"].startswith("kserve ") and status.level == b"\x00"
        ),
    )
    camera.publish(image_message(street, 3))
    assert running.settled(3)["inferred"] == 3 == running.ledger["received"]


def test_route_auto_warns_while_the_server_is_dead(start, robot, server):
    running = start(overrides=detector(server, route="auto"))
    camera = robot.publisher(Image, "image_raw")
    server.kill()
    wanted = "route auto: inference runs here only, the server"
    frames = 0

    def warned() -> bool:
        nonlocal frames
        frames += 1
        camera.publish(image_message(video_frame("vtest.avi", 200 + frames % 2).image, frames))
        assert running.settled(frames)["inferred"] == frames
        return running["detector"].health()[1].startswith(wanted)

    wait_until(warned, "the warning")
    _, values = robot.status("detector", lambda status, values: "route.remote_percent" in values)
    assert float(values["route.remote_percent"]) < 100.0
    assert values["backend.actual.backend"].startswith("kserve ") and values["backend.fallback_reason"] == ""


def test_the_address_is_no_matter_of_other_nodes(start, robot, server):
    running = start(overrides=detector(server))
    refused = robot.set("detector", remote_url="http://elsewhere")
    assert not refused.successful
    assert robot.set("detector", route="auto").successful
    wait_until(lambda: running["detector"].model.manager.request.request.route == "auto", "the change")
    assert not robot.set("detector", route="carrier pigeon").successful


def test_a_classifier_on_a_server_that_dies_and_returns(start, robot, tmp_path, monkeypatch):
    """With an address, the backend `auto` is the server."""
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 2.0)
    bundle = color_bundle(tmp_path)
    server = Server(bundle.folder)
    cascade = {"model": str(bundle.folder), "backend": "auto", "remote_url": server.url}
    cascade |= {"fallback": ["onnxruntime"], "max_blind_ms": 60000.0}
    try:
        running = start([GateNode, CascadeNode], {"cascade": cascade, "gate": {"enabled": False}})
        images = robot.publisher(Image, "image_raw")

        def rejected(number: int) -> int:
            images.publish(image_message(np.zeros((48, 64, 3), np.uint8), number))
            return running.settled(number)["rejected"]

        assert rejected(1) == 0 and rejected(2) == 1, "the first frame is a refresh"
        _, values = robot.status("cascade")
        assert values["backend.actual.backend"] == "kserve v2_server 1.0"
        server.kill()
        assert rejected(3) == 2
        robot.status("cascade", lambda status, _: status.message.startswith("fallback: kserve: the server"))
        server.start()
        _, values = robot.status("cascade", lambda status, _: status.level == b"\x00")
        assert values["backend.actual.backend"] == "kserve v2_server 1.0" and rejected(4) == 3
    finally:
        server.kill()


def test_an_address_without_effect_is_a_warning(start, server, capfd):
    start(overrides=detector(server, backend="onnxruntime"))
    assert (
        "remote_url has no effect with backend onnxruntime: set backend to kserve" in capfd.readouterr().err
    )
