"""Accuracy at other input sizes: copies of bundles with resized graphs."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import SSD, bundle_or_skip

from edge_vision.backends import BackendRequest, open_session
from edge_vision.bundles.store import load_bundle
from edge_vision.evaluate.accuracy.sizes import at_sizes
from edge_vision.evaluate.command import main


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_resized_bundle_computes_what_the_one_made_at_this_size_does(
    tmp_path: Path, precision: str
) -> None:
    """The nodes of the int8 graph are in no order, as quantizers leave them."""
    bundle_or_skip("nanodet")
    own = bundle_or_skip("nanodet_320")
    (resized,) = at_sizes(["nanodet"], ["320"], tmp_path).values()
    image = np.random.default_rng(0).normal(0, 1, (1, 3, 320, 320)).astype(np.float32)
    request = BackendRequest(precision=precision)
    rows = [
        open_session(bundle, "onnxruntime", request)[0].run({"images": image})["rows"].copy()
        for bundle in (load_bundle(resized), own)
    ]
    assert rows[0].shape == (1, 2100, 124)
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)


def test_the_command_judges_each_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle_or_skip(SSD)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((48, 64, 3), 90, np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "grey.png"}],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 30, 30]}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    given = ["accuracy", SSD, "--labels", str(tmp_path / "labels.json"), "--json", str(tmp_path / "out.json")]
    assert main([*given, "--size", "native", "256x192"]) == 0
    models = json.loads((tmp_path / "out.json").read_text())["models"]
    assert list(models) == [f"{SSD} at 300x300", f"{SSD} at 256x192"]
    capsys.readouterr()
    assert main([*given, "--size", "big"]) == 2
    assert "--size big: sizes: expected native, a side" in capsys.readouterr().err
