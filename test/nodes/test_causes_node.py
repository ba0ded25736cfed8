"""Each cause of silence is provoked with real nodes and named; a healthy pipeline has none."""

from __future__ import annotations

import itertools
import os

import cause_cases as cases
import pytest
from cause_cases import NODES, OPEN, CauseScene, Output
from lifecycle_msgs.msg import Transition
from model_cases import SSD, clip_or_skip
from ros_cases import (
    ALL,
    CHAIN,
    SENSOR,
    DiagnosticArray,
    DiagnosticsNode,
    GateNode,
    Image,
    SourceNode,
    image_message,
    picture,
)

from edge_vision.nodes.interface.status_messages import status_values

OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"


@pytest.fixture
def output(robot):
    return Output(robot)


@pytest.fixture
def scene(robot, start):
    scene = CauseScene(robot, start)
    yield scene
    scene.close()


def test_no_publisher_with_similar_names(scene, output):
    status = output.named("no_publisher", cases.no_publisher(scene))
    assert status.level == WARN
    assert "gate subscribes to /image_raw, which has no publisher" in status.message
    assert "one of /front/image_raw, /depth" in status.message


def test_only_compressed_images_are_published(scene, output):
    status = output.named("no_publisher", cases.only_compressed(scene))
    assert (
        "only /image_raw/compressed is published: set image_transport: compressed on gate" in status.message
    )


def test_causes_contain_the_namespace(scene, output):
    scene.start(NODES, {**OPEN, "detector": {"enabled": False}}, ["-r", "__ns:=/front"])
    status = output.named("no_publisher")
    assert status.name == "front/output" and "/front/image_raw, which has no publisher" in status.message
    status = output.named("all_rejected", scene.camera(topic="/front/image_raw"))
    assert "ros2 param set /front/detector enabled true" in status.message


def test_wrong_type(scene, output):
    status = output.named("wrong_type", cases.wrong_type(scene))
    assert status.level == ERROR and "set image_transport to compressed" in status.message


def test_incompatible_qos(scene, output):
    status = output.named("incompatible_qos", cases.incompatible_qos(scene))
    assert status.level == ERROR and "/robot offers reliability best_effort" in status.message
    assert "set qos_overrides./image_raw.subscription.reliability to best_effort on gate" in status.message


def test_node_inactive(scene, robot, output):
    send = cases.node_inactive(scene)
    status = output.named("node_inactive", send)
    assert "ros2 lifecycle set /cascade activate" in status.message
    assert robot.change_state("cascade", Transition.TRANSITION_ACTIVATE)
    count = len(output.statuses)
    robot.wait(lambda: send() or other_causes(output, count, "node_inactive"), "the cause to go")


def other_causes(output, count, before):
    return [one for one in output.statuses[count:] if status_values(one)["cause"] != before]


def test_node_finalized(scene, robot, output):
    status = output.named("node_finalized", cases.node_finalized(scene))
    assert status.level == ERROR and "detector is finalized" in status.message
    status, values = robot.status("detector")
    assert status.level == ERROR and "finalized" in status.message and values["state"] == "finalized"


def test_node_missing(scene, output):
    status = output.named("node_missing", cases.node_missing(scene))
    assert status.level == ERROR and "cascade is not running" in status.message


def test_node_error(scene, output):
    status = output.named("node_error", cases.node_error(scene))
    assert status.level == ERROR and "it is broken" in status.message


def test_a_source_whose_file_does_not_exist(scene, output):
    status = output.named("source_unavailable", cases.source_missing_file(scene))
    assert status.level == WARN and "/no/such.avi" in status.message and "does not exist" in status.message


def test_a_source_is_asleep_until_its_rate_is_raised(scene, robot, output):
    status = output.named("source_asleep", cases.source_asleep(scene))
    assert status.level == WARN and "playback_rate" in status.message
    assert robot.status("source")[0].level == WARN
    assert robot.set("source", playback_rate=1.0).successful
    robot.status("source", lambda status, values: int(values["sent"]) > 2)


def test_a_source_that_has_finished(scene, output):
    status = output.named("source_finished", cases.source_finished(scene))
    assert status.level == OK and "set loop" in status.message


def test_a_pipe_without_a_writer(scene, robot, output, tmp_path):
    """It does not block another source."""
    os.mkfifo(tmp_path / "pipe.avi")
    scene.start([SourceNode, *NODES], {"source": {"uri": str(tmp_path / "pipe.avi")}})
    status = output.named("source_unavailable")
    assert "has not answered" in status.message and "pipe.avi" in status.message
    for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
        assert robot.change_state("source", transition)
    assert robot.set("source", uri=scene.clip(), loop=True).successful
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert robot.change_state("source", transition)
    robot.status("source", lambda status, values: int(values["sent"]) > 0)


def test_several_publishers_on_one_topic(scene, output):
    status = output.named("several_publishers", cases.several_publishers(scene), level=WARN)
    assert "(/rear, /robot)" in status.message and "/image_raw" in status.message


def test_silence_without_a_known_cause(scene, output):
    status = output.named("nothing_published", cases.nothing_published(scene))
    assert status.level == WARN and "no known cause applies" in status.message


def test_reactivated_diagnostics_have_no_old_reports(scene, robot, output):
    scene.start((DiagnosticsNode, *CHAIN))  # It reports before the others have reported again.
    output.named("no_publisher")
    statuses = robot.listen(DiagnosticArray, "/diagnostics")
    assert robot.change_state("diagnostics", Transition.TRANSITION_DEACTIVATE)
    robot.turns(4.0)
    statuses.clear()
    assert robot.change_state("diagnostics", Transition.TRANSITION_ACTIVATE)
    output.named("no_publisher")
    robot.wait(lambda: len(statuses) >= 2, "reports")
    texts = [one.message for message in statuses for one in message.status]
    assert not [text for text in texts if "no report" in text and " 0 s" not in text]


def test_model_not_loaded(scene, output):
    status = output.named("model_not_loaded", cases.model_not_loaded(scene))
    assert status.level == ERROR and "no_such_bundle" in status.message


def test_gate_closed(scene, output):
    status = output.named("gate_closed", cases.gate_closed(scene))
    # Intended by the setting of max_blind_ms: not a warning.
    assert status.level == OK and "reason: still" in status.message and "max_blind_ms" in status.message


def test_all_rejected(scene, output):
    status = output.named("all_rejected", cases.all_rejected(scene))
    assert status.level == WARN and "ros2 param set /detector enabled true" in status.message


def test_zero_stamps(scene, output):
    # Until the gate's own report has arrived, the text has the reason alone.
    status = output.named("bad_stamps", cases.zero_stamps(scene), text="must stamp its images")
    assert status.level == ERROR


def test_stamps_of_another_clock(scene, output):
    status = output.named("bad_stamps", cases.foreign_stamps(scene))
    assert status.level == WARN and "behind gate's clock" in status.message and "NTP" in status.message


def test_sim_time_without_a_clock(scene, output):
    status = output.named("sim_time_without_clock", cases.sim_time_without_clock(scene))
    assert status.level == ERROR and "/clock has no publisher" in status.message
    assert "gate, cascade, detector" in status.message


def test_unsupported_encoding(scene, output):
    status = output.named("unsupported_encoding", cases.unsupported_encoding(scene))
    assert status.level == ERROR and "'hologram'" in status.message and "Publish one of" in status.message


@pytest.mark.parametrize(
    "provoke, text",
    [
        (cases.images_too_large, "raise max_image_megapixels"),
        (cases.damaged_images, "(corrupt_image)"),
    ],
)
def test_images_that_are_all_refused(scene, output, provoke, text):
    status = output.named("bad_images", provoke(scene))
    assert status.level == ERROR and text in status.message


def test_a_silent_second_publisher_is_no_fault(scene, output, robot):
    """As a paused player, or a driver whose camera is off."""
    scene.start(NODES, {"detector": {"model": SSD}})
    robot.rematch(scene.other_node("rear").create_publisher(Image, "image_raw", SENSOR))
    status = output.named("several_publishers", scene.camera())
    assert status.level == OK and "unless only one of them sends" in status.message


def test_images_lost_between_two_nodes(scene, output):
    status = output.named("transport_loss", cases.loss_between_nodes(scene))
    assert status.level == WARN and "config/fastdds.xml" in status.message and "composition" in status.message


def test_images_lost_from_a_camera(scene, output):
    status = output.named("transport_loss", cases.loss_from_camera(scene))
    assert "while its camera_info arrives" in status.message and "config/fastdds.xml" in status.message


def test_large_images_of_which_many_are_lost(scene, output):
    status = output.named("transport_loss", cases.loss_in_part(scene), period_s=0.2)
    assert status.level == WARN and "images of 0.6 MB arrived on /image_raw" in status.message
    assert "config/fastdds.xml" in status.message
    assert "subscription.reliability to reliable on gate and /robot" in status.message


def test_a_silent_camera_is_not_a_loss(scene, output):
    status = output.named("publisher_silent", cases.publisher_silent(scene))
    assert "/robot publishes /image_raw" in status.message
    assert not [one for one in output.statuses if "transport_loss" in one.message]


def test_detector_stuck(scene, output):
    status = output.named("detector_stuck", cases.detector_stuck(scene))
    assert status.level == ERROR and "the runtime hangs" in status.message


def test_other_scene(scene, output):
    status = output.named("other_scene", cases.other_scene(scene))
    assert status.level == WARN and "select its teacher as model" in status.message


def test_all_scores_below_the_threshold(scene, output):
    status = output.named("below_threshold", cases.below_threshold(scene))
    # An empty scene is not a warning.
    assert status.level == OK and "the threshold 0.99" in status.message
    highest = float(status.message.partition("the highest score is ")[2].partition(",")[0])
    assert 0 < highest < 0.99


def test_a_cause_is_logged_once(scene, robot, output, capfd):
    scene.start(NODES)
    output.named("no_publisher")
    robot.turns(2.5)
    assert capfd.readouterr().err.count("no_publisher: gate subscribes to") == 1


@pytest.mark.parametrize("separate", [False, True])
def test_a_healthy_pipeline_has_no_cause_from_start_to_end(start, robot, output, separate):
    running = start(ALL, {"source": {"uri": clip_or_skip("vtest.avi"), "loop": True}}, separate=separate)
    robot.wait(lambda: len(output.statuses) >= 6, "six reports")
    running.end()
    robot.turns(1.0)
    assert [one.message for one in output.statuses if one.level != OK] == []


def test_a_camera_that_starts_first_causes_no_warning(start, robot, output):
    camera = robot.node.create_publisher(Image, "image_raw", SENSOR)
    numbers = itertools.count(1)
    robot.node.create_timer(
        0.1,
        lambda: camera.publish(
            image_message(picture(next(numbers)), robot.node.get_clock().now().nanoseconds)
        ),
    )
    running = start([GateNode, *CHAIN[1:], DiagnosticsNode])
    robot.wait(lambda: len(output.statuses) >= 5, "five reports")
    running.end()
    robot.turns(1.0)
    assert [one.message for one in output.statuses if one.level != OK] == []


def test_a_source_that_starts_late_in_the_same_process_causes_no_warning(start, robot, output):
    """The gate has subscribed through DDS by then, and still receives the images by reference."""
    source = {"uri": clip_or_skip("vtest.avi"), "loop": True, "autostart": False}
    running = start(ALL, {"source": source})
    output.named("node_inactive")
    robot.turns(3.5)
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        assert robot.change_state("source", transition)
    up = len(output.statuses)
    robot.status("gate", lambda status, values: int(values["ledger.received"]) > 45)
    alarms = [one.message for one in output.statuses[up:] if one.level != OK]
    assert [text for text in alarms if not text.startswith("node_inactive")] == []
    assert output.statuses[-1].level == OK
    assert robot.status("gate")[0].level == OK
    running.end()


def test_a_camera_with_a_late_first_image_causes_no_warning(scene, robot, output):
    scene.start(NODES)
    robot.turns(4.0)
    up = len(output.statuses)
    send = scene.camera()
    robot.turns(2.0)
    robot.wait(lambda: send() or len(output.statuses) > up + 4, "reports")
    assert [one for one in output.statuses[up:] if "publisher_silent" in one.message] == []
