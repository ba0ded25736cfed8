"""Every bad image of every kind: a message, a count under `failed`, and the next good frame is inferred."""

from __future__ import annotations

import threading
from array import array

import cv2
import numpy as np
import pytest
from ros_cases import (
    ALL,
    ONLY_CHANGES,
    SENSOR,
    CascadeNode,
    CompressedImage,
    DetectorNode,
    GateNode,
    Image,
    detections_of,
    image_message,
    jpeg_message,
    picture,
    stamp_of,
)
from std_srvs.srv import Trigger

from edge_vision.core.frame import Frame

GOOD = picture(0)


def bad(**fields):
    return lambda stamp_ns: image_message(GOOD, stamp_ns, **fields)


def at(offset_ns=None, stamp_ns=None):
    return lambda now_ns: image_message(GOOD, now_ns + offset_ns if stamp_ns is None else stamp_ns)


def nanosec_too_large(stamp_ns: int) -> Image:
    message = image_message(GOOD, stamp_ns)
    message.header.stamp.nanosec = 4_000_000_000
    return message


# Name -> (the message at a stamp, the reason that it is counted under).
BAD_IMAGES = {
    "no pixels": (bad(width=0, height=0, step=0, data=array("B")), "zero_size"),
    "no height": (bad(height=0), "zero_size"),
    "truncated": (bad(data=array("B", GOOD.tobytes()[:-1])), "truncated"),
    "no data": (bad(data=array("B")), "truncated"),
    "step too small": (bad(step=GOOD.shape[1]), "bad_step"),
    "step of 0": (bad(step=0), "bad_step"),
    "step beyond the data": (bad(step=2**32 - 1), "truncated"),
    "more rows than data": (bad(height=2**32 - 1), "too_large"),
    "no encoding": (bad(encoding=""), "unsupported_encoding"),
    "unknown encoding": (bad(encoding="rgb9"), "unsupported_encoding"),
    "depth image": (bad(encoding="32FC1"), "unsupported_encoding"),
    "says bgra8": (bad(encoding="bgra8"), "bad_step"),
    "odd nv12": (bad(encoding="nv12", width=63, height=48, step=192), "bad_size"),
    "odd yuyv": (bad(encoding="yuyv", width=63, step=192), "bad_size"),
    "stamp of 0": (at(stamp_ns=0), "stamp_zero"),
    "negative stamp": (at(stamp_ns=-5), "stamp_zero"),
    "repeated stamp": (at(-1), "stamp_repeated"),
    "stamp going backwards": (at(-(10**9)), "stamp_backwards"),
    "stamp that is no time": (nanosec_too_large, "bad_stamp"),
}
STEP_NS = 10**10


def good_image(stamp_ns: int) -> Image:
    return image_message(picture(stamp_ns // STEP_NS), stamp_ns)


def good_jpeg(stamp_ns: int) -> CompressedImage:
    return jpeg_message(picture(stamp_ns // STEP_NS), stamp_ns)


def play(robot, running, camera, answers, make_good, cases, first_ns=10**12):
    """A good frame, then each bad one and a good one: all counted right, all good ones answered."""
    now_ns, expected_good = first_ns, [first_ns]
    camera.publish(make_good(now_ns))
    robot.wait(lambda: len(answers) == 1, "the first answer")
    reasons: dict[str, int] = {}
    for number, (name, (make, reason)) in enumerate(cases.items(), 1):
        camera.publish(make(now_ns + 1))
        running.settled(2 * number)
        reasons[reason] = reasons.get(reason, 0) + 1
        ledger = running.ledger
        assert ledger["failed"] == number, f"{name}: {ledger}"
        assert ledger.get(f"failed.{reason}") == reasons[reason], f"{name}: {ledger}"
        now_ns += STEP_NS
        camera.publish(make_good(now_ns))
        expected_good.append(now_ns)
        robot.wait_for(answers, number + 1, f"answers, the last after '{name}'")
        running.settled(2 * number + 1)
    assert [stamp_of(answer) for answer in answers] == expected_good
    ledger = running.ledger
    assert ledger["failed"] == len(cases) and ledger["inferred"] == len(cases) + 1
    assert {k[7:]: n for k, n in ledger.items() if k.startswith("failed.")} == reasons


def test_bad_images_are_counted_and_the_pipeline_continues(start, robot):
    running = start(ALL)
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    play(robot, running, camera, answers, good_image, BAD_IMAGES)


@pytest.mark.parametrize("name", ["truncated", "unknown encoding", "stamp of 0"])
def test_the_detector_alone_counts_them_too(start, robot, name):
    """Without a gate the detector is the first to see an image."""
    running = start([DetectorNode])
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_accepted")
    play(robot, running, camera, answers, good_image, {name: BAD_IMAGES[name]})


def jpeg(data: bytes):
    def make(stamp_ns: int) -> CompressedImage:
        message = jpeg_message(GOOD, stamp_ns)
        message.data = array("B", data)
        return message

    return make


def claims_30000(data: bytes) -> bytes:
    """The file with another size in its header: decoded, it would take 2.7 GB."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + b"\x75\x30\x75\x30" + data[at + 4 :]


def depth_message(stamp_ns: int) -> CompressedImage:
    message = jpeg_message(GOOD, stamp_ns)
    message.format = "16UC1; compressedDepth png"
    return message


JPEG = bytes(jpeg_message(picture(0, 640, 480), 1).data)
BAD_JPEGS = {
    "empty": (jpeg(b""), "zero_size"),
    "no jpeg": (jpeg(b"hello" * 100), "corrupt_image"),
    "head cut off": (jpeg(JPEG[2:]), "corrupt_image"),
    "only the head": (jpeg(JPEG[:100]), "corrupt_image"),
    "a header of 30000x30000": (jpeg(claims_30000(JPEG)), "too_large"),
    "a netpbm of 30000x30000": (jpeg(b"P6 30000 30000 255 "), "too_large"),
    "a gif": (jpeg(b"GIF89a" + bytes(100)), "unsupported_encoding"),
    "a depth image": (depth_message, "unsupported_encoding"),
    "stamp of 0": (lambda now_ns: jpeg_message(GOOD, 0), "stamp_zero"),
}


def test_bad_jpegs_are_counted_and_the_pipeline_continues(start, robot):
    running = start(overrides={"gate": {"image_transport": "compressed"}})
    answers = detections_of(robot)
    camera = robot.publisher(CompressedImage, "image_raw/compressed")
    play(robot, running, camera, answers, good_jpeg, BAD_JPEGS)
    robot.status("gate", lambda _, values: values.get("ledger.failed.too_large") == "2")


STAGES = {
    "gate": (GateNode, "image_raw", ".jpg"),
    "cascade": (CascadeNode, "gate/image", ".png"),
    "detector": (DetectorNode, "image_accepted", ".png"),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_node_reports_and_serves_while_it_decodes(start, robot, monkeypatch, name):
    """The decode is held up here until the node has reported and answered."""
    kind, topic, suffix = STAGES[name]
    real, begun, released = cv2.imdecode, threading.Event(), threading.Event()

    def decode(*args):
        begun.set()
        released.wait()
        return real(*args)

    running = start([kind], {name: {"image_transport": "compressed"}})
    if name != "detector":
        robot.listen(Image, {"gate": "gate/image", "cascade": "image_accepted"}[name], SENSOR)
        robot.wait(lambda: running[name].output.images.subscription_count, "the node to know us")
    camera = robot.publisher(CompressedImage, f"{topic}/compressed")
    message = jpeg_message(GOOD, STEP_NS)
    message.data = array("B", cv2.imencode(suffix, GOOD)[1].tobytes())
    monkeypatch.setattr(cv2, "imdecode", decode)
    try:
        camera.publish(message)
        robot.wait(begun.is_set, "the decode to begin")
        for _ in range(2):
            robot.status(name, lambda _, values: values["ledger.in_flight"] == "1")
        assert robot.call(Trigger, f"{name}/reset_stats", Trigger.Request()).success
    finally:
        released.set()
    assert running.settled(1)["failed"] == 0


def test_the_largest_image_is_a_parameter_of_all_transports(start, robot):
    running = start([GateNode], {"gate": {"max_image_megapixels": 0.003}})
    camera = robot.publisher(Image, "image_raw")
    camera.publish(good_image(STEP_NS))
    assert running.settled(1)["failed.too_large"] == 1
    frame = Frame(GOOD, 2 * STEP_NS, "camera", "bgr8", running.hub.next_seq())
    running["gate"].accept(frame, None)
    assert running.settled(2)["failed.too_large"] == 2
    assert robot.set("gate", max_image_megapixels=1.0).successful
    camera.publish(good_image(3 * STEP_NS))
    assert running.settled(3)["failed"] == 2


def test_a_jpeg_that_lost_its_end_fails_or_is_inferred_but_stops_nothing(start, robot):
    running = start(overrides={"gate": {"image_transport": "compressed"}})
    camera = robot.publisher(CompressedImage, "image_raw/compressed")
    for number in range(1, 4):
        message = jpeg_message(picture(number, 640, 480), number * STEP_NS)
        message.data = message.data[: len(message.data) * number // 4]
        camera.publish(message)
        running.settled(number)
    camera.publish(jpeg_message(GOOD, 9 * STEP_NS))
    assert running.settled(4)["inferred"] >= 1


ODD_BUT_GOOD = {
    "odd stride": lambda at_ns: image_message(
        np.pad(picture(at_ns), ((0, 0), (0, 1), (0, 0)))[:, :64],
        at_ns,
        step=65 * 3,
        data=padded(picture(at_ns)),
    ),
    "big endian": lambda at_ns: image_message(
        (picture(at_ns)[:, :, 0].astype(">u2") * 200), at_ns, encoding="mono16", is_bigendian=1
    ),
    "16 bit": lambda at_ns: image_message(picture(at_ns).astype(np.uint16) * 257, at_ns, encoding="rgb16"),
    "mono": lambda at_ns: image_message(picture(at_ns)[:, :, 1].copy(), at_ns, encoding="mono8"),
    "bayer": lambda at_ns: image_message(picture(at_ns)[:, :, 1].copy(), at_ns, encoding="bayer_gbrg8"),
    "nv12": lambda at_ns: image_message(
        picture(at_ns, 64, 72)[:, :, 0].copy(), at_ns, encoding="nv12", height=48, step=64
    ),
    "yuyv": lambda at_ns: image_message(picture(at_ns)[:, :, :2].copy(), at_ns, encoding="yuv422_yuy2"),
    "one pixel": lambda at_ns: image_message(picture(at_ns, 1, 1), at_ns),
    "one column": lambda at_ns: image_message(picture(at_ns, 1, 300), at_ns),
    "one row": lambda at_ns: image_message(picture(at_ns, 300, 1), at_ns),
}


def padded(image: np.ndarray) -> array:
    return array("B", np.pad(image, ((0, 0), (0, 1), (0, 0))).tobytes())


def test_odd_but_good_images_are_all_inferred(start, robot):
    running = start()
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    for number, (name, make) in enumerate(ODD_BUT_GOOD.items(), 1):
        camera.publish(make(number * STEP_NS))
        ledger = running.settled(number)
        assert ledger["inferred"] == number, f"{name}: {ledger}"
    robot.wait(lambda: len(answers) == len(ODD_BUT_GOOD), "all answers")
    assert running.ledger["failed"] == 0


def test_after_a_jump_back_frames_of_the_new_time_line_are_inferred(start, robot):
    """A bag that starts again loses one frame, and the gate forgets what it knew."""
    running = start(overrides={"gate": ONLY_CHANGES})
    camera = robot.publisher(Image, "image_raw")
    for number, stamp_s in enumerate([100, 101, 5, 6, 7], 1):
        camera.publish(image_message(GOOD, stamp_s * 10**9))
        running.settled(number)
    ledger = running.ledger
    assert ledger["failed.stamp_backwards"] == 1 and ledger["inferred"] == 2
    assert ledger["gated.still"] == 2


def test_the_ages_from_before_a_clock_jump_are_forgotten(start, robot):
    """The percentiles are those of 512 frames, of which these would be a part for minutes."""
    running = start(overrides={"gate": {"enabled": False}})
    camera = robot.publisher(Image, "image_raw")
    for number, behind_s in enumerate([3600] * 5 + [0] * 2, 1):
        stamp_ns = robot.node.get_clock().now().nanoseconds - behind_s * 10**9
        camera.publish(image_message(picture(number), stamp_ns))
        running.settled(number)
    _, values = robot.status("detector")
    assert running.ledger["inferred"] == 7 and 0 < float(values["age_ms.p99"]) < 3_000_000
