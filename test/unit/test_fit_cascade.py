"""Fitting a stage: statistics, split, head, refused arguments, and one whole fit on a real clip."""

from __future__ import annotations

import json

import numpy as np
import pytest
from model_cases import DETECTOR, EFFICIENTNET, bundle_or_skip, clip_or_skip, thinned_clip

from edge_vision.backends import BackendRequest, open_session
from edge_vision.bundles.store import load_bundle
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.classifier import Classifier
from edge_vision.evaluate.command import main
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.fit import samples, splits, threshold
from edge_vision.evaluate.fit.head import fit_head
from edge_vision.evaluate.reference.detector import Reference

# The threshold.


@pytest.mark.parametrize(
    "recall,confidence,n", [(0.98, 0.95, 149), (0.99, 0.95, 299), (0.9, 0.95, 29), (0.9, 0.5, 7)]
)
def test_a_guaranteed_recall_needs_a_minimum_of_events(recall, confidence, n):
    assert threshold.events_needed(recall, confidence) == n
    assert threshold.allowed_misses(n, recall, confidence) == 0
    with pytest.raises(EvaluateError, match=f"at least {n} events .* got {n - 1}: .* ask for --recall 0"):
        threshold.allowed_misses(n - 1, recall, confidence)
    assert threshold.reachable_recall(n, confidence) >= recall > threshold.reachable_recall(n - 1, confidence)


def test_the_suggested_recall_can_be_guaranteed():
    with pytest.raises(EvaluateError) as caught:
        threshold.allowed_misses(23, 0.98, 0.95)
    offered = float(str(caught.value).split("--recall ")[1].split()[0])
    assert threshold.allowed_misses(23, offered, 0.95) == 0


@pytest.mark.parametrize("n,recall", [(40, 0.9), (100, 0.9), (300, 0.95)])
def test_the_recall_is_reached_with_the_stated_confidence(n, recall):
    """Scores of a known distribution: the true recall of each fitted threshold is known exactly."""
    rng = np.random.default_rng(7)
    true = [1.0 - threshold.reject_below(rng.uniform(size=n), recall, 0.95) for _ in range(400)]
    kept = np.mean(np.array(true) >= recall)
    # 0.95 less three standard errors of 400 runs.
    assert kept >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)
    assert np.mean(true) < 1.0 - 0.2 * (1.0 - recall), "and not by rejecting nothing"


def test_accepted_crops_are_nearly_all_wanted():
    rng = np.random.default_rng(1)
    labels = (rng.uniform(size=4000) < 0.5).astype(int)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.1), 0, 1)
    at = threshold.accept_from(scores, labels, 0.1)
    assert labels[scores >= at].mean() == pytest.approx(threshold.PRECISION, abs=0.01)
    assert threshold.accept_from(scores, labels, 0.9) == 0.9
    assert threshold.accept_from(scores, np.zeros(4000, int), 0.1) == 1.0


# The head.


def test_the_head_is_the_minimum_of_its_loss():
    rng = np.random.default_rng(3)
    labels = (rng.uniform(size=600) < 0.2).astype(int)
    features = rng.normal(size=(600, 30)).astype(np.float32)
    features[:, 4] += 2 * labels
    head = fit_head(features, labels)
    assert np.abs(head.weight).argmax() == 4
    scores = head.scores(features)
    assert scores[labels == 1].mean() > 0.6 > 0.4 > scores[labels == 0].mean()
    # At the minimum the errors of the two classes, each counting half, balance out.
    assert scores[labels == 0].mean() == pytest.approx(1 - scores[labels == 1].mean(), abs=1e-6)
    again = fit_head(features, labels)
    assert (again.weight == head.weight).all() and again.bias == head.bias


def test_the_head_matches_scikit_learn():
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is no part of the set-up")
    rng = np.random.default_rng(5)
    labels = (rng.uniform(size=500) < 0.3).astype(int)
    features = rng.normal(size=(500, 12)) + labels[:, None] * np.linspace(0, 1, 12)
    head = fit_head(features, labels, ridge=0.2)
    scaled = (features - features.mean(0)) / (features.std(0) + 0.05)
    theirs = linear.LogisticRegression(C=1 / (0.2 * 500), class_weight="balanced", tol=1e-10, max_iter=1000)
    theirs.fit(scaled, labels)
    np.testing.assert_allclose(head.scores(features), theirs.predict_proba(scaled)[:, 1], atol=1e-4)


@pytest.mark.parametrize("value", [0, 1])
def test_crops_of_only_one_class_are_refused(value):
    with pytest.raises(EvaluateError, match="with and without a wanted object"):
        fit_head(np.zeros((5, 3), np.float32), np.full(5, value))


# Labels and the split.


def test_a_crop_is_labelled_by_its_overlap_with_boxes():
    crops = np.array([[0, 0, 100, 100.0]]).repeat(1, axis=0)

    def label(*boxes):
        return int(samples.label_of(crops, np.array(boxes, np.float32).reshape(-1, 4))[0])

    assert label() == samples.NOTHING
    assert label([10, 10, 40, 90]) == samples.WANTED
    assert label([-500, -500, 500, 500]) == samples.WANTED, "part of a large one"
    assert label([80, 0, 120, 50]) == samples.WANTED, "half of it"
    assert label([80, 0, 130, 50]) == samples.AMBIGUOUS
    assert label([95, 0, 195, 50]) == samples.NOTHING
    assert label([95, 0, 195, 50], [10, 10, 40, 90]) == samples.WANTED


def passers_by(n_frames: int, every: int, stay: int) -> Reference:
    """An object comes in every so many frames, walks along its own row and leaves."""
    found = []
    for at in range(n_frames):
        boxes = []
        for number, first in enumerate(range(5, n_frames, every)):
            if first <= at < first + stay:
                x, y = 10 + 4 * (at - first), 40 * (number % 10)
                boxes.append([x, y, x + 20, y + 30])
        n = len(boxes)
        xyxy = np.array(boxes, np.float32).reshape(-1, 4)
        found.append(Detections(xyxy, np.full(n, 0.9, np.float32), np.zeros(n, np.int32)))
    stamps = (np.arange(n_frames) + 1) * 10**8
    low_score = [Detections.empty()] * n_frames
    return Reference(stamps, found, low_score, [{} for _ in range(n_frames)], 0.02, (640, 480))


def test_blocks_are_long_and_have_gaps():
    part = splits.parts(1200, 10.0)
    borders = np.flatnonzero(part[1:] != part[:-1]) + 1
    lengths = dict.fromkeys((splits.FIT, splits.CALIBRATE, splits.NEITHER), 0)
    for start, end in zip([0, *borders], [*borders, 1200], strict=True):
        lengths[int(part[start])] += 1
        assert end - start >= (10 if part[start] == splits.NEITHER else 150)
    assert lengths[splits.NEITHER] == lengths[splits.FIT] + lengths[splits.CALIBRATE] - 1
    assert (part == splits.CALIBRATE).sum() > 1.7 * (part == splits.FIT).sum()
    fit, calibrate = np.flatnonzero(part == splits.FIT), np.flatnonzero(part == splits.CALIBRATE)
    assert np.abs(fit[:, None] - calibrate[None]).min() > 10, "no neighbouring frames on both sides"


def test_calibration_objects_are_excluded_from_the_fit():
    reference = passers_by(1200, 40, 30)
    split = splits.split(reference, 10.0)
    assert len(split.events) >= 10
    for event in split.events:
        assert split.part[event.frame] == splits.CALIBRATE
        assert (reference.detections[event.frame].xyxy_px == event.box).all(axis=1).any()
    firsts = {at: first for first in range(5, 1200, 40) for at in range(first, first + 30)}
    for at in np.flatnonzero(split.part == splits.FIT):
        if at in firsts:
            known = split.part[firsts[at]] == splits.FIT
            assert len(split.held_out[at]) == (0 if known else 1)
    again = splits.split(reference, 10.0)
    assert [one.frame for one in again.events] == [one.frame for one in split.events]


# The command.


def test_a_whole_fit_on_a_real_clip(tmp_path, monkeypatch, capsys):
    """From video to a bundle that the cascade runs, and the same again."""
    bundle_or_skip(DETECTOR)
    bundle_or_skip(EFFICIENTNET)
    monkeypatch.setattr(samples, "MAX_FRAMES", 60)
    video, out = thinned_clip("vtest.avi", 4, tmp_path / "street.avi"), tmp_path / "fit"
    arguments = ["fit-cascade", "--video", str(video), "--recall", "0.8", "--size", "32", "--out", str(out)]
    assert main([*arguments, "--name", "court"]) == 0
    output = capsys.readouterr().out
    assert "recall >= 0.8 with 0.95 confidence on" in output
    bundle = load_bundle(str(out / "court"))
    stage, figures = bundle.manifest.stage, bundle.manifest.figures
    assert bundle.labels == ("nothing", "wanted") and stage is not None
    assert 0 < stage.reject_below <= stage.accept_from <= 1 and stage.look_share == 0.5
    assert set(figures["fitted_on"]) == {"street.avi"} and len(figures["fitted_on"]["street.avi"]) == 64
    assert figures["teacher"]["name"] == DETECTOR and figures["calibration"]["events"] >= 14
    replayed = figures["replayed"]["calibration_blocks"]["street.avi"]
    assert 0 < replayed["wanted"] <= replayed["passed"] <= replayed["frames"] < 199
    assert json.loads((out / "report.json").read_text()) == figures
    kept = [row[1] for row in figures["calibration"]["curve"]]
    assert kept[0] == 1.0 and kept == sorted(kept, reverse=True)
    frame = Frame(np.zeros((64, 64, 3), np.uint8), 1, "camera")
    for backend in ("onnxruntime", "openvino"):
        pytest.importorskip(backend)
        session, _ = open_session(bundle, backend, BackendRequest(threads=1))
        classifier = Classifier.from_bundle(bundle, session)
        assert classifier.supports_batches and classifier.classify(frame).scores.sum() == pytest.approx(1.0)
        session.close()


@pytest.mark.parametrize(
    "arguments,words",
    [
        (["--recall", "0.999"], "expected at least 2995 events to guarantee a recall of 0.999"),
        (["--labels", "person,zeppelin"], "got 'zeppelin'"),
        (["--teacher", EFFICIENTNET], "expected a detector as --teacher"),
        (["--base", DETECTOR], "expected a classifier with float32 input in nchw as --base"),
        (["--features", "nowhere"], "expected an output 'nowhere'"),
        (["--size", "100"], "expected a size that is a multiple of 32 px, got 100"),
        (["--held-out", "{video}"], "expected held-out clips that are not fitted on"),
        (["--video", "/nowhere.mp4"], "source '/nowhere.mp4' does not exist"),
        (["--video", "scene:nowhere"], "expected one of the conditions"),
        (["--teacher", "no_such_teacher"], "expected the bundle 'no_such_teacher'"),
    ],
)
def test_unusable_arguments_are_refused_with_a_message(arguments, words, tmp_path, capsys):
    bundle_or_skip(DETECTOR)
    bundle_or_skip(EFFICIENTNET)
    video, out = clip_or_skip("carphone_pristine.mp4"), tmp_path / "fit"
    given = [one.format(video=video) for one in arguments]
    assert main(["fit-cascade", "--video", video, "--out", str(out), *given]) in (1, 2)
    assert words in capsys.readouterr().err
    assert not list(out.glob("*/bundle.yaml"))


@pytest.mark.parametrize(
    "argument", ["--recall=1", "--recall=0", "--labels=,", "--name=A b", "--confidence=x"]
)
def test_wrong_arguments_are_usage_errors(argument, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["fit-cascade", "--video", "x.mp4", argument])
    assert caught.value.code == 2 and "usage:" in capsys.readouterr().err
