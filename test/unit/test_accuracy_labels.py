"""Labels of the accuracy evaluation: the committed file, and files that do not fit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import clip_or_skip

from edge_vision.bundles.store import sha256_of
from edge_vision.evaluate.accuracy.labels import LABELS_FILE, labelled_frames, read_label_set, write_frames
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.reference.clips import CLIPS, clip_path


def document(**others: object) -> dict:
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "categories": [{"id": 4, "name": "Person"}, {"id": 9, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 4, "bbox": [1, 2, 10, 20], "track_id": 3},
            {"id": 2, "image_id": 1, "category_id": 9, "bbox": [30, 5, 8, 9], "iscrowd": 1, "area": 50},
        ],
        **others,
    }


def written(folder: Path, content: object, image: tuple[int, int] = (48, 64)) -> Path:
    cv2.imwrite(str(folder / "a.png"), np.full((*image, 3), 90, np.uint8))
    file = folder / "labels.json"
    file.write_text(json.dumps(content))
    return file


def test_the_committed_labels_are_well_formed() -> None:
    labels = json.loads(LABELS_FILE.read_text("utf-8"))
    images = {one["id"]: one for one in labels["images"]}
    videos = {one["id"]: one["name"] for one in labels["videos"]}
    objects = [one for one in labels["annotations"] if not one["iscrowd"]]
    assert len(images) == len(labels["images"]) >= 150 and len(objects) >= 700
    assert len({one["video_id"] for one in images.values()}) >= 8
    assert set(videos.values()) <= set(CLIPS) and all(len(one["sha256"]) == 64 for one in labels["videos"])
    assert len({(one["video_id"], one["frame_index"]) for one in images.values()}) == len(images)
    assert [one["id"] for one in labels["annotations"]] == list(range(1, len(labels["annotations"]) + 1))
    for one in labels["annotations"]:
        left, top, width, height = one["bbox"]
        image = images[one["image_id"]]
        assert width > 0 and height > 0 and one["area"] == width * height, one
        assert left >= 0 and top >= 0, one
        assert left + width <= image["width"] and top + height <= image["height"], one
    assert min(one["bbox"][3] for one in objects) >= 12
    tracked = Counter((one["image_id"], one["track_id"]) for one in objects if "track_id" in one)
    assert set(tracked.values()) == {1}
    assert len({images[image]["video_id"] for image, _ in tracked}) >= 3


def test_a_track_of_the_committed_labels_keeps_its_class() -> None:
    labels = json.loads(LABELS_FILE.read_text("utf-8"))
    video_of = {one["id"]: one["video_id"] for one in labels["images"]}
    classes: dict = {}
    for one in labels["annotations"]:
        if "track_id" in one:
            track = (video_of[one["image_id"]], one["track_id"])
            assert classes.setdefault(track, one["category_id"]) == one["category_id"]


def test_the_committed_labels_fit_the_clips() -> None:
    clip_or_skip("bikes.mp4")
    labels = read_label_set(clips=["bikes"])
    assert {one.path for one in labels.images} == {clip_path("bikes.mp4")}
    read = {position: pixels.shape for position, pixels in labelled_frames(labels)}
    assert set(read) == set(range(len(labels.images))) and set(read.values()) == {(272, 640, 3)}


def test_images_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    file = written(tmp_path / "images", document())
    moved = file.rename(tmp_path / "labels.json")
    labels = read_label_set(moved, tmp_path / "images")
    (image,) = labels.images
    assert labels.classes == ("person", "car") and labels.boxes == 1
    assert image.xyxy_px.tolist() == [[1, 2, 11, 22], [30, 5, 38, 14]]
    assert image.class_ids.tolist() == [0, 1] and image.ignored.tolist() == [False, True]
    assert image.areas.tolist() == [200, 50] and image.track_ids.tolist() == [3, 0]
    assert [pixels.shape for _, pixels in labelled_frames(labels)] == [(48, 64, 3)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": []}, "expected labelled objects, got none in 1 images"),
        ({"annotations": 3}, "expected COCO's JSON"),
        ({"images": [{"id": 1, "file_name": "b.png"}]}, r"expected b\.png in .*--images"),
        ({"categories": [{"id": 1, "name": "person"}]}, "expected the image and the category"),
        ({"images": [{"id": 2, "file_name": "a.png"}]}, "expected the image and the category"),
        ({"images": [{"id": 1, "file_name": "a", "video_id": 1, "frame_index": 0}]}, "a video of `videos`"),
        ({"videos": [{"id": 1, "name": "a.png", "sha256": "0" * 64}]}, "another version has other frames"),
        ({"videos": [{"id": 1, "name": "none.mp4"}]}, r"expected none\.mp4 in"),
        ({"videos": [{"id": 1}]}, "KeyError.*'name'"),
        ({"images": [{"id": i, "file_name": "a.png"} for i in (1, 2)]}, "expected each image once"),
        (
            {"annotations": [{"image_id": 1, "category_id": 4, "bbox": [1, 1, 0, 5]}]},
            "expected a width and a height above 0",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(EvaluateError, match=message):
        read_label_set(written(tmp_path, document(**change)))


def person(**others: object) -> dict:
    return {"id": 1, "image_id": 1, "category_id": 4, "bbox": [1, 2, 10, 20], **others}


IMAGE = {"id": 1, "file_name": "a.png"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [person(bbox=[9, 9, -5, 5])]}, "no negative sizes"),
        ({"annotations": [person(bbox=[1e300, 0, 5, 5])]}, "expected finite numbers"),
        ({"annotations": [person(bbox=["1", 0, 5, 5])]}, "expected finite numbers"),
        ({"annotations": [person(area=None)]}, "expected finite numbers"),
        ({"annotations": [person(track_id="a")]}, "track_id 'a'"),
        ({"annotations": [person(track_id=10**30)]}, "track_id 1000"),
        ({"annotations": [person(iscrowd="0")]}, "iscrowd '0'"),
        ({"annotations": [person(image_id=[1])]}, "expected COCO's JSON"),
        ({"annotations": [person(track_id=3)] * 2}, "one box of each track_id in an image, got track_id 3"),
        ({"images": [IMAGE, IMAGE]}, "an own id in each, got 1 of 2"),
        ({"images": [IMAGE, {**IMAGE, "id": 2}]}, r"expected each image once, got .*a\.png twice"),
        ({"images": [{**IMAGE, "video_id": [1]}]}, "expected COCO's JSON"),
        ({"images": [{**IMAGE, "file_name": "a" * 5000}]}, "found none"),
        ({"categories": [{"id": 4, "name": "person"}, {"id": 4, "name": "car"}]}, "an own id in each"),
        ({"videos": None}, "expected COCO's JSON"),
    ],
)
def test_damaged_labels_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    """Taken as they are, they would end in a traceback or, worse, in other figures."""
    with pytest.raises(EvaluateError, match=message):
        read_label_set(written(tmp_path, document(**change)))


def test_a_nested_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("[" * 100_000)
    with pytest.raises(EvaluateError, match="RecursionError"):
        read_label_set(tmp_path / "labels.json")


@pytest.mark.parametrize("frame", [-1, True, 1.0, None])
def test_a_frame_that_no_video_has_is_refused(tmp_path: Path, frame: object) -> None:
    changed = document(
        images=[{**IMAGE, "video_id": 7, "frame_index": frame}], videos=[{"id": 7, "name": "a.png"}]
    )
    with pytest.raises(EvaluateError, match="a frame_index from 0"):
        read_label_set(written(tmp_path, changed))


@pytest.mark.parametrize("names", [("a/1.png", "b/1.png"), ("1.png", "2"), ("1.png", "..")])
def test_exported_frames_do_not_replace_each_other(tmp_path: Path, names: tuple[str, str]) -> None:
    frames = [np.full((48, 64, 3), value, np.uint8) for value in (0, 90)]
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for frame in frames:
        video.write(frame)
    video.release()
    images = [
        {"id": i + 1, "file_name": name, "video_id": 7, "frame_index": i} for i, name in enumerate(names)
    ]
    labels = read_label_set(written(tmp_path, document(images=images, videos=[{"id": 7, "name": "v.avi"}])))
    (tmp_path / "out").mkdir()
    with pytest.raises(EvaluateError, match="expected different names"):
        write_frames(labels, tmp_path / "out")


def test_an_unknown_clip_is_refused() -> None:
    with pytest.raises(EvaluateError, match=r"expected clips out of .*vtest, got moon"):
        read_label_set(clips=["moon"])


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    labels = read_label_set(written(tmp_path, document(), (24, 32)))
    with pytest.raises(EvaluateError, match="expected 64x48 pixels, as labelled, got 32x24"):
        list(labelled_frames(labels))


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path, document())
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(EvaluateError, match=r"a\.png"):
        list(labelled_frames(read_label_set(file)))


def test_a_frame_beyond_the_end_is_refused(tmp_path: Path) -> None:
    video = Path(clip_or_skip("tree_wind.avi"))
    content = document(
        images=[{"id": 1, "file_name": "f", "video_id": 7, "frame_index": 68}],
        videos=[{"id": 7, "name": "tree_wind.avi", "sha256": sha256_of(video)}],
    )
    labels = read_label_set(written(tmp_path, content), video.parent)
    with pytest.raises(EvaluateError, match="expected frame 68, which is labelled, got 68 frames"):
        list(labelled_frames(labels))
