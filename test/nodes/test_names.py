"""Namespaces and remaps mean the same inside a process and between processes."""

from __future__ import annotations

import pytest
from ros_cases import ALL, CHAIN, DetectorNode, GateNode, Image, detections_of, image_message, picture

CASES = {
    "namespace": (["-r", "__ns:=/front"], "/front/image_raw", "/front/detections"),
    "camera remapped": (["-r", "image_raw:=/camera/image"], "/camera/image", "/detections"),
    "namespace and camera": (
        ["-r", "__ns:=/robot1/left", "-r", "image_raw:=/camera/image"],
        "/camera/image",
        "/robot1/left/detections",
    ),
    "inner topics remapped": (
        ["-r", "gate/image:=/a", "-r", "image_accepted:=b/c", "-r", "detections:=found"],
        "/image_raw",
        "/found",
    ),
    "results under the detector's name": (
        ["-r", "detector:detections:=~/found"],
        "/image_raw",
        "/detector/found",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_chain_stays_in_process(start, robot, case):
    ros_args, camera_topic, results = CASES[case]
    running = start(CHAIN, ros_args=ros_args)
    answers = detections_of(robot, results)
    camera = robot.publisher(Image, camera_topic)
    camera.publish(image_message(picture(1), 5, "cam"))
    robot.wait(lambda: answers, "the answer")
    ledger = running.settled(1)
    assert ledger["inferred"] == 1 and "handed_on" not in ledger
    # The inner stages have no DDS subscription at all.
    assert not running["cascade"].input.topic and not running["detector"].input.topic


@pytest.mark.parametrize(
    "rule", ["image_raw:=/camera/image", "image_raw/compressed:=/camera/image/compressed"]
)
def test_a_remapped_camera_topic_takes_its_compressed_one_along(start, robot, rule):
    running = start([GateNode], {"gate": {"image_transport": "compressed"}}, ["-r", rule])
    assert running["gate"].input.topic == "/camera/image/compressed"


def test_the_diagnostics_find_the_nodes_of_their_namespace(start, robot):
    from ros_cases import DiagnosticArray

    start(ALL, ros_args=["-r", "__ns:=/front"])
    heard = robot.listen(DiagnosticArray, "/diagnostics")
    robot.wait(lambda: heard and len(heard[-1].status) == 7, "all statuses")
    names = [status.name for status in heard[-1].status]
    assert names[:4] == ["front/source", "front/gate", "front/cascade", "front/detector"]
    assert {status.hardware_id for status in heard[-1].status} == {"/front"}


def test_a_detector_can_subscribe_to_the_camera_directly(start, robot):
    running = start([DetectorNode], ros_args=["-r", "image_accepted:=/camera/image"])
    answers = detections_of(robot)
    camera = robot.publisher(Image, "/camera/image")
    for number in range(1, 4):
        camera.publish(image_message(picture(number), number, "cam"))
        robot.wait_for(answers, number, "answers")
    assert running.settled(3)["inferred"] == 3


def test_two_cameras_in_one_process_have_a_ledger_each(start, robot):
    """Two hubs, as two pipelines of one process have."""
    from edge_vision.nodes.transport.intra_process import IntraProcess

    running = start([GateNode], ros_args=["-r", "__ns:=/left"])
    other = IntraProcess()
    assert other.ledger is not running.hub.ledger
    with pytest.raises(ValueError, match="remap one of them"):
        GateNode(running.hub)
