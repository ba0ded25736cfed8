"""Cameras whose clocks jump, and cameras that vanish and come back different."""

from __future__ import annotations

import itertools
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from chaos_run import ChaosRun, Executable, street_clip
from ros_cases import Image, image_message
from rosgraph_msgs.msg import Clock

HOUR_NS = 3600 * 10**9
OFF_NS = 5 * HOUR_NS
SANE_MS = 10_000.0
"""An age below this is no clock error, whatever the load."""
SANE_AFTER = 100
"""Detections until all ages are sane again. A percentile has 512."""
AGE = re.compile(r"(^|[._])age_ms\b(?!\.histogram)")
TRACKED = ("--ros-args", "-p", "detector:publish_tracks:=true")
FRAMES = 40


class CameraProcess(Executable):
    """A camera driver: it publishes a clip with this size and encoding."""

    COMMAND = (sys.executable, str(Path(__file__).with_name("camera.py")))


def clock_jump(run: ChaosRun) -> None:
    """The camera's stamps jump by hours, repeat, and are zero; then a simulated clock jumps."""
    pipeline = run.launch("pipeline", *TRACKED)
    camera = StampedCamera(run)
    run.flow("before", camera.send)
    _jump_stamps(run, camera)
    if not run.short:
        _repeat_stamps(run, camera)
    run.end(pipeline)
    _jump_simulated_clock(run)


def camera_loss(run: ChaosRun) -> None:
    """The camera's driver is killed and comes back different; then the file of the source vanishes."""
    clip = street_clip()
    pipeline = run.launch("pipeline")
    camera = run.launch("camera", clip, "320x240", "bgr8", kind=CameraProcess)
    run.flow("a camera")
    camera.kill()
    silent = "^(publisher_silent|no_publisher): .*/image_raw"
    run.output("the camera is killed", "its topic, and that no image arrives", silent)
    camera = run.launch("camera", clip, "401x233", "mono8", kind=CameraProcess)
    run.flow("the camera is back with another size and encoding")
    if not run.short:
        run.end(camera)
        # The killed one stays in the graph for some 20 s.
        run.output("the camera ends in order", "its topic has no publisher", "^no_publisher: .*/image_raw")
        run.launch("camera", clip, "160x120", "rgb8", kind=CameraProcess)
        run.flow("the camera is back with a third size and encoding")
        run.no_fault("the camera is back with a third size and encoding")
    run.check("failed frames", "{}", str(run.received.failures()))
    run.end(pipeline)
    if not run.short:
        _lose_file(run)


def _jump_stamps(run: ChaosRun, camera: StampedCamera) -> None:
    for n, offset_ns in enumerate((OFF_NS,) if run.short else (OFF_NS, -OFF_NS), start=1):
        ahead = "ahead" if offset_ns > 0 else "behind"
        when = f"stamps five hours {ahead}"
        camera.offset_ns = offset_ns
        run.output(when, "bad_stamps, and the side", f"^bad_stamps: .*{ahead}", camera.send)
        before = len(run.received.detections)
        run.flow(when, camera.send)
        stamps_ns = run.received.detections[before:]
        off = all(abs(stamp - time.time_ns() - offset_ns) < HOUR_NS for stamp in stamps_ns)
        run.check(
            f"{when}: stamps of the detections", "the camera's", "the camera's" if off else str(stamps_ns)
        )
        camera.offset_ns = 0
        _sane(run, f"after {when}", camera)
        run.check(f"after {when}: failed frames", f"{{'stamp_backwards': {n}}}", str(run.received.failures()))


def _repeat_stamps(run: ChaosRun, camera: StampedCamera) -> None:
    count = run.received.count
    run.wait(
        "each stamp twice", "3 of stamp_repeated", lambda: count("failed.stamp_repeated") > 2, camera.twice
    )
    run.flow("each stamp twice", camera.twice)
    run.wait("stamps of zero", "3 of stamp_zero", lambda: count("failed.stamp_zero") > 2, camera.zero)
    run.output("stamps of zero", "bad_stamps", "^bad_stamps: .*its stamp is 0", camera.zero)
    _sane(run, "stamps are correct again", camera)
    reasons = ["stamp_backwards", "stamp_repeated", "stamp_zero"]
    run.check("reasons of all failed frames", str(reasons), str(sorted(run.received.failures())))
    run.summary["failed"] = run.received.failures()


def _jump_simulated_clock(run: ChaosRun) -> None:
    pipeline = run.launch("pipeline", *TRACKED, "-p", "use_sim_time:=true")
    camera = SimulatedCamera(run)
    run.flow("a simulated clock", camera.send)
    for hours in (-2,) if run.short else (1, -2):
        backwards = {"stamp_backwards": 1} if hours < 0 else {}
        when = f"the simulated clock jumps by {hours} h"
        camera.now_ns += hours * HOUR_NS
        run.flow(when, camera.send)
        _sane(run, when, camera)
        run.check(f"{when}: failed frames", str(backwards), str(run.received.failures()))
    if not run.short:
        run.reports("the simulated clock stands still", camera.freeze)
        _sane(run, "the simulated clock goes on", camera)
    run.end(pipeline)


def _sane(run: ChaosRun, when: str, camera: StampedCamera) -> None:
    """Wait until all reported ages are those of a pipeline with correct clocks."""
    before = len(run.received.detections)
    run.flow(when, camera.send)
    values, reports = run.received.values, run.received.reports.copy()

    def sane() -> bool:
        if not all(run.received.reports[node] > reports[node] for node in ("gate", "detector")):
            return False
        found = [age for node in ("gate", "detector") for key, age in values[node].items() if AGE.search(key)]
        return all(age == "unavailable" or -SANE_MS < float(age) < SANE_MS for age in found)

    run.wait(f"{when}: all reported ages", "below 10 s", sane, camera.send)
    used = len(run.received.detections) - before
    run.check(f"{when}: detections until then", f"<= {SANE_AFTER}", str(used), used <= SANE_AFTER)
    run.no_fault(when, camera.send)


def _lose_file(run: ChaosRun) -> None:
    clip = run.folder / "clip.avi"
    _write_clip(clip, (320, 240))
    pipeline = run.launch("pipeline", "--source", clip, "--loop")
    run.flow("a file")
    clip.rename(clip.with_suffix(".away"))
    run.output("the file vanishes", "source_unavailable, and its path", f"^source_unavailable: .*{clip}")
    _write_clip(clip.with_name("other.avi"), (240, 180))
    shutil.move(clip.with_name("other.avi"), clip)
    run.flow("another file takes its place")
    run.no_fault("another file takes its place")
    run.end(pipeline)


def _write_clip(path: Path, size_px: tuple[int, int]) -> None:
    """Two seconds of the street."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size_px)
    for image in itertools.islice(street(size_px), 20):
        writer.write(image)
    writer.release()


def street(size_px: tuple[int, int]) -> Iterator[np.ndarray]:
    """The first frames of the clip with this size, again and again."""
    capture = cv2.VideoCapture(street_clip())
    images = [cv2.resize(capture.read()[1], size_px) for _ in range(FRAMES)]
    capture.release()
    return itertools.cycle(images)


class StampedCamera:
    """A camera whose clock is wrong by offset_ns."""

    def __init__(self, run: ChaosRun) -> None:
        self._publisher = run.robot.publisher(Image, "image_raw")
        self._images = street((320, 240))
        self.offset_ns = 0

    def send(self) -> None:
        self._publish(time.time_ns() + self.offset_ns)

    def twice(self) -> None:
        stamp_ns = time.time_ns()
        self._publish(stamp_ns)
        self._publish(stamp_ns)

    def zero(self) -> None:
        self._publish(0)

    def _publish(self, stamp_ns: int) -> None:
        self._publisher.publish(image_message(next(self._images), stamp_ns))


class SimulatedCamera(StampedCamera):
    """A simulator: it publishes its clock with each image."""

    def __init__(self, run: ChaosRun) -> None:
        super().__init__(run)
        self._clock = run.robot.node.create_publisher(Clock, "/clock", 10)
        run.robot.rematch(self._clock)
        self.now_ns = 10 * HOUR_NS

    def send(self) -> None:
        self.now_ns += 10**8
        self.freeze()

    def freeze(self) -> None:
        """Publish an image without a step of the clock."""
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(self.now_ns, 10**9)
        self._clock.publish(message)
        self._publish(self.now_ns)
