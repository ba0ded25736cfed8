"""Models that are missing, broken or misbehave: a message with the remedy, and on once they are repaired."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from fake_backend import FakeBackend, Fault, register
from lifecycle_msgs.msg import Transition
from model_cases import DETECTOR, EFFICIENTNET, OIDV4, bundle_or_skip
from ros_cases import CHAIN, CascadeNode, DetectorNode, Image, image_message, picture
from trial_cases import install_harmful_backends

from edge_vision.backends import available_backends
from edge_vision.backends.serving import failure_history


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store of its own with a copy of the detector's bundle."""
    source = bundle_or_skip(DETECTOR).folder
    folder = tmp_path / "bundles" / DETECTOR
    shutil.copytree(source, folder)
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    return folder


def edit(folder, old: str, new: str) -> None:
    text = (folder / "bundle.yaml").read_text()
    assert old in text, f"'{old}' is not in the manifest"
    (folder / "bundle.yaml").write_text(text.replace(old, new))


def flip_a_byte(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


BREAKAGES = {
    # what is done to the bundle, and what the message must say
    "missing bundle": (shutil.rmtree, ["python -m edge_vision models fetch " + DETECTOR]),
    "missing graph": (lambda f: (f / "model.onnx").unlink(), ["model.onnx", "models fetch " + DETECTOR]),
    "missing labels": (lambda f: (f / "labels.txt").unlink(), ["labels.txt", "models fetch " + DETECTOR]),
    "missing manifest": (lambda f: (f / "bundle.yaml").unlink(), ["bundle.yaml", "models fetch " + DETECTOR]),
    "wrong hash": (lambda f: flip_a_byte(f / "model_int8.onnx"), ["sha256", "model_int8.onnx"]),
    "unknown head": (lambda f: edit(f, "type: nanodet", "type: detr9"), ["detr9", "nanodet"]),
    "unknown key": (lambda f: edit(f, "version:", "verzion: 1.0.0\nversion:"), ["verzion"]),
    "wrong output": (lambda f: edit(f, "rows: rows", "rows: logits"), ["logits", "rows"]),
    "too few labels": (
        lambda f: (f / "labels.txt").write_text("person\ncar\n"),
        ["labels", "[1, 3549, 46]", "[1, 3549, 124]"],
    ),
    "wrong input size": (lambda f: edit(f, "width_px: 416", "width_px: 448"), ["input size", "3549"]),
    "no yaml": (lambda f: (f / "bundle.yaml").write_text("{: :"), ["bundle.yaml"]),
    "a file outside": (lambda f: edit(f, "labels: labels.txt", "labels: ../../x"), ["labels"]),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_a_broken_bundle_is_reported_and_its_repair_detected(start, robot, store, case):
    spare = store.parent.parent / "spare"
    shutil.copytree(store, spare)
    break_it, needles = BREAKAGES[case]
    break_it(store)
    running = start(need_model=False)
    assert running["detector"].state == "unconfigured"
    assert running["gate"].state == running["cascade"].state == "active"
    status, values = robot.status("detector")
    assert status.level == b"\x02" and values["state"] == "unconfigured"
    assert status.message.startswith("cannot configure: ")
    for needle in needles:
        assert needle in status.message, status.message
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["failed.detector_inactive"] == 1

    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(spare, store)
    # What its timer does every few seconds.
    assert running.in_executor(running["detector"].bring_up)
    status, _ = robot.status("detector", lambda status, values: values["state"] == "active")
    assert status.level == b"\x00"
    camera.publish(image_message(picture(2), 2))
    assert running.settled(2)["inferred"] == 1


def test_the_timer_tries_again_by_itself(start, robot, store, monkeypatch):
    from edge_vision.nodes import base_node

    monkeypatch.setattr(base_node, "RETRY_PERIOD_S", 0.2)
    away = store.with_name("away")
    store.rename(away)
    running = start([DetectorNode], need_model=False)
    assert running["detector"].state == "unconfigured"
    away.rename(store)
    robot.wait(lambda: running["detector"].state == "active", "the detector to come up by itself")


def test_a_bundle_of_another_task_is_refused(start, robot):
    bundle_or_skip(EFFICIENTNET)
    start([DetectorNode], {"detector": {"model": EFFICIENTNET}})
    status, _ = robot.status("detector")
    assert status.level == b"\x02" and "detect" in status.message


@pytest.mark.parametrize(
    "overrides,needle",
    [
        ({"model": ""}, "expected the name of a bundle"),
        ({"model": "no_such_model"}, "no_such_model"),
        ({"model": "/no/such/folder"}, "/no/such/folder"),
        ({"backend": "tensorflow"}, "expected a backend out of auto, onnxruntime, openvino"),
        ({"device": "npu", "backend": "onnxruntime", "strict_backend": True}, "npu"),
        ({"precision": "fp16", "backend": "onnxruntime", "strict_backend": True}, "fp16"),
    ],
)
def test_a_request_that_cannot_be_met_is_an_error_in_the_status(start, robot, overrides, needle):
    bundle_or_skip(DETECTOR)
    start([DetectorNode], {"detector": overrides})
    status, _ = robot.status("detector")
    assert status.level == b"\x02" and needle in status.message, status.message


def test_an_unknown_precision_is_reported_and_the_default_used(start, robot):
    start(overrides={"detector": {"precision": "fp7"}, "gate": {"enabled": False}})
    robot.publisher(Image, "image_raw")
    needle = "fp32, fp16, bf16, int8, mixed, got 'fp7'; running with 'auto'"
    status, _ = robot.status("detector", lambda status, values: needle in status.message)
    assert status.level == b"\x01" and status.message.startswith("parameter refused: precision")


def test_a_fallback_is_loud_and_works(start, robot):
    running = start(overrides={"detector": {"backend": "onnxruntime", "device": "npu"}})
    status, values = robot.status("detector")
    assert status.level == b"\x01" and "fallback" in status.message and "npu" in status.message
    assert values["backend.requested.device"] == "npu" and values["backend.actual.device"] == "cpu"
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx"])
def test_without_a_gpu_onnx_runtime_is_used_with_the_reason(start, robot, backend):
    reason = available_backends()[backend]
    if reason is None:
        pytest.skip("there is a GPU here")
    running = start(overrides={"detector": {"backend": backend}})
    status, values = robot.status("detector")
    assert status.level == b"\x01" and f"fallback: {backend}: {reason}" in status.message
    assert values["backend.requested.backend"] == backend
    assert values["backend.actual.backend"].startswith("onnxruntime ")
    robot.publisher(Image, "image_raw").publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1


def test_litert_runs_a_bundle_that_has_a_graph_for_it(start, robot):
    bundle_or_skip(OIDV4)
    reason = available_backends()["litert"]
    if reason:
        pytest.skip(reason)
    running = start(overrides={"detector": {"backend": "litert", "model": OIDV4, "strict_backend": True}})
    status, values = robot.status("detector")
    assert status.level == b"\x00" and values["backend.actual.provider"] == "XNNPACK"
    robot.publisher(Image, "image_raw").publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1


def test_requested_and_actual_backend_are_reported(start, robot):
    start([DetectorNode], {"detector": {"threads": 1, "backend": "auto"}})
    status, values = robot.status("detector")
    assert status.level == b"\x00"
    assert values["backend.requested.backend"] == "auto" and values["backend.requested.threads"] == "1"
    taken = values["backend.actual.backend"].split(" ")[0]
    assert taken in available_backends() and values["backend.actual.threads"] == "1"
    assert values["backend.selection_reason"].startswith(taken), "why"
    assert values["model"].startswith(DETECTOR) and len(values["model_sha256"]) == 64


def test_any_other_error_of_the_detector_is_counted_too(start, robot, monkeypatch):
    running = start(overrides={"gate": {"enabled": False}})
    camera = robot.publisher(Image, "image_raw")
    monkeypatch.setattr(running["detector"].model.current, "runner", SimpleNamespace(unlabelled=0))
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["failed.detector_error"] == 1


def test_a_slow_detector_supersedes_and_its_end_loses_no_account(start, monkeypatch):
    register(monkeypatch)
    from edge_vision.core.frame import Frame

    running = start(overrides={"detector": {"backend": "fake"}, "gate": {"enabled": False}})
    running["detector"].model.current.session.fault = Fault(sleep_ms=300.0)
    receive = running.hub.receiver("/image_raw")
    for number in range(1, 21):
        receive(Frame(picture(number), number, "cam", "bgr8", running.hub.next_seq()), None)
    running.end()
    ledger = running.ledger
    assert ledger["received"] == 20 and ledger["in_flight"] == 0 and ledger["superseded"] >= 15


def test_the_memory_is_freed_at_cleanup(start, robot, monkeypatch):
    register(monkeypatch)
    running = start([DetectorNode], {"detector": {"backend": "fake"}})
    session = running["detector"].model.current.session
    assert robot.change_state("detector", Transition.TRANSITION_DEACTIVATE)
    assert not session.closed
    assert robot.change_state("detector", Transition.TRANSITION_CLEANUP)
    assert session.closed and running["detector"].model.current is None


@pytest.mark.parametrize(("backend", "signal"), [("aborts", "SIGABRT"), ("segfaults", "SIGSEGV")])
def test_a_model_that_kills_its_runtime_is_refused(start, robot, store, monkeypatch, backend, signal):
    install_harmful_backends(store.parent.parent / "site", monkeypatch)
    running = start([DetectorNode], {"detector": {"backend": "onnxruntime"}})
    serving = running["detector"].model.current
    assert robot.set("detector", backend=backend, strict_backend=True).successful
    status, values = robot.status("detector", lambda status, values: values["swap.error"])
    assert f"was killed by {signal}" in values["swap.error"] and status.level == b"\x01"
    assert running["detector"].model.current is serving and values["state"] == "active"


def test_a_backend_of_another_package_is_named_in_the_log(start, robot, store, monkeypatch, capfd):
    install_harmful_backends(store.parent.parent / "site", monkeypatch)
    running = start([DetectorNode], {"detector": {"backend": "harmless"}})
    assert running["detector"].model.current.report.actual.backend == "onnxruntime"
    assert "plug-in harmless (harmful_backends:Harmless) of harmful 1.0" in capfd.readouterr().err


# The cascade's model.


def test_the_cascade_rejects_what_is_not_wanted(start, robot):
    bundle_or_skip(EFFICIENTNET)
    cascade = {"model": EFFICIENTNET, "wanted_labels": ["mountain bike"], "score_threshold": 0.99}
    cascade |= {"max_blind_ms": 60000.0}
    running = start(CHAIN, {"cascade": cascade, "gate": {"enabled": False}})
    camera = robot.publisher(Image, "image_raw")
    for number in range(1, 4):
        camera.publish(image_message(picture(number), number))
        running.settled(number)
    ledger = running.ledger
    assert (ledger["inferred"], ledger["rejected"], ledger["rejected.unwanted"]) == (1, 2, 2)


@pytest.mark.parametrize(
    "wanted,needle", [([], "wanted_labels"), (["zeppelin7"], "zeppelin7")], ids=["none", "unknown"]
)
def test_wanted_labels_that_cannot_be_met(start, robot, wanted, needle):
    bundle_or_skip(EFFICIENTNET)
    start([CascadeNode], {"cascade": {"model": EFFICIENTNET, "wanted_labels": wanted}})
    status, _ = robot.status("cascade")
    assert status.level == b"\x02" and needle in status.message, status.message


def test_a_cascade_whose_classifier_fails_accepts(start, robot, monkeypatch):
    bundle_or_skip(EFFICIENTNET)
    register(monkeypatch)
    cascade = {"model": EFFICIENTNET, "wanted_labels": ["bike"], "backend": "fake", "max_blind_ms": 60000.0}
    running = start(CHAIN, {"cascade": {**cascade, "strict_backend": True}, "gate": {"enabled": False}})
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="boom"))
    running["cascade"]._models[0].model.session.fault = Fault(error="boom")
    camera = robot.publisher(Image, "image_raw")
    for number in range(1, 4):
        camera.publish(image_message(picture(number), number))
        running.settled(number)
    assert running.ledger["inferred"] == 3
    status, _ = robot.status("cascade")
    assert status.level == b"\x02" and "boom" in status.message


def test_a_cascade_whose_backend_fails_classifies_on_the_next_one(start, robot, monkeypatch):
    bundle_or_skip(EFFICIENTNET)
    register(monkeypatch)
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 2.0)  # Statuses come each second.
    cascade = {"model": EFFICIENTNET, "wanted_labels": ["mountain bike"], "score_threshold": 0.99}
    cascade |= {"backend": "fake", "fallback": ["onnxruntime"], "max_blind_ms": 60000.0}
    running = start(CHAIN, {"cascade": cascade, "gate": {"enabled": False}})
    camera = robot.publisher(Image, "image_raw")
    for number in range(1, 4):
        if number == 2:
            running["cascade"]._models[0].model.session.fault = Fault(error="boom")
        camera.publish(image_message(picture(number), number))
        running.settled(number)
    assert running.ledger["rejected.unwanted"] == 2
    status, values = robot.status("cascade", lambda status, _: status.level == b"\x01")
    assert status.message.startswith("fallback: fake: boom")
    assert values["backend.actual.backend"].startswith("onnxruntime ")
    _, values = robot.status("cascade", lambda status, _: status.level == b"\x00")
    assert values["backend.actual.backend"].startswith("fake ") and values["backend.failed"] == ""
    camera.publish(image_message(picture(4), 4))
    assert running.settled(4)["rejected.unwanted"] == 3


def test_a_gate_that_fails_lets_pass(start, robot, monkeypatch):
    running = start()
    monkeypatch.setattr(running["gate"]._gate, "decide", None)
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 1))
    assert running.settled(1)["inferred"] == 1
