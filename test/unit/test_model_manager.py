"""The model manager with real sessions, some of which misbehave on request."""

from __future__ import annotations

import shutil
import threading
import time
from types import SimpleNamespace

import pytest
from fake_backend import FakeBackend, Fault, FaultySession, register
from model_cases import SSD, bundle_or_skip, video_frame

from edge_vision.backends import BackendRequest
from edge_vision.backends.serving import failure_history, loaded_model, model_manager
from edge_vision.backends.serving.failure_history import FIRST_RETRY_S, FailureHistory
from edge_vision.backends.serving.loaded_model import ModelRequest, load_model
from edge_vision.backends.serving.model_manager import ModelManager
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


class ManagerHarness:
    """A manager, its log, and the models that served."""

    def __init__(self) -> None:
        self.logged, self.served = [], []
        self.manager = ModelManager(make, lambda *line: self.logged.append(line), self.served.append)

    def events(self, name: str) -> list[str]:
        return [text for _, event, text in self.logged if event == name]

    @property
    def backend(self) -> str:
        return self.manager.model.report.actual.backend

    def wait(self, happened, what: str) -> None:
        until_s = time.monotonic() + 60.0
        while not happened():
            assert time.monotonic() < until_s, f"waited for {what}; logged {self.logged}"
            time.sleep(0.01)


@pytest.fixture
def harness(monkeypatch):
    bundle_or_skip(SSD)
    register(monkeypatch)
    harness = ManagerHarness()
    yield harness
    harness.manager.stop()


def test_a_backend_that_fails_is_replaced_by_the_next_best(harness):
    first = harness.manager.start(FAKE)
    model = harness.manager.acquire("frame")
    assert model is first and harness.manager.release(model)
    harness.manager.report_failure(model, "the accelerator is gone")
    assert harness.backend == "onnxruntime" and first.session.closed
    report = harness.manager.model.report
    assert report.requested["backend"] == "fake"
    assert report.fallback_reason == "fake: the accelerator is gone"
    assert harness.manager.status_values()["backend.failed"] == "fake: the accelerator is gone"
    assert harness.events("backend_failed") == ["fake failed: the accelerator is gone"]
    assert harness.served == [first, harness.manager.model]


def test_the_requested_backend_returns_when_it_works_again(harness, monkeypatch):
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 0.05)
    harness.manager.start(FAKE)
    harness.manager.report_failure(harness.manager.model, "lost")
    assert harness.backend == "onnxruntime"
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="still lost"))
    harness.wait(
        lambda: harness.manager.retry_if_due() or harness.events("fallback")[1:], "an attempt in vain"
    )
    assert "still not working: fake: still lost" in harness.events("fallback")[1]
    assert harness.backend == "onnxruntime", "it went on"
    monkeypatch.setattr(FakeBackend, "standing", Fault())
    harness.wait(lambda: harness.manager.retry_if_due() or harness.backend == "fake", "its return")
    harness.wait(lambda: harness.events("backend_back"), "the log entry")
    assert harness.manager.status_values()["backend.failed"] == ""
    assert harness.manager.model.report.fallback_reason is None


def test_the_interval_between_attempts_doubles_up_to_a_limit(monkeypatch):
    now_s = 1000.0
    monkeypatch.setattr(failure_history, "time", SimpleNamespace(monotonic=lambda: now_s))
    failures = FailureHistory()
    assert failures.record("fake", "lost") and failures.backoff_s == FIRST_RETRY_S
    waits = []
    for _ in range(9):
        failures.schedule_retry(longer=True)
        waits.append(failures.backoff_s)
        assert not failures.retry_due
        now_s += failures.backoff_s
        assert failures.retry_due
    assert waits == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]


def test_an_attempt_in_vain_doubles_the_interval(harness, monkeypatch):
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 0.6)
    harness.manager.start(FAKE)
    harness.manager.report_failure(harness.manager.model, "lost")
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="still lost"))
    harness.wait(
        lambda: harness.manager.retry_if_due() or len(harness.events("fallback")) > 2, "two attempts"
    )
    waits = [text.rpartition("retry in ")[2] for text in harness.events("fallback")[1:3]]
    assert waits == ["1 s", "2 s"]


def test_a_backend_without_alternatives_is_reloaded_once(harness, monkeypatch):
    first = harness.manager.start(ALONE)
    harness.manager.report_failure(first, "lost")
    second = harness.manager.model
    assert second is not first and harness.backend == "fake"
    with pytest.raises(BackendError, match="lost again; no other backend works, the next attempt is in"):
        harness.manager.report_failure(second, "lost again")
    assert harness.manager.model is second, "it goes on with what it has"


def test_without_a_working_backend_not_every_frame_is_an_attempt(harness, monkeypatch):
    harness.manager.start(ALONE)
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="dead"))
    loads = []
    real = model_manager.load_model
    monkeypatch.setattr(model_manager, "load_model", lambda *a, **k: loads.append(1) or real(*a, **k))
    assert harness.manager.acquire("frame") and harness.manager.revoke(0.0) == "frame"
    with pytest.raises(BackendError, match="no backend works: dead"):
        harness.manager.acquire("frame")
    for _ in range(5):
        with pytest.raises(BackendError, match="the next attempt is in"):
            harness.manager.acquire("frame")
    assert len(loads) == 1


def test_a_run_that_was_abandoned_with_its_worker_gives_up_the_model(harness):
    """Another worker begins a run before that one has ended: its session may still be in use."""
    hung = harness.manager.start(FAKE)
    assert harness.manager.acquire("frame of the first") is hung
    assert harness.manager.revoke(0.0, lambda job: job == "frame of the second") is None
    model = harness.manager.acquire("frame of the second")
    assert model.report.actual.backend == "onnxruntime" and not hung.session.closed
    assert harness.manager.status_values()["backend.failed"] == "fake: a run was abandoned"
    assert not harness.manager.release(hung) and hung.session.closed
    assert harness.manager.release(model), "the late release is none of the second"


def test_a_run_that_hangs_loses_its_job_to_the_next_best(harness, monkeypatch):
    monkeypatch.setattr(failure_history, "FIRST_RETRY_S", 0.0)
    hung = harness.manager.start(FAKE)
    assert harness.manager.acquire("frame") is hung
    assert harness.manager.revoke(60.0) is None, "not yet"
    assert harness.manager.revoke(0.0) == "frame"
    assert harness.manager.revoke(0.0) is None
    model = harness.manager.acquire("frame")
    assert model.report.actual.backend == "onnxruntime" and "did not end within" in str(harness.logged)
    assert harness.manager.release(model)
    loads = []
    monkeypatch.setattr(model_manager, "load_model", lambda *a, **k: loads.append(1) or load_model(*a, **k))
    harness.manager.retry_if_due()
    time.sleep(0.2)
    assert not loads, "not tried again while it hangs"
    assert not hung.session.closed
    assert not harness.manager.release(hung), "back at last"
    assert hung.session.closed
    harness.wait(lambda: harness.manager.retry_if_due() or harness.backend == "fake", "its return")


def test_after_a_late_return_runs_may_take_longer(harness, monkeypatch):
    """A machine that is too busy is no dead accelerator."""
    now_s = 1000.0
    clock = SimpleNamespace(monotonic=lambda: now_s)
    for module in (failure_history, lease):
        monkeypatch.setattr(module, "running_s", clock.monotonic)
    monkeypatch.setattr(failure_history, "time", clock)
    late = harness.manager.start(FAKE)
    harness.manager.acquire("frame")
    now_s += 2.0
    assert harness.manager.revoke(1.0) == "frame"
    now_s += 2.0
    assert not harness.manager.release(late)
    assert any("has ended after 3.0 s" in text for text in harness.events("backend_failed"))
    model = harness.manager.acquire("frame")
    now_s += 5.0
    assert harness.manager.revoke(1.0) is None, "it may take twice as long as the late one"
    now_s += 2.0
    assert harness.manager.revoke(1.0) == "frame"
    assert not harness.manager.release(model)


def test_another_model_is_loaded_in_the_background_and_then_serves(harness):
    first = harness.manager.start(FAKE)
    request = ModelRequest(SSD, "onnxruntime", ONE_THREAD)
    in_use = harness.manager.acquire("frame")
    harness.manager.swap(request)
    harness.wait(lambda: harness.backend == "onnxruntime", "the swap")
    assert not first.session.closed, "it is in use"
    assert harness.manager.release(in_use) and first.session.closed
    harness.wait(lambda: not harness.manager.status_values()["swap.loading"], "the end of it")
    assert harness.manager.request == request and harness.manager.swap_error == ""


@pytest.mark.parametrize(
    "wanted",
    [
        ModelRequest("no_such_model"),
        ModelRequest(SSD, "tensorflow"),
        ModelRequest(SSD, "onnxruntime", BackendRequest(device="npu"), strict=True),
        ModelRequest("efficientnet_lite0_imagenet"),
    ],
    ids=["missing", "unknown backend", "no such device", "another task"],
)
def test_a_model_that_cannot_serve_is_refused_and_the_current_one_goes_on(harness, wanted):
    first = harness.manager.start(FAKE)
    harness.manager.swap(wanted)
    harness.wait(lambda: not harness.manager.swapping, "the refusal")
    assert harness.manager.model is first and not first.session.closed and harness.manager.request == FAKE
    assert f"{wanted.model} on {wanted.backend} refused: " in harness.manager.swap_error
    assert harness.events("model_refused")[0].endswith("goes on")
    harness.manager.swap(FAKE)
    assert harness.manager.swap_error == "", "the requested model serves"
    harness.manager.swap(ModelRequest(SSD, "onnxruntime", ONE_THREAD))
    harness.wait(lambda: harness.backend == "onnxruntime", "a good one")
    assert harness.manager.swap_error == ""


def test_a_backend_that_computes_nonsense_is_refused(harness, monkeypatch):
    harness.manager.start(ModelRequest(SSD, "onnxruntime", ONE_THREAD))
    monkeypatch.setattr(FakeBackend, "standing", Fault(nan=True))
    harness.manager.swap(FAKE)
    harness.wait(lambda: not harness.manager.swapping, "the refusal")
    assert "not finite" in harness.manager.swap_error and harness.backend == "onnxruntime"


def test_a_backend_that_disagrees_is_refused(harness, monkeypatch):
    def disagrees(bundle, name, request):
        raise BackendError(f"{name} differs: 1.6 dB")

    monkeypatch.setattr(loaded_model, "check_agreement", disagrees)
    harness.manager.start(ModelRequest(SSD, "onnxruntime", ONE_THREAD))
    harness.manager.swap(ModelRequest(SSD, "fake", ONE_THREAD, strict=True))
    harness.wait(lambda: not harness.manager.swapping, "the refusal")
    assert "1.6 dB" in harness.manager.swap_error


def test_the_last_of_several_requests_wins(harness):
    harness.manager.start(FAKE)
    for threads in (1, 2, 1, 2):
        harness.manager.swap(ModelRequest(SSD, "onnxruntime", BackendRequest(threads=threads)))
    harness.wait(lambda: not harness.manager.status_values()["swap.loading"], "the last one")
    assert harness.manager.model.report.actual.threads == 2


def test_a_model_that_fails_during_a_swap_ends_with_the_new_one(harness):
    """Both threads load a model: the last request must serve in the end."""
    harness.manager.start(FAKE)
    request = ModelRequest(SSD, "onnxruntime", BackendRequest(threads=2))
    model = harness.manager.model
    harness.manager.swap(request)
    harness.manager.report_failure(model, "lost")
    harness.wait(lambda: not harness.manager.status_values()["swap.loading"], "the swap")
    assert harness.manager.request == request and harness.manager.model.report.actual.threads == 2
    assert harness.manager.model.report.fallback_reason is None


def test_stop_closes_what_serves_and_what_is_still_being_loaded(harness, monkeypatch):
    first = harness.manager.start(FAKE)
    inside, go, made = threading.Event(), threading.Event(), []
    real = model_manager.load_model

    def slowly(*args, **kwargs):
        inside.set()
        go.wait(30)
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(model_manager, "load_model", slowly)
    harness.manager.swap(ModelRequest(SSD, "fake", BackendRequest(threads=2)))
    assert inside.wait(30)
    harness.manager.stop()
    assert first.session.closed and harness.manager.model is None
    go.set()
    harness.wait(lambda: made and made[0].session.closed, "the late one to be closed")
    assert harness.manager.model is None
    with pytest.raises(BackendError, match="no model is loaded"):
        harness.manager.acquire("frame")


def test_a_backend_that_loads_but_cannot_run_is_skipped(harness, monkeypatch):
    monkeypatch.setattr(FakeBackend, "standing", Fault(error="no kernel for this device"))
    model = harness.manager.start(FAKE)
    assert model.report.actual.backend == "onnxruntime"
    assert model.report.fallback_reason == "fake: no kernel for this device"
    with pytest.raises(BackendError, match="no kernel"):
        load_model(ALONE, make)


def test_a_head_that_does_not_fit_closes_the_session(harness, monkeypatch, tmp_path):
    opened = []
    real = loaded_model.open_session
    monkeypatch.setattr(loaded_model, "open_session", lambda *a: opened.append(real(*a)) or opened[-1])

    def unfit(bundle, session):
        raise HeadError("expected [1, 4, n]")

    with pytest.raises(HeadError):
        load_model(FAKE, unfit)
    assert opened[0][0].closed


def test_a_bundle_that_changed_while_it_served_is_not_reloaded(monkeypatch, tmp_path, harness):
    folder = tmp_path / "mine"
    shutil.copytree(bundle_or_skip(SSD).folder, folder)
    model = harness.manager.start(ModelRequest(str(folder), "fake", ONE_THREAD))
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(BackendError, match=r"no backend works: .*sha256"):
        harness.manager.report_failure(model, "lost")
    assert harness.manager.model is model
    with pytest.raises(BundleError):
        load_model(ModelRequest(str(folder)), make)


def test_the_next_best_finds_the_same_objects(harness):
    frame = video_frame("vtest.avi", 200)
    before = harness.manager.start(FAKE).runner.detect(frame).detections
    harness.manager.report_failure(harness.manager.model, "lost")
    after = harness.manager.model.runner.detect(frame).detections
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


def test_a_load_that_hangs_is_abandoned_and_the_next_best_serves(harness, hanging_load, monkeypatch):
    closed = threading.Event()
    monkeypatch.setattr(FaultySession, "close", lambda session: closed.set())
    harness.manager.start(FAKE)
    assert harness.backend == "onnxruntime"
    assert harness.manager.model.report.fallback_reason == "fake: fake: loading hangs, no end after 0.05 s"
    assert not closed.is_set()
    hanging_load.set()
    assert closed.wait(30), "what came after all is closed"


def test_a_load_that_hangs_alone_is_an_error(harness, hanging_load):
    with pytest.raises(BackendError, match="loading hangs"):
        harness.manager.start(ALONE)


def test_a_first_run_that_hangs_is_abandoned_and_the_next_best_serves(harness, monkeypatch):
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
    monkeypatch.setattr(loaded_model, "WARM_UP_LIMIT_S", 3.0)
    harness.manager.start(FAKE)
    assert harness.backend == "onnxruntime" and hung[0] not in closed, "a session in use is not closed"
    assert "the first run hangs, no end after 3 s" in harness.manager.model.report.fallback_reason
    go_on.set()
    harness.wait(lambda: hung[0] in closed, "its end")
