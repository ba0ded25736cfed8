"""A model that keeps serving: real sessions, of which some misbehave on request."""

from __future__ import annotations

import shutil
import threading
import time
from types import SimpleNamespace

import pytest
from model_cases import SSD, bundle_or_skip, video_frame

from edge_vision.backends import BACKENDS, BackendRequest, model_manager
from edge_vision.backends.fake import FakeBackend, Fault, FaultySession
from edge_vision.backends.model_manager import ModelManager, ModelRequest, load_model
from edge_vision.core.concurrency import lease
from edge_vision.detect.detector import Detector
from edge_vision.errors import BackendError, BundleError, HeadError

ONE_THREAD = BackendRequest(threads=1)
FAKE = ModelRequest(SSD, "fake", ONE_THREAD)
ALONE = ModelRequest(SSD, "fake", ONE_THREAD, strict=True)


def make(bundle, session):
    detector = Detector.from_bundle(bundle, session)
    detector.warm_up(1)
    return detector


class Desk:
    """A keeper, what it told, and the models that it had serve."""

    def __init__(self) -> None:
        self.told, self.served = [], []
        self.keeper = ModelManager(make, lambda *line: self.told.append(line), self.served.append)

    def events(self, name: str) -> list[str]:
        return [text for _, event, text in self.told if event == name]

    @property
    def backend(self) -> str:
        return self.keeper.model.report.actual.backend

    def wait(self, happened, what: str) -> None:
        until_s = time.monotonic() + 60.0
        while not happened():
            assert time.monotonic() < until_s, f"waited for {what}; told {self.told}"
            time.sleep(0.01)


@pytest.fixture
def desk(monkeypatch):
    bundle_or_skip(SSD)
    monkeypatch.setitem(BACKENDS, "fake", "edge_vision.backends.fake:FakeBackend")
    desk = Desk()
    yield desk
    desk.keeper.stop()


def test_what_fails_is_replaced_by_the_next_best(desk):
    first = desk.keeper.start(FAKE)
    model = desk.keeper.use("frame")
    assert model is first and desk.keeper.done(model)
    desk.keeper.failed(model, "the accelerator is gone")
    assert desk.backend == "onnxruntime" and first.session.closed
    report = desk.keeper.model.report
    assert report.requested["backend"] == "fake"
    assert report.fallback_reason == "fake: the accelerator is gone"
    assert desk.keeper.status_values()["backend.failed"] == "fake: the accelerator is gone"
    assert desk.events("backend_failed") == ["fake failed: the accelerator is gone"]
    assert desk.served == [first, desk.keeper.model]


def test_it_goes_back_to_what_was_asked_for_when_that_works_again(desk, monkeypatch):
    monkeypatch.setattr(model_manager, "FIRST_RETRY_S", 0.05)
    desk.keeper.start(FAKE)
    desk.keeper.failed(desk.keeper.model, "lost")
    assert desk.backend == "onnxruntime"
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="still lost"))
    desk.wait(lambda: desk.keeper.poll() or desk.events("fallback")[1:], "an attempt in vain")
    assert "still not working: fake: still lost" in desk.events("fallback")[1]
    assert desk.backend == "onnxruntime", "it went on"
    monkeypatch.setattr(FakeBackend, "standing", Fault())
    desk.wait(lambda: desk.keeper.poll() or desk.backend == "fake", "its return")
    desk.wait(lambda: desk.events("backend_back"), "word of it")
    assert desk.keeper.status_values()["backend.failed"] == ""
    assert desk.keeper.model.report.fallback_reason is None


def test_attempts_come_less_and_less_often(desk, monkeypatch):
    desk.keeper.start(FAKE)
    desk.keeper.failed(desk.keeper.model, "lost")
    assert desk.keeper._backoff_s == model_manager.FIRST_RETRY_S
    waits = []
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="still lost"))
    for _ in range(9):
        desk.keeper._retry_s, told = 0.0, len(desk.told)
        desk.wait(lambda told=told: desk.keeper.poll() or len(desk.told) > told, "an attempt")
        desk.wait(lambda: not desk.keeper._retrying, "its end")
        waits.append(desk.keeper._backoff_s)
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]


def test_alone_it_is_loaded_anew_and_not_again_at_once(desk, monkeypatch):
    first = desk.keeper.start(ALONE)
    desk.keeper.failed(first, "lost")
    second = desk.keeper.model
    assert second is not first and desk.backend == "fake"
    with pytest.raises(BackendError, match="lost again; no other backend works, the next attempt is in"):
        desk.keeper.failed(second, "lost again")
    assert desk.keeper.model is second, "it goes on with what it has"


def test_where_nothing_works_it_says_so_and_does_not_try_at_each_frame(desk, monkeypatch):
    desk.keeper.start(ALONE)
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="dead"))
    loads = []
    real = model_manager.load_model
    monkeypatch.setattr(model_manager, "load_model", lambda *a, **k: loads.append(1) or real(*a, **k))
    assert desk.keeper.use("frame") and desk.keeper.give_up(0.0) == "frame"
    with pytest.raises(BackendError, match="no backend works: dead"):
        desk.keeper.use("frame")
    for _ in range(5):
        with pytest.raises(BackendError, match="the next attempt is in"):
            desk.keeper.use("frame")
    assert len(loads) == 1


def test_a_run_that_hangs_loses_its_job_to_the_next_best(desk):
    hung = desk.keeper.start(FAKE)
    assert desk.keeper.use("frame") is hung
    assert desk.keeper.give_up(60.0) is None, "not yet"
    assert desk.keeper.give_up(0.0) == "frame"
    assert desk.keeper.give_up(0.0) is None
    model = desk.keeper.use("frame")
    assert model.report.actual.backend == "onnxruntime" and "did not end within" in str(desk.told)
    assert desk.keeper.done(model)
    desk.keeper._retry_s = 0.0
    desk.keeper.poll()
    assert not desk.keeper._retrying, "while it hangs it is not tried again"
    assert not hung.session.closed
    assert not desk.keeper.done(hung), "back at last"
    assert hung.session.closed
    desk.wait(lambda: desk.keeper.poll() or desk.backend == "fake", "its return")


def test_who_came_back_late_is_given_more_time(desk, monkeypatch):
    """A machine that is too busy is no dead accelerator."""
    now_s = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now_s)
    for module in (model_manager, lease):
        monkeypatch.setattr(module, "running_s", clock.monotonic)
    monkeypatch.setattr(model_manager, "time", clock)
    late = desk.keeper.start(FAKE)
    desk.keeper.use("frame")
    now_s += 2.0
    assert desk.keeper.give_up(1.0) == "frame"
    now_s += 2.0
    assert not desk.keeper.done(late)
    assert any("has ended after 3.0 s" in text for text in desk.events("backend_failed"))
    model = desk.keeper.use("frame")
    now_s += 5.0
    assert desk.keeper.give_up(1.0) is None, "it may take twice as long as the late one"
    now_s += 2.0
    assert desk.keeper.give_up(1.0) == "frame"
    assert not desk.keeper.done(model)


def test_another_model_is_loaded_aside_and_then_serves(desk):
    first = desk.keeper.start(FAKE)
    wish = ModelRequest(SSD, "onnxruntime", ONE_THREAD)
    in_use = desk.keeper.use("frame")
    desk.keeper.change(wish)
    desk.wait(lambda: desk.backend == "onnxruntime", "the swap")
    assert not first.session.closed, "it is in use"
    assert desk.keeper.done(in_use) and first.session.closed
    desk.wait(lambda: not desk.keeper.status_values()["swap.loading"], "the end of it")
    assert desk.keeper.wish == wish and desk.keeper.swap_error == ""


@pytest.mark.parametrize(
    "wish",
    [
        ModelRequest("no_such_model"),
        ModelRequest(SSD, "tensorflow"),
        ModelRequest(SSD, "onnxruntime", BackendRequest(device="npu"), strict=True),
        ModelRequest("efficientnet_lite0_imagenet"),
    ],
    ids=["missing", "unknown backend", "no such device", "another task"],
)
def test_what_cannot_serve_is_refused_and_the_old_one_goes_on(desk, wish):
    first = desk.keeper.start(FAKE)
    desk.keeper.change(wish)
    desk.wait(lambda: desk.keeper.refused, "the refusal")
    assert desk.keeper.model is first and not first.session.closed and desk.keeper.wish == FAKE
    assert f"{wish.model} on {wish.backend} refused: " in desk.keeper.swap_error
    assert desk.events("model_refused")[0].endswith("goes on")
    desk.keeper.change(FAKE)
    assert desk.keeper.swap_error == "", "what serves is asked for"
    desk.keeper.change(ModelRequest(SSD, "onnxruntime", ONE_THREAD))
    desk.wait(lambda: desk.backend == "onnxruntime", "a good one")
    assert desk.keeper.swap_error == ""


def test_a_backend_that_computes_nonsense_is_refused(desk, monkeypatch):
    desk.keeper.start(ModelRequest(SSD, "onnxruntime", ONE_THREAD))
    monkeypatch.setattr(FakeBackend, "standing", Fault(nan=True))
    desk.keeper.change(FAKE)
    desk.wait(lambda: desk.keeper.refused, "the refusal")
    assert "not finite" in desk.keeper.swap_error and desk.backend == "onnxruntime"


def test_a_backend_that_disagrees_is_refused(desk, monkeypatch):
    def disagrees(bundle, name, request):
        raise BackendError(f"{name} computes something else: 1.6 dB")

    monkeypatch.setattr(model_manager, "check_agreement", disagrees)
    desk.keeper.start(ModelRequest(SSD, "onnxruntime", ONE_THREAD))
    desk.keeper.change(ModelRequest(SSD, "fake", ONE_THREAD, strict=True))
    desk.wait(lambda: desk.keeper.refused, "the refusal")
    assert "1.6 dB" in desk.keeper.swap_error


def test_the_last_of_several_wishes_counts(desk):
    desk.keeper.start(FAKE)
    for threads in (1, 2, 1, 2):
        desk.keeper.change(ModelRequest(SSD, "onnxruntime", BackendRequest(threads=threads)))
    desk.wait(lambda: not desk.keeper.status_values()["swap.loading"], "the last one")
    assert desk.keeper.model.report.actual.threads == 2


def test_a_model_that_fails_during_a_swap_ends_with_the_new_one(desk):
    """Both threads load: what is wished last must serve in the end."""
    desk.keeper.start(FAKE)
    wish = ModelRequest(SSD, "onnxruntime", BackendRequest(threads=2))
    model = desk.keeper.model
    desk.keeper.change(wish)
    desk.keeper.failed(model, "lost")
    desk.wait(lambda: not desk.keeper.status_values()["swap.loading"], "the swap")
    assert desk.keeper.wish == wish and desk.keeper.model.report.actual.threads == 2
    assert desk.keeper.model.report.fallback_reason is None


def test_stop_closes_what_serves_and_what_is_still_being_loaded(desk, monkeypatch):
    first = desk.keeper.start(FAKE)
    inside, go, made = threading.Event(), threading.Event(), []
    real = model_manager.load_model

    def slowly(*args, **kwargs):
        inside.set()
        go.wait(30)
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(model_manager, "load_model", slowly)
    desk.keeper.change(ModelRequest(SSD, "fake", BackendRequest(threads=2)))
    assert inside.wait(30)
    desk.keeper.stop()
    assert first.session.closed and desk.keeper.model is None
    go.set()
    desk.wait(lambda: made and made[0].session.closed, "the late one to be closed")
    assert desk.keeper.model is None
    with pytest.raises(BackendError, match="no model is loaded"):
        desk.keeper.use("frame")


def test_a_backend_that_loads_but_cannot_run_is_passed_over(desk, monkeypatch):
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="no kernel for this device"))
    model = desk.keeper.start(FAKE)
    assert model.report.actual.backend == "onnxruntime"
    assert model.report.fallback_reason == "fake: no kernel for this device"
    with pytest.raises(BackendError, match="no kernel"):
        load_model(ALONE, make)


def test_a_head_that_does_not_fit_closes_the_session(desk, monkeypatch, tmp_path):
    opened = []
    real = model_manager.open_session
    monkeypatch.setattr(model_manager, "open_session", lambda *a: opened.append(real(*a)) or opened[-1])

    def unfit(bundle, session):
        raise HeadError("expected [1, 4, n]")

    with pytest.raises(HeadError):
        load_model(FAKE, unfit)
    assert opened[0][0].closed


def test_a_bundle_that_was_changed_while_it_served_is_not_loaded_anew(monkeypatch, tmp_path, desk):
    folder = tmp_path / "mine"
    shutil.copytree(bundle_or_skip(SSD).folder, folder)
    model = desk.keeper.start(ModelRequest(str(folder), "fake", ONE_THREAD))
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BackendError, match=r"no backend works: .*sha256"):
        desk.keeper.failed(model, "lost")
    assert desk.keeper.model is model
    with pytest.raises(BundleError):
        load_model(ModelRequest(str(folder)), make)


def test_the_next_best_finds_the_same(desk):
    frame = video_frame("vtest.avi", 200)
    before = desk.keeper.start(FAKE).runner.detect(frame).detections
    desk.keeper.failed(desk.keeper.model, "lost")
    after = desk.keeper.model.runner.detect(frame).detections
    assert len(before) >= 5
    assert after.xyxy_px == pytest.approx(before.xyxy_px, abs=1e-3)


@pytest.fixture
def hanging_load(monkeypatch):
    """Loading the fake backend hangs until this is set."""
    go_on = threading.Event()
    monkeypatch.setattr(FakeBackend, "load_waits_for", go_on)
    monkeypatch.setattr(FakeBackend, "load_limit_s", 0.05)
    yield go_on
    go_on.set()


def test_a_load_that_hangs_is_left_and_the_next_best_serves(desk, hanging_load, monkeypatch):
    closed = threading.Event()
    monkeypatch.setattr(FaultySession, "close", lambda session: closed.set())
    desk.keeper.start(FAKE)
    assert desk.backend == "onnxruntime"
    assert desk.keeper.model.report.fallback_reason == "fake: fake: loading hangs, no end after 0.05 s"
    assert not closed.is_set()
    hanging_load.set()
    assert closed.wait(30), "what came after all is closed"


def test_a_load_that_hangs_alone_is_an_error(desk, hanging_load):
    with pytest.raises(BackendError, match="loading hangs"):
        desk.keeper.start(ALONE)


def test_a_first_run_that_hangs_is_left_and_the_next_best_serves(desk, monkeypatch):
    go_on, hung, closed = threading.Event(), [], []
    real = FaultySession.run

    def run(session, tensors):
        hung.append(session)
        go_on.wait(60)
        return real(session, tensors)

    monkeypatch.setattr(FaultySession, "run", run)
    # Those of other tests may be closed now, too.
    monkeypatch.setattr(FaultySession, "close", lambda session: closed.append(session))
    # Long enough for the next best on a busy machine.
    monkeypatch.setattr(model_manager, "WARM_UP_LIMIT_S", 3.0)
    desk.keeper.start(FAKE)
    assert desk.backend == "onnxruntime" and hung[0] not in closed, "a session in use is not closed"
    assert "the first run hangs, no end after 3 s" in desk.keeper.model.report.fallback_reason
    go_on.set()
    desk.wait(lambda: hung[0] in closed, "its end")
