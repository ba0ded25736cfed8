"""A command neither removes nor overwrites what it did not write."""

from __future__ import annotations

from pathlib import Path

import pytest
from import_cases import run_import, small_yolov8
from model_cases import clip_or_skip
from optimize_cases import image_folder, tiny_bundle, tiny_graph

from edge_vision.bundles.store import load_bundle
from edge_vision.cli.demo.command import main as demo
from edge_vision.errors import BundleError, OutputError
from edge_vision.evaluate.command import main as evaluate
from edge_vision.offline.bundle_folder import put
from edge_vision.offline.output_folder import check_subfolders, claim_folder, marker_path, remove_path
from edge_vision.optimize.command import main as optimize


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's folder, whose entries have names that the commands use."""
    folder = tmp_path / "mine"
    for name in ("images", "source", "variants", "bundle", "ladder", "conditions"):
        (folder / name).mkdir(parents=True)
        (folder / name / "holiday.jpg").write_text("mine")
    for name in ("settings.json", "report.json", "entries.json", "summary.json", "params.yaml"):
        (folder / name).write_text("{}")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMANDS = {
    "optimize run": (optimize, ["run", "no_such_model", "--frames", "CLIP", "--out"]),
    "optimize resume": (optimize, ["resume"]),
    "optimize report": (optimize, ["report"]),
    "optimize demo": (optimize, ["demo", "--out"]),
    "evaluate gate": (evaluate, ["gate", "--video", "CLIP", "--quick", "--conditions", "bikes", "--out"]),
    "evaluate cascade": (
        evaluate,
        ["cascade", "--video", "CLIP", "--quick", "--conditions", "bikes", "--out"],
    ),
    "evaluate schedule": (evaluate, ["schedule", "--clip", "CLIP", "--quick", "--live", "none", "--out"]),
    "evaluate events": (evaluate, ["events", "--video", "CLIP", "--out"]),
    "evaluate fit-cascade": (evaluate, ["fit-cascade", "--video", "CLIP", "--out"]),
    "demo": (demo, ["--source", "CLIP", "--out"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_users_folder_is_refused_untouched(
    mine: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, arguments = COMMANDS[command]
    before = content(mine)
    clip = clip_or_skip("bikes.mp4")
    assert run([clip if one == "CLIP" else one for one in arguments] + [str(mine)]) in (1, 2)
    assert content(mine) == before
    error = capsys.readouterr().err
    assert f"{mine}: expected a" in error and ".edge_vision-" in error


def test_the_optimizer_removes_no_folder_for_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "source", "variants"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "holiday.jpg").write_text("mine")
    before = content(tmp_path)
    clip = clip_or_skip("bikes.mp4")
    assert optimize(["run", "no_such_model", "--frames", clip, "--out", str(tmp_path)]) == 1
    assert content(tmp_path) == before and len(before) == 3
    assert "images, source, variants and without .edge_vision-optimize" in capsys.readouterr().err


def test_the_optimizer_takes_its_own_folder_again_but_not_one_with_an_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clip = image_folder(tmp_path / "clip", 10, 1)
    run = ["--backends", "onnxruntime", "--precisions", "fp32", "--threads", "1", "--out", str(out)]
    for _ in range(2):
        assert optimize(["run", "no_such_model", "--frames", str(clip), *run]) == 1
        assert "no_such_model" in capsys.readouterr().err
    for inner in (out / "images", out / "source"):
        remove_path(inner)
    clip.rename(out / "images")
    model.rename(out / "source")
    for name, frames in (
        (out / "source", tmp_path / "tiny.onnx"),
        (tmp_path / "tiny.onnx", out / "images"),
    ):
        before = content(out)
        assert optimize(["run", str(name), "--frames", str(frames), *run]) == 1
        assert "expected an input outside the output folder" in capsys.readouterr().err
        assert content(out) == before


def test_a_demo_does_not_draw_over_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    claim_folder(out, "demo")
    clip = out / "annotated.mp4"
    clip.write_bytes(Path(clip_or_skip("bikes.mp4")).read_bytes())
    before = content(out)
    assert demo(["--source", str(clip), "--out", str(out)]) == 1
    assert "expected an input outside the output folder" in capsys.readouterr().err
    assert content(out) == before


def test_a_marker_is_of_one_command_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("mine")
    claim_folder(tmp_path, "demo", ["summary.json"])
    claim_folder(tmp_path, "demo", ["summary.json"])
    with pytest.raises(OutputError, match=r"holiday\.jpg"):
        claim_folder(tmp_path, "optimize")
    assert not marker_path(tmp_path, "optimize").exists()


@pytest.mark.parametrize("place", ["file", "dangling", "file/below"])
def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="expected a folder"):
        claim_folder(tmp_path / place, "demo")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="got a link to nothing"):
        claim_folder(tmp_path / "dangling", "demo")


def test_a_link_is_removed_and_its_target_kept(mine: Path, tmp_path: Path) -> None:
    before = content(mine)
    (tmp_path / "link").symlink_to(mine)
    remove_path(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink() and content(mine) == before


def test_an_import_replaces_bundles_alone(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = small_yolov8(tmp_path / "m.onnx")
    force = ("--yes", "--force", "--set", "licence=MIT")
    out = tmp_path / "out"
    assert run_import(graph, "--out", out, *force) == 0
    (tmp_path / "link").symlink_to(out)
    for place, why in ((mine, "no bundle.yaml"), (graph, "got a file"), (tmp_path / "link", "got a link")):
        before = content(tmp_path)
        assert run_import(graph, "--out", place, *force) == 1
        assert why in capsys.readouterr().err and content(tmp_path) == before
    assert run_import(out / "model.onnx", "--out", out, *force) == 1
    assert "expected an input outside the output folder" in capsys.readouterr().err
    (out / "notes").mkdir()
    assert run_import(graph, "--out", out, *force) == 1
    assert "got also notes" in capsys.readouterr().err and (out / "notes").is_dir()
    (out / "notes").rmdir()
    assert run_import(graph, "--out", out, *force) == 0


def test_a_bundle_in_the_store_with_a_users_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `fetch --force` and `fit-cascade` put it in place. Its own files may be damaged."""
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    model = tiny_bundle(tmp_path / "new", tiny_graph(tmp_path / "tiny.onnx"))
    place = tiny_bundle(tmp_path / "place", tmp_path / "tiny.onnx")
    (place / "bundle.yaml").write_text("damaged")
    (place / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match=r"got also notes\.txt"):
        put(model, place, tmp_path / "old")
    assert (place / "notes.txt").read_text() == "mine"
    (place / "notes.txt").unlink()
    put(model, place, tmp_path / "old")
    assert load_bundle(f"{place}/").labels


def test_a_file_in_place_of_a_subfolder_is_named(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    check_subfolders(tmp_path, ("there", "missing"))
    for name, found in (("file", "a file"), ("link", "a link to nothing")):
        with pytest.raises(OutputError, match=f"{name}: expected a folder, got {found}: move it away"):
            check_subfolders(tmp_path, ("there", name))
