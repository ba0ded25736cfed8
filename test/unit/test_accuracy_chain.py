"""Chains against labels, on a real clip with the real gate, detector and tracker."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import SSD, bundle_or_skip, clip_or_skip

from edge_vision.evaluate.accuracy.accuracy_command import chain_lines
from edge_vision.evaluate.accuracy.chain_accuracy import EVERY_FRAME, chains_on_labels
from edge_vision.evaluate.accuracy.detectors import open_detector, run_detectors
from edge_vision.evaluate.accuracy.labels import read_label_set
from edge_vision.evaluate.command import main
from edge_vision.evaluate.presets import PRESETS


@pytest.mark.timeout(300)
def test_chains_on_a_clip(capsys: pytest.CaptureFixture[str]) -> None:
    clip_or_skip("bikes.mp4")
    bundle_or_skip(SSD)
    labels = read_label_set(clips=["bikes"])
    labels = replace(labels, images=tuple(one for one in labels.images if (one.frame or 0) <= 112))
    chains = chains_on_labels(SSD, labels)
    assert list(chains) == [EVERY_FRAME, *(name for one in PRESETS for name in (one, f"evenly_as_{one}"))]
    detector = open_detector(SSD, "onnxruntime", "auto", len(labels.images))
    run_detectors([detector], labels)
    scores = detector.scores(labels)
    # The every-frame chain publishes what the detector finds above its threshold.
    every = chains[EVERY_FRAME]
    assert every["inferred_share"] == 1.0
    assert (every["recall"], every["precision"]) == (scores["recall"], scores["precision"])
    for name in PRESETS:
        assert 0.0 < chains[name]["inferred_share"] == chains[f"evenly_as_{name}"]["inferred_share"] < 1.0
    assert all(0.0 < one["hota"] < 1.0 and one["det_a"] <= 1.0 for one in chains.values())
    assert len(chain_lines(chains)) == 2 + len(chains)


def test_a_chain_needs_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle_or_skip(SSD)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((48, 64, 3), 90, np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "grey.png"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 30, 30]}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert main(["accuracy", SSD, "--labels", str(tmp_path / "labels.json"), "--chain"]) == 2
    assert "expected labelled frames of videos" in capsys.readouterr().err
    assert main(["accuracy", SSD, "--chain", "--backend", "openvino"]) == 2
    assert "expected the backend onnxruntime" in capsys.readouterr().err
