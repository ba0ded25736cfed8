"""The order of the trials of a study, on a tiny real model, with an executor of the test's own."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from optimize_cases import image_folder, tiny_bundle, tiny_graph, vit_graph

from edge_vision.backends.runtimes.tensorrt import TensorRtRtxBackend
from edge_vision.errors import EdgeVisionError
from edge_vision.optimize.device import load_warning
from edge_vision.optimize.quantization import int8_recipe
from edge_vision.optimize.quantization.layer_quantizer import LayerQuantizer
from edge_vision.optimize.report import terminal
from edge_vision.optimize.report.report_file import StudyReport
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.study import run_study
from edge_vision.optimize.trials import measure, worker
from edge_vision.optimize.trials.executor import Result, Trial, TrialExecutor, TrialOutcome
from edge_vision.optimize.trials.process import run_trial
from edge_vision.optimize.trials.worker import WorkerSetup

pytestmark = pytest.mark.timeout(300)


class InProcess(TrialExecutor):
    """Runs trials in this process: an executor is one method. names: of the trials, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.timeouts_s: dict[str, float] = {}

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        self.names.append(trial.name)
        self.timeouts_s[trial.name] = timeout_s
        before = Path.cwd()
        os.chdir(folder)
        try:
            return TrialOutcome("done", result=run_trial(trial.kind, json.loads(trial.to_json())["task"]))
        except EdgeVisionError as error:
            return TrialOutcome("failed", str(error))
        finally:
            os.chdir(before)


class LocalWorker:
    """A worker of a measurement without its process: the same requests and responses."""

    def __init__(self, name: str, setup: WorkerSetup) -> None:
        started_s = time.monotonic()
        self._worker = worker._Worker()
        self.actual: dict[str, Any] = self.request("load", setup=asdict(setup))
        self.cold_start_s = time.monotonic() - started_s

    def request(self, method: str, **arguments: Any) -> Any:
        response = getattr(self._worker, method)(**json.loads(json.dumps(arguments)))
        return json.loads(json.dumps(response))

    def __enter__(self) -> LocalWorker:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def local_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measurements without child processes, which test_optimize_run and test_optimize_trials have."""
    monkeypatch.setattr(measure, "WorkerProcess", LocalWorker)
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)  # A worker sets it to 1.


def settings(tmp_path: Path, **others: object) -> Settings:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clips = [str(image_folder(tmp_path / name, 30, seed)) for seed, name in enumerate("ab")]
    values = {"backends": ("onnxruntime",), "threads": (1,), "measure_s": 0.1, "images": 10, **others}
    return Settings(str(model), (clips[0],), clips[1], **values)  # type: ignore[arg-type]


def vit(tmp_path: Path, **others: object) -> Settings:
    requested = settings(tmp_path, **others)
    graph = vit_graph(tmp_path / "vit.onnx")
    return replace(requested, model=str(tiny_bundle(tmp_path / "vit", graph)))


def study(
    tmp_path: Path, requested: Settings, executor: TrialExecutor, left_s: float = math.inf
) -> StudyReport:
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    requested.write(out)
    return run_study(out, requested, executor, lambda text: None, left_s=lambda: left_s)


def test_the_search_goes_from_fp32_to_precisions_to_sizes(tmp_path: Path) -> None:
    executor = InProcess()
    report = study(tmp_path, settings(tmp_path, sizes=("native", "96")), executor)
    measured = [name for name in executor.names if name.startswith("onnxruntime")]
    assert measured[:4] == [
        "onnxruntime-fp32-64x64-t1",
        "onnxruntime-fp16-64x64-t1",
        "onnxruntime-int8-64x64-t1",
        "onnxruntime-int8_default-64x64-t1",
    ]
    assert executor.names.index("sensitivity") > executor.names.index("onnxruntime-int8-64x64-t1")
    assert measured[-1].split("-")[2] == "96x96"
    assert all(result.parent == report.baseline for result in report.results)
    assert len(executor.names) == len(set(executor.names))


def test_exhaustive_measures_every_combination(tmp_path: Path) -> None:
    requested = settings(
        tmp_path, sizes=("native", "96"), threads=(1, 2), exhaustive=True, precisions=("fp32", "fp16")
    )
    report = study(tmp_path, requested, InProcess())
    cells = {(one.precision, one.size, one.threads) for one in report.results}
    assert cells == {(p, s, t) for p in ("fp32", "fp16") for s in ("64x64", "96x96") for t in (1, 2)}
    parents = {one.id: one.parent for one in report.results}
    assert parents["onnxruntime-fp16-96x96-t2"] == "onnxruntime-fp32-64x64-t2"
    assert parents["onnxruntime-fp32-64x64-t2"] == "onnxruntime-fp32-64x64-t1"


def test_layers_are_ranked_and_the_most_sensitive_stay_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the recipe of ARM, which quantizes the stem as well."""
    arm = int8_recipe.int8_recipe("onnxruntime", (), "aarch64")
    monkeypatch.setattr(int8_recipe, "int8_recipe", lambda *_: arm)
    report = study(tmp_path, settings(tmp_path, precisions=("fp32", "int8", "mixed")), InProcess())
    found = report.sensitivity
    assert found is not None and {layer.name for layer in found.layers} == {"first", "last"}
    noise = [layer.sqnr_db for layer in found.layers]
    assert noise == sorted(noise) and all(20 < value < 100 for value in noise)
    ranked = tuple(layer.name for layer in found.layers)
    assert found.fp32_layers == ranked[: len(found.fp32_layers)]
    assert ("active" in found.fp32_nodes) is ("first" in found.fp32_layers)
    if found.satisfied:
        assert found.final_agreement >= found.bound - 1e-3


class SlowLayerSearch(InProcess):
    """The layer search exceeds any limit."""

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        if trial.kind != "sensitivity":
            return super().run(trial, folder, timeout_s)
        self.names.append(trial.name)
        self.timeouts_s[trial.name] = timeout_s
        return TrialOutcome("timeout", "exceeded")


def test_without_time_only_the_baseline_is_measured_and_more_time_continues(tmp_path: Path) -> None:
    requested = settings(tmp_path, sizes=("native",))
    first, second = InProcess(), InProcess()
    report = study(tmp_path, requested, first, 0.0)
    assert [one.id for one in report.results] == [report.baseline] and not report.complete
    assert "not measured, as the time limit of the study was reached: onnx" in report.notes[-1]
    assert "onnxruntime-int8-64x64-t1" in report.notes[-1] and "mixed" in report.notes[-1]
    assert report.decision.chosen == report.baseline
    report = study(tmp_path, requested, second)
    assert report.complete and report.sensitivity and not set(first.names) & set(second.names)
    third = InProcess()
    assert study(tmp_path, requested, third, 0.0).complete and not third.names


def test_a_layer_search_leaves_time_for_other_candidates(tmp_path: Path) -> None:
    requested, executor = settings(tmp_path, sizes=("native", "96")), SlowLayerSearch()
    report = study(tmp_path, requested, executor, 100.0)
    assert executor.timeouts_s["sensitivity"] == 50.0
    assert executor.timeouts_s["onnxruntime-int8-64x64-t1"] == 100.0
    assert executor.names[-1].split("-")[2] == "96x96", "measured after it"
    assert not report.complete and "mixed precision" in report.notes[-1]
    again = InProcess()
    report = study(tmp_path, requested, again)
    assert again.names[0] == "sensitivity" and report.complete and report.sensitivity


def test_a_layer_search_that_exceeds_its_own_limit_is_not_repeated(tmp_path: Path) -> None:
    requested, executor = settings(tmp_path, sizes=("native",)), SlowLayerSearch()
    for _ in range(2):
        report = study(tmp_path, requested, executor, 1e6)
        assert report.complete and "the layer search timeout" in report.notes[-1]
    assert executor.names.count("sensitivity") == 1
    assert executor.timeouts_s["sensitivity"] == requested.timeout_s


def test_an_interrupted_layer_search_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested, alone = vit(tmp_path, sizes=("native",), precisions=("fp32", "mixed")), LayerQuantizer.alone
    layers: list[str] = []

    def interrupted(self: LayerQuantizer, layer: str) -> Any:
        layers.append(layer)
        if len(layers) == 2:
            raise KeyboardInterrupt
        return alone(self, layer)

    monkeypatch.setattr(LayerQuantizer, "alone", interrupted)
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, requested, InProcess())
    (file,) = (tmp_path / "out" / "ranges").glob("*.layers.jsonl")
    with file.open("a") as opened:
        opened.write('{"name": "last", "op')  # As after a power cut.
    report = study(tmp_path, requested, InProcess())
    assert layers[1] == layers[2] and len(layers) == len(set(layers)) + 1
    assert report.sensitivity and {one.name for one in report.sensitivity.layers} == set(layers)
    measured = len(layers)
    for one in (tmp_path / "out" / "trials").glob("sensitivity.*"):
        one.unlink()
    assert study(tmp_path, requested, InProcess()).sensitivity == report.sensitivity
    assert len(layers) == measured, "the incomplete line does not damage the next one"


def test_measurements_on_other_clips_are_not_reused(tmp_path: Path) -> None:
    first = InProcess()
    requested = settings(tmp_path, precisions=("fp32",))
    study(tmp_path, requested, first)
    again = InProcess()
    study(tmp_path, requested, again)
    assert first.names and not again.names
    (tmp_path / "out" / "dataset.json").unlink()
    third = InProcess()
    swapped = replace(requested, frames=(requested.calibration,), calibration=requested.frames[0])
    study(tmp_path, swapped, third)
    assert third.names == first.names


def test_a_transformer_runs_in_both_runtimes(tmp_path: Path) -> None:
    """Its weights are random, so only the loss of the outputs is meaningful."""
    pytest.importorskip("openvino")
    requested = vit(tmp_path, backends=("onnxruntime", "openvino"), precisions=("fp32", "int8", "mixed"))
    report = study(tmp_path, replace(requested, sizes=("native",)), InProcess())
    for backend in ("onnxruntime", "openvino"):
        result = report.result(f"{backend}-int8-64x64-t1")
        assert result.graph and result.graph.quantization
        assert result.graph.quantization.layers_quantized == 14
        assert abs(result.measured.saturation_db or 0.0) < 1.0
    assert report.sensitivity is not None
    layers = report.sensitivity.layers
    assert len(layers) == 14 and all(15 < layer.sqnr_db < 100 for layer in layers)
    assert sum(layer.arithmetic for layer in layers) == pytest.approx(1.0, abs=1e-3)


def with_engines(tmp_path: Path) -> Settings:
    values = {"backends": ("onnxruntime", "tensorrt_rtx"), "sizes": ("native",)}
    return settings(tmp_path, precisions=("fp32", "int8"), **values)


def test_an_engine_is_built_and_cannot_be_chosen(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    report = study(tmp_path, with_engines(tmp_path), InProcess())
    for precision in ("fp32", "int8"):
        result = report.result(f"tensorrt_rtx-{precision}-64x64-t1")
        assert result.status == "built" and "not run" in result.reason
        assert result.engine and result.engine.engine_bytes > 1000 and result.measurement is None
    assert report.decision.chosen and report.decision.chosen.startswith("onnxruntime")
    assert not any(name.startswith("tensorrt") for name in report.decision.front)
    graph = onnx.load(tmp_path / "out" / "variants" / "tensorrt-int8-64x64" / "model.onnx").graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    zeros = [constants[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert len(zeros) >= 2 and all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert constants["bias"].dtype == np.float32
    assert re.search(r"tensorrt_rtx-int8-64x64-t1 +built: built in ", terminal.table(report.results))


def test_a_builder_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorRtRtxBackend, "module", "tensorrt_of_nowhere")
    report = study(tmp_path, with_engines(tmp_path), InProcess())
    first, second = (one for one in report.results if one.backend == "tensorrt_rtx")
    assert first.status == second.status == "failed" and report.decision.chosen
    assert "the package tensorrt_of_nowhere is not installed: pip install" in first.reason


@pytest.mark.parametrize(("load", "warned"), [(None, False), (0.4, False), (1.0, False), (7.5, True)])
def test_a_busy_machine_is_reported(load: float | None, warned: bool) -> None:
    assert bool(load_warning(load, 2)) is warned
