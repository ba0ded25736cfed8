"""OpenVINO: compiled graphs that are kept, and what it says of threads and precision. On the CPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_cases import SSD, bundle_or_skip, external_graph

from edge_vision.backends import BackendRequest, Session, available_backends, make_backend
from edge_vision.backends.host import usable_cores
from edge_vision.errors import BackendError, BackendUnavailable, EngineRefused

IMAGE = {"images": np.random.default_rng(0).uniform(-1, 1, (1, 3, 300, 300)).astype(np.float32)}


@pytest.fixture(autouse=True)
def installed() -> None:
    reason = available_backends()["openvino"]
    if reason:
        pytest.skip(reason)


def load(device: str = "cpu", precision: str = "auto", **options: object) -> Session:
    path = bundle_or_skip(SSD).folder / "model.onnx"
    return make_backend("openvino").load(path, BackendRequest(device, precision, options=options))


def logits(session: Session) -> np.ndarray:
    return session.run(IMAGE)["class_logits"].copy()


def test_a_kept_graph_gives_the_same_numbers(tmp_path: Path) -> None:
    fresh, first, again = load(), load(cache_dir=tmp_path), load(cache_dir=tmp_path)
    assert len(list(tmp_path.glob("openvino-*.engine"))) == 1
    np.testing.assert_array_equal(logits(first), logits(fresh))
    np.testing.assert_array_equal(logits(again), logits(fresh))
    assert first.actual == again.actual == fresh.actual


def test_a_changed_kept_graph_is_refused_and_can_be_made_again(tmp_path: Path) -> None:
    load(cache_dir=tmp_path)
    (path,) = tmp_path.glob("*.engine")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineRefused, match="--backend openvino --rebuild"):
        load(cache_dir=tmp_path)
    load(cache_dir=tmp_path, rebuild=True)
    load(cache_dir=tmp_path)


def test_each_precision_is_kept_on_its_own(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        load(precision=precision, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.engine"))) == 2


def test_a_cache_that_cannot_be_written_is_reported_and_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    session = load(cache_dir=tmp_path / "file")
    assert "could not be kept" in session.actual.notes[0]
    assert logits(session).shape == (1, 1917, 91)


@pytest.mark.parametrize("device", ["cpu", "auto", "auto:cpu", "hetero:cpu"])
def test_threads_and_precision_are_the_same_however_the_cpu_was_chosen(device: str) -> None:
    actual = load(device).actual
    assert (actual.device, actual.threads, actual.precision) == ("cpu", usable_cores(), "fp32")


def test_the_reported_precision_is_the_one_that_computes() -> None:
    """The numbers differ from those of fp32 exactly if another precision is reported, on any processor.

    A processor with bfloat16 only uses it for fp16.
    """
    fp32 = logits(load(precision="fp32"))
    for precision, expected in (("bf16", {"bf16", "fp32"}), ("fp16", {"fp16", "bf16", "fp32"})):
        session = load(precision=precision)
        assert session.actual.precision in expected
        assert (session.actual.precision == "fp32") == np.array_equal(logits(session), fp32)


def test_a_device_that_is_not_there_names_those_that_are() -> None:
    for device in ("npu", "gpu.1", "auto:gpu,cpu", "warp_drive"):
        with pytest.raises(BackendUnavailable, match=f"openvino sees the devices cpu here, got '{device}'"):
            load(device)


def test_an_onnx_graph_named_xml_is_refused(tmp_path: Path) -> None:
    """OpenVINO recognises it by its contents, and would read its weights in another file."""
    graph = external_graph(tmp_path).rename(tmp_path / "model.xml")
    with pytest.raises(BackendError, match="cannot load"):
        make_backend("openvino").load(graph, BackendRequest())


def test_the_model_converter_is_not_loaded_but_can_be() -> None:
    code = (
        "import sys\n"
        "from edge_vision.backends import make_backend\n"
        "make_backend('openvino').devices()\n"
        "assert 'openvino.tools.ovc' not in sys.modules\n"
        "from openvino.tools.ovc import convert_model\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
