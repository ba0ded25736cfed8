"""The folder of kept pictures: whole files at any time, reviews, limits, damage, COCO's format."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import cv2
import pytest
from dataset_cases import BOX, LABELS, MODEL, NOON, Clock, candidate, collect, detections, frame
from hypothesis import given, settings
from hypothesis import strategies as st
from source_tree import REPO

from edge_vision.core.detections import Detections
from edge_vision.dataset import folder as folder_module
from edge_vision.dataset.collector import CandidateFrame, Collector, CollectorConfig
from edge_vision.dataset.errors import DatasetError, ReviewConflict
from edge_vision.dataset.folder import COCO_FILE, MARKER, DatasetFolder, picture_name, utc_text
from edge_vision.dataset.picture import (
    ACCEPTED,
    OPEN,
    REJECTED,
    LabelledBox,
    is_name,
    parse_picture,
)
from edge_vision.dataset.selection import AUDIT_MISS, LOW_MARGIN, RANDOM


def document(folder: DatasetFolder) -> dict:
    return json.loads((folder.folder / COCO_FILE).read_text("utf-8"))


def test_a_picture_is_kept_with_its_model_and_its_proposals(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "new", CollectorConfig("/front"), Clock())
    low = detections((50, 20, 70, 40, 0.31, 1), (50, 20, 60, 30, 0.01, 1))
    given = replace(candidate(1), low_score=low)
    kept = collector.keep(given)
    collector.close()
    folder = DatasetFolder(tmp_path / "new")
    found = folder.read(folder.names()[0])
    assert found == kept
    assert (found.reason, found.classes, found.camera) == (LOW_MARGIN, ("person",), "/front")
    assert (found.stamp_ns, found.frame_id) == (given.frame.stamp_ns, "camera")
    assert (found.bundle, found.bundle_sha256, found.threshold) == (MODEL.name, MODEL.sha256, 0.5)
    assert [(one.label, one.score) for one in found.proposals] == [("person", 0.55), ("car", 0.31)]
    assert found.name == "20260501T120001000_front_low_margin" and is_name(found.name)
    image = cv2.imread(str(folder.image_path(found.name)))
    assert image.shape == (64, 96, 3)


def test_the_annotations_are_cocos_and_complete(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 5)
    names = folder.names()
    folder.review(names[0], 0, REJECTED, None, NOON)
    folder.review(names[1], 0, ACCEPTED, [LabelledBox("dog", (1, 2, 3, 4))], NOON)
    folder.write_coco()
    found = document(folder)
    assert [one["name"] for one in found["categories"]] == list(LABELS)
    assert [one["file_name"] for one in found["images"]] == [f"{name}.jpg" for name in names[1:]]
    assert found["images"][0]["edge_vision"]["review"] == "accepted"
    first, second = found["annotations"][:2]
    assert first["category_id"] == 3 and first["bbox"] == [1, 2, 3, 4] and "score" not in first
    assert second["category_id"] == 1 and second["score"] == 0.55
    assert all((folder.folder / "images" / one["file_name"]).is_file() for one in found["images"])


def test_pycocotools_reads_the_annotations(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="run `make setup-test`")
    folder = collect(tmp_path / "new", 3)
    found = coco.COCO(str(folder.folder / COCO_FILE))
    assert len(found.getImgIds()) == 3 and len(found.getAnnIds(catIds=[1])) == 3


def test_a_folder_of_somebody_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match=r"expected a new or empty folder.*choose another"):
        Collector(tmp_path, CollectorConfig())
    with pytest.raises(DatasetError, match="expected a folder of collected pictures"):
        DatasetFolder(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(DatasetError, match="no such folder"):
        DatasetFolder(tmp_path / "none")
    with pytest.raises(DatasetError):
        Collector(tmp_path / "notes.txt", CollectorConfig())


def test_one_collector_per_folder(tmp_path: Path) -> None:
    first = Collector(tmp_path / "new", CollectorConfig())
    with pytest.raises(DatasetError, match="another collector writes"):
        Collector(tmp_path / "new", CollectorConfig())
    first.close()
    Collector(tmp_path / "new", CollectorConfig()).close()


def test_the_quota_and_the_duplicates_survive_a_restart(tmp_path: Path) -> None:
    config = CollectorConfig(daily_per_class=2)
    for turn, expected in ((0, 2), (1, 0)):
        collector = Collector(tmp_path / "new", config, Clock())
        kept = [collector.keep(candidate(seed)) for seed in range(4)]
        assert sum(one is not None for one in kept) == expected, turn
        assert collector.keep(candidate(0, AUDIT_MISS)) is None or turn == 0
        collector.close()
    tomorrow = Collector(tmp_path / "new", config, Clock(NOON + timedelta(days=1)))
    assert tomorrow.keep(candidate(0)) is None and tomorrow.counts["duplicate"] == 1
    assert tomorrow.keep(candidate(7)) is not None


def test_a_full_quota_of_one_class_leaves_room_for_another(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "new", CollectorConfig(daily_per_class=1), Clock())
    assert collector.keep(candidate(1)) is not None
    assert not collector.wants(LOW_MARGIN, ("person",)) and collector.wants(LOW_MARGIN, ("person", "car"))
    both = detections((*BOX, 0.55, 0), (50, 20, 80, 60, 0.52, 1))
    kept = collector.keep(CandidateFrame(frame(2), LOW_MARGIN, MODEL, both, both))
    assert kept is not None and kept.classes == ("car",)
    assert collector.keep(candidate(3)) is None and collector.counts["quota"] == 1


def test_a_frame_without_an_object_is_kept_for_no_class(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "new", CollectorConfig(daily_per_class=1), Clock())
    kept = collector.keep(CandidateFrame(frame(1), RANDOM, MODEL, inferred=False))
    assert kept is not None and kept.classes == ("",) and kept.proposals == () and not kept.inferred
    assert collector.keep(CandidateFrame(frame(2), RANDOM, MODEL)) is None


def test_the_size_is_bounded_and_reviewed_pictures_stay(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 30)
    names = folder.names()
    folder.review(names[0], 0, ACCEPTED, None, NOON)
    folder.review(names[1], 0, OPEN, [LabelledBox("dog", (1, 2, 3, 4))], NOON)
    limit = folder.size_bytes() // 2
    collector = Collector(
        tmp_path / "new",
        CollectorConfig(daily_per_class=100, max_mb=limit / 1e6),
        Clock(NOON + timedelta(hours=1)),
    )
    assert collector.keep(candidate(1000)) is not None
    assert collector.bytes == folder.size_bytes(), "with the records"
    left = folder.names()
    assert folder.size_bytes() <= limit and collector.bytes <= limit
    assert left[:2] == names[:2], "reviewed pictures and unfinished corrections stay"
    assert names[2] not in left and names[-1] in left, "the oldest ones go"
    assert {one.stem for one in (folder.folder / "images").iterdir()} == set(left)
    for name in left:
        state = folder.read(name)
        folder.review(name, state.revision, ACCEPTED, None, NOON)
    big = CollectorConfig(daily_per_class=100, max_mb=0.001)
    collector.config = big
    assert collector.keep(candidate(1001)) is None and collector.counts["full"] == 1
    assert folder.names() == left


def test_the_annotations_never_name_a_picture_that_was_removed(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 10)
    removed, _ = folder.make_room(folder.size_bytes() // 3)
    assert removed > 0
    assert {one["file_name"] for one in document(folder)["images"]} == {f"{n}.jpg" for n in folder.names()}


def test_files_of_somebody_else_in_the_folder_stay(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 3)
    mine = [folder.folder / "images" / "holiday.jpg", folder.folder / "records" / "notes.json"]
    for file in mine:
        file.write_text("mine")
    folder.make_room(0)
    Collector(tmp_path / "new", CollectorConfig()).close()
    assert folder.names() == [] and all(file.read_text() == "mine" for file in mine)


def test_two_reviewers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 1)
    other, name = DatasetFolder(folder.folder), folder.names()[0]
    first = folder.review(name, 0, ACCEPTED, [LabelledBox("dog", (1, 2, 3, 4))], NOON)
    assert first.revision == 1
    with pytest.raises(ReviewConflict, match="another reviewer has saved it meanwhile"):
        other.review(name, 0, REJECTED, None, NOON)
    assert other.read(name) == first
    assert other.review(name, 1, REJECTED, None, NOON).state == REJECTED


def test_acceptance_without_changes_takes_what_reaches_the_threshold(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "new", CollectorConfig(), Clock())
    collector.keep(replace(candidate(1), low_score=detections((50, 20, 70, 40, 0.31, 1))))
    folder, name = collector.folder, collector.folder.names()[0]
    found = folder.review(name, 0, ACCEPTED, None, NOON)
    assert found.boxes == (LabelledBox("person", (10.0, 8.0, 30.0, 42.0)),)
    assert found.reviewed == utc_text(NOON)


def test_boxes_are_clipped_to_the_picture_and_others_refused(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 1)
    name = folder.names()[0]
    found = folder.review(name, 0, ACCEPTED, [LabelledBox("dog", (-5, 60, 20, 50))], NOON)
    assert found.boxes == (LabelledBox("dog", (0.0, 60.0, 15.0, 4.0)),)
    with pytest.raises(DatasetError, match="expected a box within 96 x 64 px"):
        folder.review(name, 1, ACCEPTED, [LabelledBox("dog", (100, 60, 20, 50))], NOON)
    with pytest.raises(DatasetError, match="state: expected one of open, accepted, rejected"):
        folder.review(name, 1, "maybe", None, NOON)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "", "a/b", "20260501T120001000_front_low_margin/..", "x" * 300]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = collect(tmp_path / "new", 1)
    for use in (folder.read, folder.image_path):
        with pytest.raises(DatasetError, match="expected the name of a picture"):
            use(name)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"name": "x"}', "[" * 100_000, '{"classes": 3}', "\ufeff{}"],
)
def test_a_damaged_record_is_one_clear_error_and_the_others_stay_readable(tmp_path: Path, text: str) -> None:
    folder = collect(tmp_path / "new", 3)
    name = folder.names()[1]
    (folder.folder / "records" / f"{name}.json").write_text(text, "utf-8")
    damaged: list[str] = []
    assert len(list(folder.pictures(damaged))) == 2
    assert len(damaged) == 1 and f"records/{name}.json: expected the record of a picture" in damaged[0]
    folder.write_coco()
    assert len(document(folder)["images"]) == 2
    collector = Collector(folder.folder, CollectorConfig())
    assert collector.damaged and folder.image_path(name).is_file(), "nothing damaged is removed"


@pytest.mark.parametrize(
    "change",
    [
        {"proposals": None},
        {"other": None},
        {"threshold": 10**400},
        {"width_px": 10**400},
        {"revision": 10**4000},
        {"inferred": float("nan")},
        {"blurred": {}},
        {"boxes": [{"label": "\ud800", "bbox": [1, 2, 3, 4]}]},
    ],
    ids=str,
)
def test_a_record_with_values_that_nothing_can_use_is_damaged(tmp_path: Path, change: dict) -> None:
    folder = collect(tmp_path / "new", 2)
    file = folder.folder / "records" / f"{folder.names()[0]}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    damaged: list[str] = []
    assert len(list(folder.pictures(damaged))) == 1 and len(damaged) == 1
    folder.write_coco()
    assert Collector(folder.folder, CollectorConfig()).damaged


def test_links_and_pipes_in_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 3)
    linked, piped, recorded = folder.names()
    private = tmp_path / "private"
    private.write_bytes(b"private")
    folder.image_path(linked).unlink()
    folder.image_path(linked).symlink_to(private)
    (folder.folder / "records" / f"{piped}.json").unlink()
    os.mkfifo(folder.folder / "records" / f"{piped}.json")
    record = folder.folder / "records" / f"{recorded}.json"
    record.rename(tmp_path / "record")
    record.symlink_to(tmp_path / "record")
    damaged: list[str] = []
    assert list(folder.pictures(damaged)) == [] and len(damaged) == 3
    with pytest.raises(OSError):
        folder.image(linked)
    assert folder.make_room(0)[0] == 0 and private.exists(), "somebody has to look at them"


@pytest.mark.parametrize("text", ["[" * 100_000, "{}", "\ufeff", "[1, 2"])
def test_damaged_labels_are_none(tmp_path: Path, text: str) -> None:
    folder = collect(tmp_path / "new", 1)
    (folder.folder / "labels.json").write_text(text)
    assert folder.labels() == []


def test_a_huge_record_is_not_read(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 2)
    os.truncate(folder.folder / "records" / f"{folder.names()[0]}.json", 1 << 40)
    damaged: list[str] = []
    assert len(list(folder.pictures(damaged))) == 1 and "at most 8388608 bytes" in damaged[0]


def test_a_missing_picture_is_one_clear_error(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 2)
    name = folder.names()[0]
    folder.image_path(name).unlink()
    with pytest.raises(DatasetError, match=r"expected the picture of .*\.json, got none"):
        folder.read(name)
    folder.write_coco()
    assert len(document(folder)["images"]) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_a_record_with_any_value_is_read_or_refused(data: st.DataObject) -> None:
    name = picture_name(NOON, "/front", LOW_MARGIN)
    record = json.loads(_RECORD)
    record["name"] = name
    record[data.draw(st.sampled_from(sorted(record)))] = data.draw(VALUES)
    try:
        found = parse_picture(json.dumps(record), name)
    except DatasetError:
        return
    assert parse_picture(found.to_json(), name) == found


_RECORD = json.dumps(
    {
        "name": "",
        "width_px": 9,
        "height_px": 8,
        "stamp_ns": 1,
        "frame_id": "c",
        "camera": "/",
        "collected": "2026-05-01T12:00:00.000Z",
        "reason": "random",
        "classes": [""],
        "proposals": [{"label": "dog", "bbox": [1, 2, 3, 4], "score": 0.5}],
        "boxes": None,
        "state": "open",
        "revision": 0,
        "threshold": 0.5,
        "picture_hash": 5,
    }
)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector(tmp_path / "new", CollectorConfig(), Clock())
    assert collector.keep(candidate(1)) is not None
    whole = folder_module.write_file

    def full(path: Path, data: bytes) -> None:
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(folder_module, "write_file", full)
    with pytest.raises(OSError, match="No space left"):
        collector.keep(candidate(2))
    monkeypatch.undo()
    folder = collector.folder
    assert len(folder.names()) == len(list((folder.folder / "images").iterdir())) == 1
    assert collector.keep(candidate(2)) is not None, "the same frame may be kept once there is space"


_COLLECT = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from dataset_cases import Clock, candidate
from edge_vision.dataset import collector
from edge_vision.dataset.collector import Collector, CollectorConfig
collector.COCO_PERIOD_S = 0.0
one = Collector(Path(sys.argv[1]), CollectorConfig(daily_per_class=10**6, max_mb=0.2), Clock())
print("ready", flush=True)
for seed in range(10**6):
    one.keep(candidate(seed))
    one.write()
"""


def test_a_kill_at_any_instant_leaves_a_readable_folder(tmp_path: Path) -> None:
    generator, target = random.Random(3), tmp_path / "new"
    for _ in range(6):
        paths = (str(REPO), str(REPO / "test" / "unit"))
        child = subprocess.Popen(
            [sys.executable, "-c", _COLLECT, str(target), *paths], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0.02, 0.4))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        folder, damaged = DatasetFolder(target), []  # type: ignore[var-annotated]
        pictures = list(folder.pictures(damaged))
        assert not damaged and folder.size_bytes() <= 0.2e6
        for one in pictures:
            assert cv2.imread(str(folder.image_path(one.name))).shape == (one.height_px, one.width_px, 3)
        if (target / COCO_FILE).exists():
            for one in document(folder)["images"]:
                assert (target / "images" / one["file_name"]).is_file(), "annotations of a missing picture"
        assert (target / MARKER).is_file()
    collector = Collector(target, CollectorConfig())
    names = set(folder.names())
    assert {file.stem for file in (target / "images").iterdir()} == names, "unfinished files are removed"
    assert not [file for file in os.listdir(target / "records") if file.startswith(".")]
    assert collector.pictures == len(names) > 0


def test_thousands_of_labels_are_categories_once(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "new", CollectorConfig(), Clock())
    many = replace(MODEL, labels=tuple(f"label {i}" for i in range(5000)))
    collector.keep(replace(candidate(1, class_id=4999), model=many))
    collector.keep(replace(candidate(2, class_id=7), model=many))
    collector.close()
    found = document(collector.folder)
    assert len(found["categories"]) == 5000
    assert [one["category_id"] for one in found["annotations"]] == [5000, 8]


def test_proposals_that_no_label_or_picture_fits_are_kept_readable(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "new", CollectorConfig(), Clock())
    odd = Detections.joined([detections((*BOX, 0.9, 77)), detections((5, 5, 5, 9, 0.8, 0))])
    kept = collector.keep(CandidateFrame(frame(1), RANDOM, MODEL, found=odd))
    assert kept is not None and [one.label for one in kept.proposals] == ["class 77"]
    assert collector.folder.read(kept.name) == kept
