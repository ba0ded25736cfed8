"""`edge-vision dataset`: export, statistics, the review server as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from dataset_cases import NOON, collect
from source_tree import REPO

from edge_vision.cli.dataset import main
from edge_vision.dataset.export import JUDGE_SHARE, TRAIN_SHARE, split_by_time
from edge_vision.dataset.folder import COCO_FILE, DatasetFolder
from edge_vision.dataset.picture import ACCEPTED, REJECTED, LabelledBox
from edge_vision.optimize.data.ground_truth import read_labels


def reviewed(folder: Path, count: int) -> DatasetFolder:
    """All accepted but the first, which is rejected, and the last, which is not reviewed."""
    found = collect(folder, count)
    names = found.names()
    found.review(names[0], 0, REJECTED, None, NOON)
    for name in names[1:-1]:
        found.review(name, 0, ACCEPTED, [LabelledBox("car", (1, 2, 30, 40))], NOON)
    return found


def test_accepted_pictures_are_exported_split_by_time(tmp_path: Path, capsys) -> None:
    folder, out = reviewed(tmp_path / "new", 22), tmp_path / "out"
    assert main(["export", str(folder.folder), "--out", str(out)]) == 0
    assert "13 pictures in train, 6 in val, 1 between" in capsys.readouterr().out
    names = {}
    for subset in ("train", "val"):
        found = json.loads((out / "annotations" / f"instances_{subset}.json").read_text("utf-8"))
        names[subset] = [one["file_name"] for one in found["images"]]
        assert sorted(file.name for file in (out / "images" / subset).iterdir()) == names[subset]
        assert {one["category_id"] for one in found["annotations"]} == {2}
        # As `edge-vision optimize run --labels` reads it.
        labels = read_labels(
            out / "annotations" / f"instances_{subset}.json", names[subset], ["Person", "Car"]
        )
        assert len(labels["annotations"]) == len(names[subset])
    assert max(names["train"]) < min(names["val"])
    assert main(["export", str(folder.folder), "--out", str(out)]) == 0, "again into its own folder"


@pytest.mark.parametrize("count", range(1, 30))
def test_the_parts_of_a_split_do_not_overlap(tmp_path: Path, count: int) -> None:
    folder = collect(tmp_path / "new", 1)
    one = folder.read(folder.names()[0])
    pictures = [replace(one, name=f"{i:03d}") for i in reversed(range(count))]
    parts = split_by_time(pictures)
    train, val = ([p.name for p in parts[subset]] for subset in ("train", "val"))
    assert train and not set(train) & set(val) and (not val or max(train) < min(val))
    assert len(train) <= max(1, TRAIN_SHARE * count) and len(val) <= JUDGE_SHARE * count


def test_nothing_reviewed_is_one_clear_error(tmp_path: Path, capsys) -> None:
    folder = collect(tmp_path / "new", 2)
    assert main(["export", str(folder.folder), "--out", str(tmp_path / "out")]) == 1
    assert "expected accepted pictures, got none; review some" in capsys.readouterr().err


def test_files_of_somebody_else_are_not_overwritten(tmp_path: Path, capsys) -> None:
    folder = reviewed(tmp_path / "new", 4)
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "mine.jpg").write_text("mine")
    for out in (tmp_path / "out", folder.folder):
        assert main(["export", str(folder.folder), "--out", str(out)]) == 1
    assert (tmp_path / "out" / "images" / "mine.jpg").read_text() == "mine" and len(folder.names()) == 4


def test_statistics_say_how_right_the_model_was(tmp_path: Path, capsys) -> None:
    folder = collect(tmp_path / "new", 4)
    names = folder.names()
    box = LabelledBox("person", (10, 8, 30, 42))
    folder.review(names[0], 0, ACCEPTED, None, NOON)
    folder.review(names[1], 0, ACCEPTED, [box, LabelledBox("dog", (60, 8, 20, 20))], NOON)
    folder.review(names[2], 0, ACCEPTED, [], NOON)
    assert main(["stats", str(folder.folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    low_margin = found["reasons"]["low_margin"]
    assert (low_margin["open"], low_margin["accepted"], low_margin["rejected"]) == (1, 3, 0)
    assert low_margin["precision"] == pytest.approx(2 / 3) and low_margin["recall"] == pytest.approx(2 / 3)
    assert found["classes"] == {"person": 2, "dog": 1} and found["bundles"] == {"tiny 1": 4}
    assert main(["stats", str(folder.folder)]) == 0
    assert "low_margin             1         3         0      0.667      0.667" in capsys.readouterr().out


def test_damage_is_counted_and_reported(tmp_path: Path, capsys) -> None:
    folder = collect(tmp_path / "new", 2)
    (folder.folder / "records" / f"{folder.names()[0]}.json").write_text("{", "utf-8")
    assert main(["stats", str(folder.folder)]) == 1
    assert "damaged: records/" in capsys.readouterr().out


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path, capsys) -> None:
    for command in (["stats"], ["export", "--out", str(tmp_path / "out")], ["review"]):
        assert main([command[0], str(tmp_path), *command[1:]]) == 1
        assert "expected a folder of collected pictures" in capsys.readouterr().err


def test_a_port_that_is_none_is_refused(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["review", str(tmp_path), "--port", "99999"])
    assert "expected a port from 1 to 65535, got '99999'" in capsys.readouterr().err


def test_the_review_server_runs_until_a_signal(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="run `make setup-test`")
    folder = collect(tmp_path / "new", 2)
    (folder.folder / COCO_FILE).unlink()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    child = subprocess.Popen(
        [sys.executable, "-m", "edge_vision", "dataset", "review", str(folder.folder), "--port", port],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        url = child.stdout.readline().removeprefix("review: ").strip()
        with urllib.request.urlopen(f"{url}pictures") as answer:
            names = [one["name"] for one in json.load(answer)["pictures"]]
        assert names == folder.names()
        request = urllib.request.Request(
            f"{url}pictures/{names[0]}",
            b'{"revision": 0, "state": "accepted", "boxes": null}',
            method="PUT",
        )
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["state"] == "accepted"
    finally:
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=30)
    assert (child.returncode, errors) == (0, "")
    assert (folder.folder / COCO_FILE).is_file()


@pytest.mark.parametrize("given", [False, True])
def test_the_review_server_prints_its_token_and_knows_its_names(tmp_path: Path, given: bool) -> None:
    pytest.importorskip("aiohttp", reason="run `make setup-test`")
    folder = collect(tmp_path / "new", 1)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    file = tmp_path / "token"
    file.write_text("0123456789abcdef")
    more = ["--port", port, "--address", "0.0.0.0", "--host-name", "Robot.Example"]
    more += ["--token-file", str(file)] if given else []
    child = subprocess.Popen(
        [sys.executable, "-m", "edge_vision", "dataset", "review", str(folder.folder), *more],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        token = child.stdout.readline().strip().partition("?token=")[2]
        assert not given or token == file.read_text()
        headers = {"Host": f"robot.example:{port}", "Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/pictures", headers=headers)
        with urllib.request.urlopen(request) as answer:
            assert len(json.load(answer)["pictures"]) == 1
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
