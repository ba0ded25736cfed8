"""Backends that die or hang in the middle of a video, and models that are changed during the work."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref

import psutil
import pytest
from fake_backend import FakeBackend, Fault, register
from model_cases import SSD, bundle_or_skip, clip_or_skip, video_frame
from ros_cases import (
    ALL,
    LATCHED,
    Image,
    adds_up,
    detections_of,
    image_message,
    picture,
    wait_until,
)
from vision_msgs.msg import LabelInfo, VisionInfo

from edge_vision.backends.serving import failure_history
from edge_vision.core.frame import Frame
from edge_vision.detect.heads.nanodet import NanoDetHead

OPEN = {"gate": {"enabled": False}}
FAULTS = {
    "error": Fault(error="the accelerator is gone"),
    "nan": Fault(nan=True),
    "missing output": Fault(missing_output=True),
    "wrong shape": Fault(wrong_shape=True),
}
STREET = 200
# What a hang is: far longer than any load makes a run of these models.
WATCHDOG_MS = 2000.0


@pytest.fixture
def fake(monkeypatch):
    register(monkeypatch)
    return {"backend": "fake", "precision": "fp32"}


@pytest.fixture
def models(tmp_path):
    """Two good bundles, which differ in their labels' file and version, and a damaged one."""
    folders = {}
    for name, version in (("first", "1.0.0"), ("second", "2.0.0"), ("damaged", "3.0.0")):
        folders[name] = tmp_path / name
        shutil.copytree(bundle_or_skip(SSD).folder, folders[name])
        manifest = folders[name] / "bundle.yaml"
        manifest.write_text(manifest.read_text().replace("version: 1.0.0", f"version: {version}"))
    labels = folders["second"] / "labels.txt"
    labels.write_text(labels.read_text().replace("person", "human"))
    graph = folders["damaged"] / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    return {name: str(folder) for name, folder in folders.items()}


class Hang:
    """Lets a session's runs wait until they are let go on."""

    def __init__(self, session, monkeypatch) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()
        run = session.run

        def hang(tensors):
            self.inside.set()
            self.go_on.wait(60)
            return run(tensors)

        monkeypatch.setattr(session, "run", hang)


@pytest.mark.parametrize("case", FAULTS)
def test_a_backend_that_fails_loses_no_frame(start, robot, fake, monkeypatch, case):
    """The next backend infers the same frame."""
    running = start(overrides={"detector": fake, **OPEN})
    monkeypatch.setattr(FakeBackend, "standing", FAULTS[case])
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    street = video_frame("vtest.avi", STREET).image
    session = running["detector"].model.current.session
    for number in (1, 2, 3, 4):
        session.fault = FAULTS[case] if number == 2 else Fault()
        camera.publish(image_message(street, number))
        running.settled(number)
    assert running.ledger["inferred"] == 4
    robot.wait_for(answers, 4, "answers")
    assert [one.header.stamp.nanosec for one in answers] == [1, 2, 3, 4]
    first = [(one.bbox.center.position.x, one.bbox.size_x) for one in answers[0].detections]
    assert len(first) >= 5
    for answer in answers[1:]:
        boxes = [(one.bbox.center.position.x, one.bbox.size_x) for one in answer.detections]
        assert boxes == [pytest.approx(box, abs=1e-3) for box in first]
    status, values = robot.status("detector")
    assert status.level == b"\x01" and status.message.startswith("fallback: fake: ")
    assert values["backend.requested.backend"] == "fake"
    assert values["backend.actual.backend"].startswith("onnxruntime ")
    assert values["backend.failed"].startswith("fake: ")


def test_it_returns_to_the_requested_backend(start, robot, fake, monkeypatch):
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 2.0)  # Statuses come each second.
    running = start(overrides={"detector": fake, **OPEN})
    camera = robot.publisher(Image, "image_raw")
    running["detector"].model.current.session.fault = FAULTS["error"]
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1
    robot.status(
        "detector", lambda status, values: values["backend.actual.backend"].startswith("onnxruntime ")
    )
    robot.status(
        "detector",
        lambda status, values: (
            values["backend.actual.backend"].startswith("fake ")
            and values["backend.failed"] == ""
            and status.level == b"\x00"
        ),
    )
    camera.publish(image_message(picture(2), 2))
    assert running.settled(2)["inferred"] == 2


def test_where_no_other_may_run_frames_fail_until_it_works_again(start, robot, fake, monkeypatch):
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 0.1)
    running = start(overrides={"detector": {**fake, "strict_backend": True}, **OPEN})
    camera = robot.publisher(Image, "image_raw")
    monkeypatch.setattr(FakeBackend, "standing", FAULTS["error"])
    running["detector"].model.current.session.fault = FAULTS["error"]
    for number in (1, 2):
        camera.publish(image_message(picture(number), number))
        running.settled(number)
    assert running.ledger["failed.BackendError"] == 2
    status, _ = robot.status("detector", lambda status, values: status.level == b"\x02")
    assert "the accelerator is gone" in status.message
    monkeypatch.setattr(FakeBackend, "standing", Fault())
    robot.wait(lambda: not running["detector"].model.manager.status_values()["backend.failed"], "its return")
    camera.publish(image_message(picture(3), 3))
    assert running.settled(3)["inferred"] == 1


def test_a_backend_that_hangs_loses_no_frame(start, robot, fake, monkeypatch):
    """The next backend infers the frame on which the first hangs, whose late result is dropped."""
    running = start(overrides={"detector": {**fake, "watchdog_ms": WATCHDOG_MS}, **OPEN})
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    hung = running["detector"].model.current
    hang = Hang(hung.session, monkeypatch)
    camera.publish(image_message(picture(1), 1))
    assert hang.inside.wait(30)
    assert running.settled(1)["inferred"] == 1
    robot.wait_for(answers, 1, "answers")
    camera.publish(image_message(picture(2), 2))
    assert running.settled(2)["inferred"] == 2
    status, values = robot.status("detector")
    assert status.level == b"\x01" and f"did not end within {WATCHDOG_MS:.0f} ms" in status.message
    assert values["busy_ms"] == "0.000"
    hang.go_on.set()
    wait_until(lambda: hung.session.closed, "the late run to end and its session to be closed")
    robot.turns(0.3)
    assert len(answers) == 2 and adds_up(running.ledger) and running.ledger["inferred"] == 2


def test_a_newer_frame_goes_before_the_one_that_hangs(start, robot, fake, monkeypatch):
    running = start(overrides={"detector": {**fake, "watchdog_ms": WATCHDOG_MS}, **OPEN})
    answers = detections_of(robot)
    camera = robot.publisher(Image, "image_raw")
    session = running["detector"].model.current.session
    hang = Hang(session, monkeypatch)
    camera.publish(image_message(picture(1), 1))
    assert hang.inside.wait(30)
    receive, hub = running.hub.receiver("/image_raw"), running.hub
    receive(Frame(picture(2), 2, "cam", "bgr8", hub.next_seq()), None)
    ledger = running.settled(2)
    assert (ledger["inferred"], ledger["superseded"]) == (1, 1)
    robot.wait_for(answers, 1, "answers")
    assert answers[0].header.stamp.nanosec == 2
    running.end()
    hang.go_on.set()
    wait_until(lambda: session.closed, "the late run to end, though the node is gone")


def test_slow_decoding_of_the_outputs_is_no_hang(start, robot, fake, monkeypatch):
    running = start(overrides={"detector": {**fake, "watchdog_ms": 2000.0}, **OPEN})
    camera = robot.publisher(Image, "image_raw")
    model = running["detector"].model
    checks, inside, go_on = [], threading.Event(), threading.Event()
    revoke, decode = model.manager.revoke, NanoDetHead.decode

    def slow_decode(*args):
        inside.set()
        go_on.wait(60)
        return decode(*args)

    monkeypatch.setattr(NanoDetHead, "decode", slow_decode)
    monkeypatch.setattr(
        model.manager, "revoke", lambda *args: checks.append(inside.is_set()) or revoke(*args)
    )
    camera.publish(image_message(picture(1), 1))
    assert inside.wait(30)
    robot.wait(lambda: sum(checks) >= 5, "the watchdog to check it")
    assert model.manager.model and not model.manager.status_values()["backend.failed"]
    go_on.set()
    assert running.settled(1)["inferred"] == 1
    assert robot.status("detector")[1]["backend.actual.backend"].startswith("fake")


def test_without_a_watchdog_it_waits(start, robot, fake, monkeypatch):
    running = start(overrides={"detector": {**fake, "watchdog_ms": 0.0}, **OPEN})
    camera = robot.publisher(Image, "image_raw")
    hang = Hang(running["detector"].model.current.session, monkeypatch)
    camera.publish(image_message(picture(1), 1))
    assert hang.inside.wait(30)
    robot.turns(1.0)
    assert running.ledger["in_flight"] == 1
    hang.go_on.set()
    assert running.settled(1)["inferred"] == 1


@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_backend_that_fails_during_a_video_is_replaced(start, robot, fake, monkeypatch, how):
    """vtest.avi through the whole pipeline at its own rate: after the fault, detections go on."""
    source = {"uri": clip_or_skip("vtest.avi"), "loop": True}
    running = start(ALL, {"source": source, "detector": {**fake, "watchdog_ms": WATCHDOG_MS}})
    answers = detections_of(robot)
    robot.wait(lambda: len(answers) >= 10, "the first answers")
    session = running["detector"].model.current.session
    monkeypatch.setattr(FakeBackend, "standing", FAULTS["error"])
    if how == "dies":
        session.fault = FAULTS["error"]
    else:
        hang = Hang(session, monkeypatch)
        assert hang.inside.wait(30)
    before = len(answers)
    robot.wait(lambda: len(answers) >= before + 10, "answers of the next best")
    assert running["detector"].model.current.report.actual.backend == "onnxruntime"
    assert sum(len(one.detections) for one in answers[-10:]) >= 10
    if how == "hangs":
        hang.go_on.set()
    running["source"].deactivate()
    ledger = wait_until(lambda: running.ledger["in_flight"] == 0 and running.ledger, "the ledger to close")
    assert adds_up(ledger) and ledger["failed"] == 0


def test_a_model_is_changed_by_its_parameter(start, robot, models):
    running = start(overrides={"detector": {"model": models["first"]}, **OPEN})
    labels, versions = (
        robot.listen(LabelInfo, "label_info", LATCHED),
        robot.listen(VisionInfo, "vision_info", LATCHED),
    )
    robot.wait(lambda: labels and versions, "what is latched")
    assert robot.set("detector", model=models["second"]).successful
    robot.wait(lambda: len(versions) >= 2 and len(labels) >= 2, "word of the new model")
    assert versions[-1].database_version == versions[0].database_version + 1
    assert versions[-1].method.endswith(" 2.0.0")
    names = [[one.class_name for one in message.class_map] for message in labels]
    assert "person" in names[0] and "human" in names[-1]
    assert running["detector"].state == "active", "it was never down"
    _, values = robot.status("detector", lambda status, values: values["swap.loading"] == "False")
    assert values["model"].endswith(" 2.0.0") and values["swap.error"] == ""


def test_the_gate_passes_a_frame_after_a_model_swap(start, robot, models):
    running = start(overrides={"detector": {"model": models["first"]}, "gate": {"max_blind_ms": 60000.0}})
    camera, gate = robot.publisher(Image, "image_raw"), running["gate"]

    def still_until(done):
        """The same picture again and again. The gate hears of results and of models a moment later."""
        for _ in range(50):
            number = running.ledger["received"] + 1
            camera.publish(image_message(picture(1), number * 10**8))
            running.settled(number)
            if done():
                return
        raise AssertionError(f"50 still frames: {running.ledger}, {gate._gate.status()}")

    still_until(lambda: running.ledger["gated"] >= 3)
    assert robot.set("detector", model=models["second"]).successful
    robot.wait(lambda: running["detector"].model.current.bundle.version == "2.0.0", "the swap")
    inferred = running.ledger["inferred"]
    still_until(lambda: gate._gate.status().get("gate.reason.model_swap"))
    assert running.ledger["inferred"] > inferred, "a still frame, but the model has not seen it"


@pytest.mark.parametrize(
    "wrong,needle",
    [
        ({"model": "damaged"}, "sha256"),
        ({"device": "npu", "strict_backend": True}, "npu"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_an_unusable_model_is_refused_and_its_parameters_restored(start, robot, models, wrong, needle):
    good = {"model": models["first"], "backend": "onnxruntime"}
    running = start(overrides={"detector": good, **OPEN})
    camera = robot.publisher(Image, "image_raw")
    wrong = {name: models.get(value, value) for name, value in wrong.items()}
    old = {name: running["detector"].params[name] for name in wrong}
    assert robot.set("detector", **wrong).successful, "it is tried"
    status, values = robot.status("detector", lambda status, values: values["swap.error"])
    assert needle in values["swap.error"]
    if status.level != b"\x01":
        status, _ = robot.status("detector", lambda status, values: status.level == b"\x01")
    assert status.message.startswith("model not changed: ")
    robot.wait(lambda: running["detector"].params[next(iter(wrong))] == old[next(iter(wrong))], "it back")
    for name, value in old.items():
        assert robot.get("detector", name) == value, "a parameter that is set is one that acts"
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1
    assert robot.status("detector")[1]["swap.error"], "what the node takes back is still to be read"
    assert robot.set("detector", **old).successful
    robot.status("detector", lambda status, values: not values["swap.error"] and status.level == b"\x00")


def test_another_backend_and_threads_by_their_parameters(start, robot, fake):
    running = start(overrides={"detector": {"threads": 2}, **OPEN})
    assert robot.set("detector", backend="fake", threads=1).successful
    robot.wait(lambda: running["detector"].model.current.report.actual.backend == "fake", "the other backend")
    _, values = robot.status("detector", lambda status, values: values["swap.loading"] == "False")
    assert values["backend.actual.threads"] == "1"


def test_forty_swaps_of_which_every_second_fails_lose_no_frame_and_keep_no_model(start, robot, models):
    """Under frames all the time. Of the memory the least counts: a swap has two models for a moment."""
    running = start(overrides={"detector": {"model": models["first"], "threads": 1}, **OPEN})
    node, hub = running["detector"], running.hub
    receive, end, sent = hub.receiver("/image_raw"), threading.Event(), [0]
    street = video_frame("vtest.avi", STREET).image

    def run() -> None:
        while not end.wait(0.03):
            sent[0] += 1
            receive(Frame(street, sent[0], "cam", "bgr8", hub.next_seq()), None)

    process, rss, served = psutil.Process(), [], []
    thread = threading.Thread(target=run)
    thread.start()
    try:
        for number in range(20):
            good = ("second", "first")[number % 2]
            version = ("2.0.0", "1.0.0")[number % 2]
            running.in_executor(lambda: set_model(node, models["damaged"]))
            wait_until(lambda: "damaged" in node.model.manager.swap_error, "the refusal")
            running.in_executor(lambda good=good: set_model(node, models[good]))
            wait_until(
                lambda v=version: node.model.current and node.model.current.bundle.version == v, "the swap"
            )
            served.append(weakref.ref(node.model.current))
            rss.append(process.memory_info().rss)
    finally:
        end.set()
        thread.join()
    ledger = running.settled(sent[0])
    assert ledger["received"] == sent[0] == ledger["inferred"] + ledger["superseded"], ledger

    def kept() -> int:
        gc.collect()
        return sum(one() is not None for one in served)

    wait_until(
        lambda: kept() == 1, f"the models that were replaced to be gone, {kept()} of {len(served)} are there"
    )
    early, late = min(rss[4:8]), min(rss[-4:])
    # A session that stays takes 20 MB and more: of the twelve swaps between, half would be seen.
    assert late < early + 120e6, f"{early / 1e6:.1f} MB became {late / 1e6:.1f} MB"


def set_model(node, model: str) -> bool:
    """Set the parameter from within, as fast as it goes."""
    from rclpy.parameter import Parameter

    return node.set_parameters([Parameter("model", value=model)])[0].successful


def test_an_unknown_precision_is_refused_at_once(start, robot):
    running = start(overrides=OPEN)
    answer = robot.set("detector", precision="fp3")
    assert not answer.successful and "fp32" in answer.reason and "fp3" in answer.reason
    assert robot.set("detector", device="").successful, "as auto"
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1
