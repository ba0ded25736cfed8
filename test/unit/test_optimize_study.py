"""The order of a study's work, on a tiny real model, through an engine of the test's own."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from optimize_cases import pictures, tiny_bundle, tiny_graph, vit_graph

from edge_vision.backends.tensorrt import TensorRtRtxBackend
from edge_vision.errors import EdgeVisionError
from edge_vision.optimize import results
from edge_vision.optimize.report import explain
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.study import Study
from edge_vision.optimize.trial import Trial, TrialExecutor, TrialOutcome
from edge_vision.optimize.trial_process import KINDS

pytestmark = pytest.mark.timeout(300)


class Here(TrialExecutor):
    """Runs jobs in this process: what an engine has to do is one method. asked: their names, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def run(self, job: Trial, folder: Path, timeout_s: float) -> TrialOutcome:
        self.asked.append(job.name)
        before = Path.cwd()
        os.chdir(folder)
        try:
            return TrialOutcome("done", result=importlib.import_module(KINDS[job.kind]).run(job.args))
        except EdgeVisionError as error:
            return TrialOutcome("failed", str(error))
        finally:
            os.chdir(before)


def settings(tmp_path: Path, **others: object) -> Settings:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clips = [str(pictures(tmp_path / name, 30, seed)) for seed, name in enumerate("ab")]
    values = {"backends": ("onnxruntime",), "threads": (1,), "measure_s": 0.1, "pictures": 10, **others}
    return Settings(str(model), (clips[0],), clips[1], **values)  # type: ignore[arg-type]


def vit(tmp_path: Path, **others: object) -> Settings:
    asked = settings(tmp_path, **others)
    graph = vit_graph(tmp_path / "vit.onnx")
    return replace(asked, model=str(tiny_bundle(tmp_path / "vit", graph)))


def study(tmp_path: Path, asked: Settings, engine: TrialExecutor) -> dict:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    asked.write(out)
    return Study(out, asked, engine, lambda text: None).run()


def test_the_search_goes_from_fp32_to_precisions_to_sizes(tmp_path: Path) -> None:
    engine = Here()
    report = study(tmp_path, settings(tmp_path, sizes=("native", "96")), engine)
    measured = [name for name in engine.asked if name.startswith("onnxruntime")]
    assert measured[:4] == [
        "onnxruntime-fp32-64x64-t1",
        "onnxruntime-fp16-64x64-t1",
        "onnxruntime-int8-64x64-t1",
        "onnxruntime-int8_default-64x64-t1",
    ]
    assert engine.asked.index("sensitivity") > engine.asked.index("onnxruntime-int8-64x64-t1")
    assert measured[-1].split("-")[2] == "96x96"
    assert all(row["parent"] == report["baseline"] for row in report["rows"])
    assert len(engine.asked) == len(set(engine.asked))


def test_exhaustive_measures_every_cell(tmp_path: Path) -> None:
    asked = settings(
        tmp_path, sizes=("native", "96"), threads=(1, 2), exhaustive=True, precisions=("fp32", "fp16")
    )
    report = study(tmp_path, asked, Here())
    cells = {(row["precision"], row["size"], row["threads"]) for row in report["rows"]}
    assert cells == {(p, s, t) for p in ("fp32", "fp16") for s in ("64x64", "96x96") for t in (1, 2)}
    parents = {row["id"]: row["parent"] for row in report["rows"]}
    assert parents["onnxruntime-fp16-96x96-t2"] == "onnxruntime-fp32-64x64-t2"
    assert parents["onnxruntime-fp32-64x64-t2"] == "onnxruntime-fp32-64x64-t1"


def test_layers_are_ranked_and_those_kept_hold_the_bound(tmp_path: Path) -> None:
    report = study(tmp_path, settings(tmp_path, precisions=("fp32", "int8", "mixed")), Here())
    found = report["sensitivity"]
    assert {layer["name"] for layer in found["layers"]} == {"first", "last"}
    noise = [layer["sqnr_db"] for layer in found["layers"]]
    assert noise == sorted(noise) and all(20 < value < 100 for value in noise)
    assert found["kept"] == [layer["name"] for layer in found["layers"]][: len(found["kept"])]
    assert ("active" in found["nodes"]) is ("first" in found["kept"])
    if found["holds"]:
        tried = {one["kept"]: one["agreement"] for one in found["search"]}
        assert tried[len(found["kept"])] >= found["bound"] - 1e-3


def test_what_was_measured_under_other_clips_is_not_taken(tmp_path: Path) -> None:
    first = Here()
    asked = settings(tmp_path, precisions=("fp32",))
    study(tmp_path, asked, first)
    again = Here()
    study(tmp_path, asked, again)
    assert first.asked and not again.asked
    (tmp_path / "out" / "prepared.json").unlink()
    other = Settings(asked.model, (asked.calibration,), asked.frames[0], **_rest(asked))
    third = Here()
    study(tmp_path, other, third)
    assert third.asked == first.asked


def _rest(asked: Settings) -> dict:
    return {n: getattr(asked, n) for n in ("backends", "threads", "measure_s", "pictures", "precisions")}


def test_a_transformer_goes_through_both_runtimes(tmp_path: Path) -> None:
    """Its weights are random: that it runs, and how far int8's outputs are off, is all that is said."""
    pytest.importorskip("openvino")
    asked = vit(tmp_path, backends=("onnxruntime", "openvino"), precisions=("fp32", "int8", "mixed"))
    report = study(tmp_path, replace(asked, sizes=("native",)), Here())
    rows = {row["id"]: row for row in report["rows"]}
    for backend in ("onnxruntime", "openvino"):
        row = rows[f"{backend}-int8-64x64-t1"]
        assert row["status"] != "failed" and row["quantized"]["layers_quantized"] == 14
        assert abs(row["saturation_db"]) < 1.0
    layers = report["sensitivity"]["layers"]
    assert len(layers) == 14 and all(15 < layer["sqnr_db"] < 100 for layer in layers)
    assert sum(layer["arithmetic"] for layer in layers) == pytest.approx(1.0, abs=1e-3)


def with_engines(tmp_path: Path) -> Settings:
    values = {"backends": ("onnxruntime", "tensorrt_rtx"), "sizes": ("native",)}
    return settings(tmp_path, precisions=("fp32", "int8"), **values)


def test_an_engine_is_built_and_can_not_be_chosen(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    report = study(tmp_path, with_engines(tmp_path), Here())
    rows = {row["id"]: row for row in report["rows"]}
    for precision in ("fp32", "int8"):
        row = rows[f"tensorrt_rtx-{precision}-64x64-t1"]
        assert row["status"] == "built" and row["reason"].startswith("built, not run: an engine of")
        assert row["engine_bytes"] > 1000 and "relative" not in row
    assert report["chosen"].startswith("onnxruntime")
    assert not any(name.startswith("tensorrt") for name in report["decision"]["front"])
    graph = onnx.load(tmp_path / "out" / "graphs" / "tensorrt-int8-64x64" / "model.onnx").graph
    held = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    zeros = [held[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(zeros) >= 2 and all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert held["bias"].dtype == np.float32
    assert re.search(r"tensorrt_rtx-int8-64x64-t1 +built, not run: ", explain.table(report))


def test_where_the_builder_is_not_installed_the_row_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TensorRtRtxBackend, "module", "tensorrt_of_nowhere")
    report = study(tmp_path, with_engines(tmp_path), Here())
    (row, other) = [row for row in report["rows"] if row["backend"] == "tensorrt_rtx"]
    assert row["status"] == other["status"] == "failed" and report["chosen"]
    assert "the package tensorrt_of_nowhere is not installed: pip install" in row["reason"]


@pytest.mark.parametrize(("load", "told"), [(None, False), (0.4, False), (1.0, False), (7.5, True)])
def test_a_busy_machine_is_told(load: float | None, told: bool) -> None:
    assert bool(results.busy(load, 2)) is told
