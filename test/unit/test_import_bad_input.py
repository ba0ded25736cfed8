"""`bundles import` on files that are no good: one clear error each, and nothing left behind."""

from __future__ import annotations

import os
import re
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_cases import ULTRALYTICS, refused, run_import, small_yolov8
from onnx import TensorProto

from edge_vision.bundles import load_bundle
from edge_vision.errors import BundleError
from edge_vision.importer.run import read_image

# --- The file ---


def test_random_and_cut_bytes_are_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = small_yolov8(tmp_path / "m.onnx").read_bytes()
    file = tmp_path / "m.onnx"
    for data in (b"", b"\x00" * 1000, os.urandom(4096), whole[:-1], whole[: len(whole) // 2], whole[:20]):
        file.write_bytes(data)
        assert "expected an ONNX file, got" in refused(tmp_path, capsys, file)


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    cut=st.floats(0, 1, exclude_max=True),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=4),
    open_size=st.booleans(),
)
def test_damage_anywhere_gives_our_error_or_a_bundle(
    tmp_path: Path, cut: float, flips: list, open_size: bool
) -> None:
    """A changed weight is no damage that shows; all else ends in our own error, never in another one."""
    file = tmp_path / "m.onnx"
    sides = ("h", "w") if open_size else (96, 128)
    data = bytearray(small_yolov8(file, *sides, metadata=ULTRALYTICS).read_bytes())
    for place, value in flips:
        data[int(place * (len(data) - 1))] ^= value
    if not flips:
        data = data[: int(cut * len(data))]
    file.write_bytes(bytes(data))
    code = run_import(file, "--out", tmp_path / "out", "--yes", "--force")
    assert code == 1 or (code == 0 and flips)


@pytest.mark.parametrize("where", ["metadata", "input", "location"])
def test_text_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str) -> None:
    file = with_outside_weights(tmp_path / "m.onnx", "weights")
    if where != "location":
        file = small_yolov8(tmp_path / "m.onnx", metadata=ULTRALYTICS)
    word = {"metadata": b"Ultralytics", "input": b"images", "location": b"weights"}[where]
    file.write_bytes(file.read_bytes().replace(word, b"\xff" + word[1:]))
    assert "expected an ONNX file with names in UTF-8" in refused(tmp_path, capsys, file)


def test_a_model_of_three_gigabytes_is_not_even_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hole in a file takes no room on the disk; read, it would take three gigabytes of memory."""
    file = tmp_path / "big.onnx"
    with file.open("wb") as out:
        out.truncate(3 << 30)
    assert "expected at most 2000 MB, got 3072 MB; --max-mb sets the limit" in refused(tmp_path, capsys, file)
    assert "--max-mb: expected 1 to 2047, got 4000" in refused(tmp_path, capsys, file, "--max-mb", 4000)
    small = small_yolov8(tmp_path / "m.onnx")
    with small.open("r+b") as out:
        out.truncate(2 << 20)
    assert "expected at most 1 MB, got 2 MB" in refused(tmp_path, capsys, small, "--max-mb", 1)


@pytest.mark.parametrize(
    "name, message",
    [
        ("m.pt", "a PyTorch file, which can contain code"),
        ("m.engine", "a TensorRT engine"),
        ("m.txt", "ends in .onnx or .tflite, got '.txt'"),
        ("absent.onnx", "expected a model file, got no such file"),
        ("folder.onnx", "expected a model file, got a folder"),
        ("m.tflite", "expected a TFLite file .*, got b'': it is damaged"),
    ],
)
def test_another_kind_of_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    file = tmp_path / name
    if name.startswith("folder"):
        file.mkdir()
    elif not name.startswith("absent"):
        file.write_bytes(b"")
    error = refused(tmp_path, capsys, file)
    assert re.search(message, error), error


# --- Weights in other files ---


def with_outside_weights(path: Path, location: str) -> Path:
    model = onnx.load(str(small_yolov8(path)))
    tensor = next(weight for weight in model.graph.initializer if weight.name == "w8")
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "link", "", "absent", "x/../../secret", "a\0b", "loop", "sub"]
)
def test_weights_outside_the_folder_are_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], location: str
) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(100_000))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / "loop")
    file = with_outside_weights(folder / "m.onnx", location)
    assert "expected the weights 'w8' in a file of its own folder" in refused(tmp_path, capsys, file)


def test_weights_that_are_too_short_or_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = with_outside_weights(tmp_path / "m.onnx", "weights")
    (tmp_path / "weights").write_bytes(bytes(10))
    message = refused(tmp_path, capsys, file)
    assert "w8" in message or "expected a graph that runs" in message
    with (tmp_path / "weights").open("wb") as out:
        out.truncate(3 << 30)
    assert "expected weights of at most 19" in refused(tmp_path, capsys, file)


# --- The graph ---


def test_a_weight_that_claims_to_be_huge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.load(str(small_yolov8(tmp_path / "m.onnx")))
    weight = next(weight for weight in model.graph.initializer if weight.name == "w8")
    weight.dims[:] = [1 << 20, 1 << 20, 8, 8]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert "expected a graph that runs, got an error" in refused(tmp_path, capsys, tmp_path / "m.onnx")


# --- Where it goes ---


def test_a_picture_that_claims_gigabytes_is_not_decoded(tmp_path: Path) -> None:
    picture = tmp_path / "picture.ppm"
    picture.write_bytes(b"P6 16000 16000 255 ")
    with pytest.raises(BundleError, match="expected at most 50 megapixels, got 16000x16000"):
        read_image(picture)


def test_names_and_places(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    graph = small_yolov8(tmp_path / "m.onnx", metadata=ULTRALYTICS)
    assert "expected a name of 1 to 64" in refused(tmp_path, capsys, graph, "--name", "../x")
    assert run_import(graph, "--yes", "--name", "ssdlite_mobilenet_v2_coco") == 1
    assert "the name of a bundle that `fetch` makes" in capsys.readouterr().err
    assert run_import(graph, "--yes", "--out", tmp_path / "no" / "where") == 1
    assert "expected a folder in an existing one" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]


def test_what_is_there_is_only_replaced_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", metadata=ULTRALYTICS)
    assert run_import(graph, "--out", tmp_path / "out", "--yes") == 0
    first = load_bundle(str(tmp_path / "out"))
    assert "exists already; --force replaces it" in refused(tmp_path, capsys, graph)
    # A replacement that fails leaves the old one as it was.
    refused(tmp_path, capsys, graph, "--force", "--set", "head.options.box_unit=miles")
    assert load_bundle(str(tmp_path / "out")) == first
    assert run_import(graph, "--out", tmp_path / "out", "--yes", "--force", "--set", "licence=MIT") == 0
    assert load_bundle(str(tmp_path / "out")).manifest.licence == "MIT"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx", "out"]


def test_without_yes_and_a_terminal_nothing_is_written(tmp_path: Path, monkeypatch, capsys) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", metadata=ULTRALYTICS)
    with open(os.devnull) as no_terminal:
        monkeypatch.setattr("sys.stdin", no_terminal)
        assert run_import(graph, "--out", tmp_path / "out") == 1
    assert "not written: stdin is not a terminal. Pass --yes" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.onnx"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = small_yolov8(tmp_path / "m.onnx", metadata=ULTRALYTICS)
    tmp_path.chmod(0o500)
    try:
        assert "expected a folder to write to" in refused(tmp_path, capsys, graph)
    finally:
        tmp_path.chmod(0o700)
