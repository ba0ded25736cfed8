"""The report of the optimizer: plots, the page, and typed records from and to JSON."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from optimize_cases import failed_result, result, tiny_bundle, tiny_graph

from edge_vision.optimize.candidates.pareto import decide
from edge_vision.optimize.data.dataset import Dataset
from edge_vision.optimize.device import this_device
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.sensitivity import LayerSensitivity, SearchStep, Sensitivity
from edge_vision.optimize.report import plot
from edge_vision.optimize.report.page import check_installed, write_page
from edge_vision.optimize.report.report_file import ModelInfo, StudyReport, read_report, write_report
from edge_vision.optimize.settings import Settings


def report() -> StudyReport:
    """A study with a chosen candidate, a runner-up, a failed candidate, and a layer search."""
    settings = Settings("tiny", ("clip",), threads=(1,), max_accuracy_loss=0.1)
    measured = [result("base", 1.0), result("int8", 0.5, 0.97), result("small", 0.3, 0.7)]
    results, decision = decide([*measured, failed_result("<odd>", "crashed: no output")], settings)
    layers = tuple(LayerSensitivity(f"layer{i}", "Conv", i, 20.0 + i, 0.9, 0.1) for i in range(5))
    found = Sensitivity(layers, (SearchStep(1, 0.98),), 0.98, ("layer0",), ("layer0",), True)
    return StudyReport(
        True,
        ModelInfo("tiny", "classify", "tiny", "0" * 64),
        this_device(),
        settings,
        Dataset({"clip": "0" * 64}, "1" * 64),
        "base",
        results,
        decision,
        found,
        ("a note",),
    )


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = report()
    write_report(tmp_path, written)
    assert read_report(tmp_path) == written
    write_report(tmp_path, replace(written, format=1))
    with pytest.raises(OptimizeError, match="of format 2, got: format 1"):
        read_report(tmp_path)


@pytest.mark.parametrize("size_in", [plot.WIDE_IN, plot.NARROW_IN], ids=["wide", "narrow"])
def test_the_labels_of_the_plot_are_inside_the_figure_and_apart(size_in: tuple[float, float]) -> None:
    figure = plot.pareto_figure(report(), size_in)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert [title.splitlines()[0] for title in boxes] == ["chosen", "runner-up"]
    first, second = boxes.values()
    assert not first.overlaps(second)
    for box in boxes.values():
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1


def test_the_page_has_one_line_for_each_reason_and_details_on_click(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "source", tiny_graph(tmp_path / "tiny.onnx"))
    study = report()
    page = write_page(tmp_path, study).read_text("utf-8")
    assert re.search(r"<summary>rejected: on the front, but int8 is preferred</summary>0\.50 against", page)
    assert "&lt;odd&gt;" in page and "<odd>" not in page and "a note" in page
    assert page.count("data:image/svg+xml;base64,") == 4
    assert write_page(tmp_path, study).read_text("utf-8") == page
    students = tuple(replace(one, classes=("person",)) for one in study.results)
    assert "; only person" in write_page(tmp_path, replace(study, results=students)).read_text("utf-8")
    assert "; only person" not in page


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(OptimizeError, match=r"the report needs jinja2: .*pip install Jinja2"):
        check_installed()
