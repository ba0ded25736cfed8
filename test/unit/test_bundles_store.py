"""Bundles on disk: opening them, and everything that can be wrong with a folder."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from edge_vision.bundles import cache_dir, list_bundles, load_bundle, store
from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.cli.models import main
from edge_vision.errors import BundleError
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.nodes.interface.specs import DETECTOR
from edge_vision.offline.manifest_writer import dump_manifest

GRAPHS = {"model.onnx": b"fp32 graph", "model_int8.onnx": b"int8 graph", "model.xml": b"xml graph"}
WEIGHTS = b"what model.xml reads"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def manifest(name: str) -> Manifest:
    kinds = {
        "model.onnx": ("onnx", "fp32"),
        "model_int8.onnx": ("onnx", "int8"),
        "model.xml": ("openvino", "fp16"),
    }
    beside = {"model.xml": ("model.bin", hashlib.sha256(WEIGHTS).hexdigest())}
    graphs = [
        GraphSpec(file, *kinds[file], hashlib.sha256(data).hexdigest(), *beside.get(file, ()))
        for file, data in GRAPHS.items()
    ]
    return replace(RECIPES["ssdlite_mobilenet_v2_coco"].manifest, name=name, graphs=tuple(graphs))


def write_bundle(folder: Path, name: str | None = None) -> Path:
    folder.mkdir(parents=True)
    for file, data in GRAPHS.items():
        (folder / file).write_bytes(data)
    (folder / "model.bin").write_bytes(WEIGHTS)
    (folder / "labels.txt").write_text("person\nbicycle\n")
    (folder / "bundle.yaml").write_text(dump_manifest(manifest(name or folder.name)))
    return folder


def refused(name_or_path: str | Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(str(name_or_path))
    return str(caught.value)


def test_a_bundle_opens_by_folder_and_by_name(cache: Path, tmp_path: Path) -> None:
    by_folder = load_bundle(str(write_bundle(tmp_path / "mine")))
    assert by_folder.labels == ("person", "bicycle")
    assert (by_folder.name, by_folder.version) == ("mine", "1.0.0")
    assert by_folder.sha256 == hashlib.sha256((tmp_path / "mine/bundle.yaml").read_bytes()).hexdigest()
    write_bundle(cache / "bundles" / "stored")
    assert load_bundle("stored").manifest == replace(by_folder.manifest, name="stored")
    assert list_bundles() == ["stored"]


def test_a_folder_here_needs_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "mine")
    assert "write ./mine" in refused("mine")
    assert load_bundle("./mine").name == "mine"


def test_graph_path_follows_the_preference_of_the_caller(tmp_path: Path) -> None:
    bundle = load_bundle(str(write_bundle(tmp_path / "mine")))
    assert bundle.graph_path(["tflite", "openvino", "onnx"])[0].name == "model.xml"
    assert bundle.graph_path(["onnx"])[1].precision == "fp32"
    assert bundle.graph_path(["onnx"], precision="int8")[0].name == "model_int8.onnx"
    with pytest.raises(
        BundleError, match=r"expected a graph in tflite, got onnx fp32, onnx int8, openvino fp16"
    ):
        bundle.graph_path(["tflite"])
    with pytest.raises(BundleError, match="with precision int8"):
        bundle.graph_path(["openvino"], precision="int8")


def test_a_changed_graph_is_never_handed_out(tmp_path: Path) -> None:
    bundle = load_bundle(str(write_bundle(tmp_path / "mine")))
    (tmp_path / "mine/model.onnx").write_bytes(b"fp32 grapH")
    with pytest.raises(BundleError) as caught:
        bundle.graph_path(["onnx"])
    assert hashlib.sha256(b"fp32 graph").hexdigest() in str(caught.value)
    assert hashlib.sha256(b"fp32 grapH").hexdigest() in str(caught.value)


@pytest.mark.parametrize("file", ["bundle.yaml", "labels.txt", "model.onnx", "model.xml"])
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    folder = write_bundle(tmp_path / "mine")
    (folder / file).unlink()
    assert f"{folder / file}: expected a file, got no such file" in refused(folder)
    (folder / file).mkdir()
    assert f"{folder / file}: expected a file, got a folder or device" in refused(folder)


def test_a_description_does_not_steer_the_terminal(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(cache / "bundles" / "mine")
    shown = replace(manifest("mine"), description="good \x1b[2J\u202e\n  other  detector")
    (folder / "bundle.yaml").write_text(dump_manifest(shown))
    assert main(["list"]) == 0 and main(["show", "mine"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\u202e" not in out and "\n  other" not in out
    assert r"good \u001b[2J\u202e\n  other" in out


def test_the_list_marks_the_default_detector(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mine", DETECTOR.param("model").default):
        write_bundle(cache / "bundles" / name)
    assert main(["list"]) == 0
    marked = [line for line in capsys.readouterr().out.splitlines() if "the default detector" in line]
    assert len(marked) == 1


@pytest.mark.parametrize("file", ["labels.txt", "model.onnx", "bundle.yaml"])
def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path, file: str) -> None:
    folder = write_bundle(tmp_path / "mine")
    (folder / file).rename(tmp_path / file)
    (folder / file).symlink_to(tmp_path / file)
    assert "expected a file inside the bundle's folder, got one outside it" in refused(folder)


def test_a_linked_folder_that_leaves_is_refused_and_one_that_stays_is_not(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "mine")
    text = (folder / "bundle.yaml").read_text().replace("labels: labels.txt", "labels: sub/labels.txt")
    (folder / "bundle.yaml").write_text(text)
    (folder / "sub").symlink_to(".")
    assert load_bundle(str(folder)).labels == ("person", "bicycle")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/labels.txt").write_text("a\n")
    (folder / "sub").unlink()
    (folder / "sub").symlink_to(tmp_path / "out")
    assert "got one outside it" in refused(folder)


def test_a_link_made_after_loading_is_refused_too(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "mine")
    bundle = load_bundle(str(folder))
    (folder / "model.onnx").rename(tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(BundleError, match="outside"):
        bundle.graph_path(["onnx"])


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "mine")
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    assert "model.onnx" in refused(folder)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"person\n\nbicycle\n", "expected one label per line, line 2 is empty"),
        (b"", "line 1 is empty"),
        (b"caf\xe9\n", "expected UTF-8 text, got an invalid byte at 3"),
        (b"x" * ((1 << 20) + 1), "expected at most 1048576 bytes"),
        (b"a\n" * 30_001, "expected at most 30000 labels, got 30001"),
    ],
)
def test_wrong_labels_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    folder = write_bundle(tmp_path / "mine")
    (folder / "labels.txt").write_bytes(data)
    assert words in refused(folder)


@pytest.mark.parametrize(
    "data", [b"caf\xc3\xa9\nb", b"caf\xc3\xa9\r\nb\r\n", b"\xef\xbb\xbfcaf\xc3\xa9\nb\n"]
)
def test_labels_may_end_lines_as_other_systems_do(tmp_path: Path, data: bytes) -> None:
    folder = write_bundle(tmp_path / "mine")
    (folder / "labels.txt").write_bytes(data)
    assert load_bundle(str(folder)).labels == ("caf\u00e9", "b")


def test_a_manifest_that_is_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "mine")
    (folder / "bundle.yaml").write_bytes(b"#" * ((1 << 20) + 1))
    assert "expected at most 131072 bytes" in refused(folder)
    (folder / "bundle.yaml").write_bytes(b"\xff\xfe\x00")
    assert "expected UTF-8 text" in refused(folder)


def test_a_known_bundle_that_is_not_there_names_the_command() -> None:
    name = "ssdlite_mobilenet_v2_coco"
    assert f"python -m edge_vision models fetch {name}" in refused(name)


def test_an_unknown_name_names_the_nearest() -> None:
    assert "did you mean 'ssdlite_mobilenet_v2_coco'?" in refused("ssdlite_mobilenet_v2_cocoo")


def test_a_stored_bundle_is_named_as_its_folder(cache: Path) -> None:
    write_bundle(cache / "bundles" / "stored", name="other")
    assert "name: expected 'stored', the folder's name, got 'other'" in refused("stored")


@pytest.mark.parametrize(
    "path", ["", ".", "/nonexistent/x", "a/b", "../bundles", "\0", "a/" * 5000, "~nobody_here/x"]
)
def test_a_path_to_nothing_is_refused(path: str) -> None:
    assert "expected" in refused(path) and len(refused(path)) < 1000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "mine")
    (folder / "labels.txt").chmod(0)
    assert "Permission denied" in refused(folder)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_VISION_CACHE", "/a/b")
    assert cache_dir() == Path("/a/b")
    monkeypatch.delenv("EDGE_VISION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    assert cache_dir() == Path("/c/edge_vision")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/h")
    assert cache_dir() == Path("/h/.cache/edge_vision")


def test_an_empty_cache_has_no_bundles() -> None:
    assert list_bundles() == []


def test_weights_beside_a_graph_are_verified_too(tmp_path: Path) -> None:
    """OpenVINO reads model.bin because it lies there: who changes it changes the model."""
    folder = write_bundle(tmp_path / "mine")
    bundle = load_bundle(str(folder))
    assert bundle.graph_path(["openvino"])[0] == folder / "model.xml"
    (folder / "model.bin").write_bytes(WEIGHTS + b"!")
    with pytest.raises(BundleError, match=r"model\.bin: expected sha256"):
        bundle.graph_path(["openvino"])
    assert bundle.graph_path(["onnx"])[0] == folder / "model.onnx"
    (folder / "model.bin").unlink()
    assert "model.bin: expected a file" in refused(folder)


@pytest.mark.parametrize(
    "old,new,needle",
    [
        ("weights: model.bin, ", "", "weights"),
        ("weights: model.bin", "weights: other.bin", "'model.bin', which OpenVINO reads beside model.xml"),
        ("weights_sha256: ", "weights_sha256: x", "64 lower-case hex digits"),
    ],
)
def test_a_graph_of_openvino_names_its_weights(tmp_path: Path, old: str, new: str, needle: str) -> None:
    folder = write_bundle(tmp_path / "mine")
    manifest = folder / "bundle.yaml"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    assert needle in refused(folder)


def test_a_file_of_20_gb_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sparse file takes no room, and claims any size."""
    bundle = load_bundle(str(write_bundle(tmp_path / "mine")))
    hashed: list[Path] = []
    real = store.sha256_of
    monkeypatch.setattr(store, "sha256_of", lambda path: hashed.append(path) or real(path))
    for graph, file in ((bundle.manifest.graphs[0], "model.onnx"), (bundle.manifest.graphs[2], "model.bin")):
        os.truncate(tmp_path / "mine" / file, 20 * 10**9)
        with pytest.raises(BundleError, match=rf"{file}: expected at most 2.1 GB, got 20.0 GB"):
            bundle.verify(graph)
    assert [path.name for path in hashed] == ["model.xml"], "which is sound"
