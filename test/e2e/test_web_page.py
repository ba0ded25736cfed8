"""The live page over HTTP: pictures with the boxes of their stamp, of pipelines that do not depend on it."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from typing import Any

import cv2
import numpy as np
import pytest
from model_cases import clip_or_skip
from ros_cases import Robot, wait_until
from vision_msgs.msg import Detection2DArray
from web_cases import (
    HEIGHT_PX,
    LABELS,
    WIDTH_PX,
    FakePipeline,
    PageClient,
    address_of,
    box_of,
    free_port,
    grey_of,
)

from edge_vision.web.pairing import HOLD_S


def grey(jpeg: bytes) -> tuple[float, tuple[int, ...]]:
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return float(image.mean()), image.shape


def check_frames(client: PageClient, pipeline: FakePipeline) -> None:
    """Picture, boxes and kind are those of the frame with the header's stamp."""
    for header, jpeg in client.frames:
        number = pipeline.numbers[int(header["stamp"])]
        assert header["tracks_stamp"] == header["stamp"] and header["camera"] == pipeline.namespace
        assert header["kind"] == ("predicted" if number % 3 else "inferred")
        assert header["reason"] == ("predicted" if number % 3 else "change")
        assert header["boxes"] == [[*box_of(number), 0.875, "1", str(number)]]
        assert abs(grey(jpeg)[0] - grey_of(number)) < 5
        assert (header["width"], header["height"]) == (WIDTH_PX, HEIGHT_PX) and header["age_ms"] >= 0
    stamps = [int(header["stamp"]) for header, _ in client.frames]
    assert stamps == sorted(set(stamps)) and len(stamps) > 5


def test_each_picture_has_the_boxes_of_its_stamp_while_somebody_watches(launch, robot: Robot) -> None:
    url = address_of(launch("web", "--port", free_port())).rstrip("/")
    pipeline = FakePipeline(robot, "/front")

    def publish() -> None:
        pipeline.report()
        robot.turn()

    with PageClient(url, ["/front"]) as client:
        robot.wait(lambda: publish() or pipeline.images.get_subscription_count(), "a subscription to images")
        pipeline.run(range(30), lambda: len(client.frames) > 5 and len(client.records("/front")) >= 15)
        check_frames(client, pipeline)
        robot.wait(lambda: client.last("scene", "/front").get("zones"), "labels and zones")
        scene = client.last("scene", "/front")
        assert scene["labels"] == {"0": LABELS[0], "1": LABELS[1]}
        assert [(one["name"], one["exclude"]) for one in scene["zones"]] == [("gate", False), ("road", True)]
        records = client.records("/front")
        found = {(outcome, reason) for _, outcome, reason, _ in records}
        # Of the first frames, some topics may be missing.
        assert found - {("no result", "change")} == {("inferred", "change"), ("gated", "predicted")}
        assert len({one[0] for one in records}) == len(records) >= 15
        status = client.last("status", "/front")["status"]
        assert status["ledger"]["counts"]["received"] == 1234 and status["audit"]["high"] == 0.06
    # Nobody watches: nothing is subscribed to, so the camera's images are neither sent nor encoded.
    robot.wait(lambda: pipeline.images.get_subscription_count() == 0, "the subscription to end")


def test_without_tracks_the_picture_comes_without_boxes(launch, robot: Robot) -> None:
    url = address_of(launch("web_node", "--port", free_port())).rstrip("/")
    pipeline = FakePipeline(robot, "/front")
    with PageClient(url, ["/front"]) as client:
        robot.wait(
            lambda: pipeline.report() or pipeline.images.get_subscription_count(), "a subscription to images"
        )
        robot.node.destroy_publisher(pipeline.tracks)
        pipeline.tracks = robot.node.create_publisher(Detection2DArray, "elsewhere", 1)
        robot.turns(HOLD_S)
        pipeline.run(range(10), lambda: bool(client.frames))
        assert client.frames
        assert all(h["tracks_stamp"] is None and h["boxes"] == [] and not h["kind"] for h, _ in client.frames)


def test_jpegs_are_passed_on_as_they_came_and_8k_is_scaled_down(launch, robot: Robot) -> None:
    url = address_of(launch("web", "--port", free_port())).rstrip("/")
    pipeline = FakePipeline(robot, "/rear", compressed=True)
    with PageClient(url, ["/rear", "/front"]) as client:
        robot.wait(
            lambda: pipeline.report() or pipeline.images.get_subscription_count(), "a subscription to images"
        )
        pipeline.run(range(12), lambda: len(client.frames) > 5)
        check_frames(client, pipeline)
        for header, jpeg in client.frames:
            assert header["passed"] and jpeg == pipeline.jpegs[int(header["stamp"])]
        client.frames.clear()
        for number in range(100):
            pipeline.frame(number, size=(7680, 4320))
            robot.turns(0.3)
            if client.frames:
                break
        header, jpeg = client.frames[0]
        assert (header["width"], header["height"], header["passed"]) == (7680, 4320, False)
        assert grey(jpeg)[1] == (540, 960, 3) and header["tracks_stamp"] == header["stamp"]


def get(url: str, **options: Any) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, **options), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_real_pipeline_is_shown_and_its_parameters_are_set_with_the_token(launch) -> None:
    video = clip_or_skip("vtest.avi")
    web = launch("web", "--port", free_port(), "--allow-control")
    launch("pipeline", "--cameras", "front,rear", "--source", video, "--loop")
    url, _, token = address_of(web).partition("?token=")
    url, headers = url.rstrip("/"), {"Authorization": f"Bearer {token}"}
    assert get(f"{url}/")[0] == get(f"{url}/parameters?camera=/front")[0] == 401
    with PageClient(url, ["/front", "/rear"], headers) as client:
        for camera in ("/front", "/rear"):
            wait_until(
                lambda camera=camera: (
                    {h["kind"] for h, _ in list(client.frames) if h["camera"] == camera}
                    >= {"inferred", "predicted"}
                ),
                f"both kinds of pictures of {camera}",
            )
            wait_until(lambda camera=camera: client.records(camera), "the timeline")
        with_boxes = [header for header, _ in client.frames if header["tracks_stamp"]]
        assert all(header["tracks_stamp"] == header["stamp"] for header in with_boxes)
        assert any(header["boxes"] for header in with_boxes)
        counts = wait_until(
            lambda: client.last("status", "/front").get("status", {}).get("ledger", {}).get("counts"),
            "a ledger",
        )
        assert counts["received"] == sum(n for fate, n in counts.items() if fate != "received")

        def parameter(name: str) -> Any:
            status, text = get(f"{url}/parameters?camera=/front", headers=headers)
            assert status == 200, text
            found = [one for one in json.loads(text)["parameters"] if f"{one['node']}.{one['name']}" == name]
            return found[0]

        def set_value(node: str, name: str, value: Any, given: dict[str, str] = headers) -> tuple[int, str]:
            body = json.dumps({"camera": "/front", "node": node, "name": name, "value": value}).encode()
            return get(f"{url}/parameters", data=body, headers=given)

        assert parameter("gate.max_delay_ms")["read_only"] is False
        assert parameter("detector.autostart")["read_only"] is True
        assert set_value("gate", "max_delay_ms", 321)[0] == 200
        assert parameter("gate.max_delay_ms")["value"] == 321.0
        for node, name, value in (
            ("gate", "max_delay_ms", -1),
            ("gate", "max_delay_ms", "fast"),
            ("gate", "autostart", False),
            ("gate", "nonsense", 1),
            ("nobody", "max_delay_ms", 1),
        ):
            status, text = set_value(node, name, value)
            assert status == 400 and "expected" in text, text
        assert set_value("gate", "max_delay_ms", 5, {})[0] == 401
        assert parameter("gate.max_delay_ms")["value"] == 321.0
    assert web.end() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--port", "0"), 2, "expected a port from 1 to 65535, got '0'"),
        (("--token-file", "/nowhere"), 2, "expected a file that can be read, got /nowhere: No such file"),
        (("--ros-args", "-r", "x:=:="), 2, "x:=:="),
    ],
)
def test_wrong_arguments_are_one_line(launch, arguments: tuple[str, ...], status: int, text: str) -> None:
    port = () if "--port" in arguments else ("--port", free_port())
    web = launch("web", *port, *arguments)
    assert web.process.wait(60) == status and text in web.output, web.output


def test_a_taken_port_is_one_line(launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        web = launch("web", "--port", taken.getsockname()[1])
        assert web.process.wait(60) == 1
        assert "cannot listen on 127.0.0.1" in web.output and "another --port" in web.output
