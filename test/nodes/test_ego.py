"""The prior of the camera's motion as the gate gets it: real messages of IMU, odometry and calibration."""

from __future__ import annotations

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from nav_msgs.msg import Odometry
from ros_cases import SENSOR, GateNode, Image, image_message, picture
from sensor_msgs.msg import CameraInfo, Imu

from edge_vision.nodes.transport import ego_listener

START_NS = 1_700_000_000_000_000_000
MS = 10**6
WIDTH, HEIGHT, FOCAL = 640, 480, 500.0
YAW_RAD_S = 0.4


def stamp(at_ns: int) -> Time:
    sec, nanosec = divmod(at_ns, 10**9)
    return Time(sec=sec, nanosec=nanosec)


def imu_message(at_ns: int, rate: float = YAW_RAD_S) -> Imu:
    message = Imu()
    message.header.stamp = stamp(at_ns)
    message.angular_velocity.z = rate
    return message


def odometry_message(at_ns: int) -> Odometry:
    """It also drives: of that nothing may be seen, as it would need the distance of things."""
    message = Odometry()
    message.header.stamp = stamp(at_ns)
    half_rad = YAW_RAD_S * (at_ns - START_NS) / 1e9 / 2
    message.pose.pose.orientation.z, message.pose.pose.orientation.w = np.sin(half_rad), np.cos(half_rad)
    message.pose.pose.position.x = (at_ns - START_NS) / 1e8
    return message


def camera_info(focal_px: float = FOCAL, scale: int = 1) -> CameraInfo:
    """The calibration, of pictures `scale` times as large."""
    message = CameraInfo(width=WIDTH * scale, height=HEIGHT * scale)
    f, cx, cy = focal_px * scale, (WIDTH * scale - 1) / 2, (HEIGHT * scale - 1) / 2
    message.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
    return message


class Robots:
    """A gate that asks for a prior, a camera, a sensor; and what `decide` was given."""

    def __init__(self, start, robot, monkeypatch, kind: str, **params) -> None:
        self.robot, self.kind = robot, kind
        self.running = start([GateNode], {"gate": {"ego_prior": kind, **params}})
        self.gate = self.running["gate"]
        self.camera = robot.publisher(Image, "image_raw")
        self.sensor = robot.publisher(*((Imu, "imu") if kind == "imu" else (Odometry, "odom")), SENSOR)
        self.priors: list[np.ndarray | None] = []
        self.shown = 0
        decide = self.gate._gate.decide

        def spy(frame, mono_ns, prior=None):
            self.priors.append(prior)
            return decide(frame, mono_ns, prior)

        monkeypatch.setattr(self.gate._gate, "decide", spy)

    def turn(self, from_ms: int, to_ms: int, step_ms: int = 5) -> None:
        """The sensor's samples of a time, taken in by the gate."""
        make = imu_message if self.kind == "imu" else odometry_message
        for at_ms in range(from_ms, to_ms + 1, step_ms):
            before = self.seen
            self.sensor.publish(make(START_NS + at_ms * MS))
            self.robot.wait(lambda before=before: self.seen > before, f"the sample at {at_ms} ms")

    @property
    def seen(self) -> int:
        return self.gate._ego._accepted + self.gate._ego._rejected

    def show(self, at_ms: int) -> np.ndarray | None:
        """One picture; gives the prior that the gate had for it."""
        self.shown += 1
        self.camera.publish(image_message(picture(1, WIDTH, HEIGHT), START_NS + at_ms * MS))
        self.running.settled(self.shown)
        return self.priors[-1]


def assert_turned(motion: np.ndarray | None, seconds: float) -> None:
    """The middle of the picture of a forward-facing camera moved right, as the robot turned left."""
    assert motion is not None
    x, y, w = motion @ [(WIDTH - 1) / 2, (HEIGHT - 1) / 2, 1.0]
    expected_px = FOCAL * np.tan(YAW_RAD_S * seconds)
    assert x / w - (WIDTH - 1) / 2 == pytest.approx(expected_px, abs=0.01)
    assert y / w - (HEIGHT - 1) / 2 == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("kind", ["imu", "odometry"])
def test_the_gate_is_given_how_the_camera_turned(start, robot, monkeypatch, kind):
    """Between the stamps of the two frames that it analysed last, however the samples lie around them."""
    setup = Robots(start, robot, monkeypatch, kind, ego_focal_px=FOCAL)
    setup.turn(0, 100)
    assert setup.show(12) is None, "there is no frame before the first"
    assert_turned(setup.show(47), 0.035)
    assert_turned(setup.show(98), 0.051)
    setup.turn(105, 200)
    assert_turned(setup.show(198), 0.1)
    assert setup.show(900) is None, "the samples ended long before"
    _, values = robot.status("gate", lambda status, values: values["ledger.received"] == "5")
    assert values["ego_prior.frames"] == "3" and "no samples" in values["ego_prior.missing"]
    assert values["ego_prior.samples"] == "41" and values["ego_prior.rejected"] == "0"


def test_a_calibration_gives_the_focal_length(start, robot, monkeypatch):
    setup = Robots(start, robot, monkeypatch, "imu")
    setup.turn(0, 200)
    setup.show(50)
    assert setup.show(100) is None
    _, values = robot.status("gate", lambda status, values: values["ledger.received"] == "2")
    assert "camera_info" in values["ego_prior.missing"]
    infos = robot.publisher(CameraInfo, "camera_info", SENSOR)
    infos.publish(camera_info(scale=2))
    robot.wait(lambda: setup.gate._ego._prior._calibration, "the calibration")
    assert_turned(setup.show(150), 0.05)


def test_what_is_set_while_it_runs_acts_at_once(start, robot, monkeypatch):
    setup = Robots(start, robot, monkeypatch, "imu", ego_focal_px=FOCAL / 2)
    assert robot.set("gate", ego_focal_px=FOCAL).successful
    robot.rematch(setup.sensor)
    setup.turn(0, 100)
    setup.show(10)
    assert_turned(setup.show(50), 0.04)
    # The camera now faces left: turning left is still a turn about its y axis.
    assert robot.set("gate", ego_roll_deg=-90.0, ego_pitch_deg=0.0, ego_yaw_deg=0.0).successful
    robot.rematch(setup.sensor)
    setup.turn(105, 200)
    assert setup.show(110) is None, "the samples from before are forgotten"
    assert_turned(setup.show(150), 0.04)
    assert not robot.set("gate", ego_prior="compass").successful
    assert not robot.set("gate", ego_yaw_deg=361.0, ego_prior="none").successful
    assert robot.set("gate", ego_prior="none").successful
    assert setup.show(190) is None and setup.gate._ego._prior is None
    _, values = robot.status("gate")
    assert not [key for key in values if key.startswith("ego_prior.")]


def broken(**fields):
    def make(at_ns: int) -> Imu:
        message = imu_message(at_ns)
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    return make


def unstamped(at_ns: int) -> Imu:
    message = imu_message(at_ns)
    message.header.stamp = Time()
    return message


def no_time(at_ns: int) -> Imu:
    message = imu_message(at_ns)
    message.header.stamp.nanosec = 2**32 - 1
    return message


BAD = {
    "not a number": lambda at_ns: imu_message(at_ns, float("nan")),
    "no gyroscope": broken(angular_velocity_covariance=np.array([-1.0] + 8 * [0.0])),
    "no stamp": unstamped,
    "a stamp that is no time": no_time,
    "late": lambda at_ns: imu_message(at_ns - 50 * MS),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples_are_rejected_and_the_gate_continues(start, robot, monkeypatch, case):
    setup = Robots(start, robot, monkeypatch, "imu", ego_focal_px=FOCAL)
    setup.turn(0, 60)
    setup.sensor.publish(BAD[case](START_NS + 63 * MS))
    robot.wait(lambda: setup.gate._ego._rejected == 1, "the bad sample")
    setup.turn(65, 120)
    setup.show(10)
    assert_turned(setup.show(110), 0.1)
    assert setup.running.ledger["failed"] == 0


def test_after_a_jump_of_the_clock_both_go_on(start, robot, monkeypatch):
    """A bag that starts again: camera and gyroscope jump back together."""
    setup = Robots(start, robot, monkeypatch, "imu", ego_focal_px=FOCAL)
    setup.turn(5000, 5100)
    setup.show(5010)
    assert_turned(setup.show(5060), 0.05)
    setup.turn(0, 100)
    setup.show(10)
    assert setup.running.ledger["failed.stamp_backwards"] == 1
    assert setup.show(20) is None, "between two time lines lies nothing"
    assert_turned(setup.show(70), 0.05)


def test_a_requested_prior_without_samples_is_a_warning(start, robot, monkeypatch):
    monkeypatch.setattr(ego_listener, "TIMEOUT_S", 0.2)
    setup = Robots(start, robot, monkeypatch, "imu", ego_focal_px=FOCAL)
    for number in range(1, 40):
        setup.show(100 * number)
        robot.turns(0.02)
    status, _ = robot.status("gate", lambda status, values: status.level == b"\x01")
    assert "no ego prior" in status.message and "/imu: 1 publishers, 0 samples accepted" in status.message
    assert setup.running.ledger["failed"] == 0


CALIBRATIONS = {
    # message fields, focal length, principal point, size: of the picture that the camera really sends
    "whole": ({}, 1000.0, (639.5, 359.5), (1280, 720)),
    "binned": ({"binning_x": 2, "binning_y": 2}, 500.0, (319.5, 179.5), (640, 360)),
    "cut out": ({"roi": (100, 40, 640, 480)}, 1000.0, (539.5, 319.5), (640, 480)),
    "cut out, then binned": (
        {"roi": (100, 40, 640, 480), "binning_x": 4, "binning_y": 4},
        250.0,
        ((539.5 + 0.5) / 4 - 0.5, (319.5 + 0.5) / 4 - 0.5),
        (160, 120),
    ),
}


@pytest.mark.parametrize("case", CALIBRATIONS)
def test_the_calibration_of_cut_and_binned_pictures(case):
    given, focal_px, middle, size = CALIBRATIONS[case]
    message = CameraInfo(width=1280, height=720, k=[1000.0, 0, 639.5, 0, 1000.0, 359.5, 0, 0, 1.0])
    message.binning_x, message.binning_y = given.get("binning_x", 0), given.get("binning_y", 0)
    if "roi" in given:
        roi = message.roi
        roi.x_offset, roi.y_offset, roi.width, roi.height = given["roi"]
    matrix, width_px, height_px = ego_listener.calibration_of(message)
    assert (width_px, height_px) == size
    assert (matrix[0, 0], matrix[1, 1]) == pytest.approx((focal_px, focal_px))
    assert (matrix[0, 2], matrix[1, 2]) == pytest.approx(middle)


def test_an_invalid_calibration_is_ignored():
    assert ego_listener.calibration_of(CameraInfo()) is None
    assert ego_listener.calibration_of(CameraInfo(width=640, height=480, binning_x=2, binning_y=1)) is None
