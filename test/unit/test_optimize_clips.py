"""Clips of the optimizer: too few images, the same images on both sides, calibration and evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import clip_or_skip
from optimize_cases import image_folder

from edge_vision.optimize.data.clips import (
    check_disjoint,
    read_clip,
    read_images,
    split_clips,
    tiles,
    write_images,
)
from edge_vision.optimize.errors import OptimizeError
from edge_vision.source.uri import SourceError


def video(path: Path, frames: list[np.ndarray]) -> Path:
    height, width = frames[0].shape[:2] if frames else (64, 64)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def noise(seed: int) -> np.ndarray:
    return cv2.resize(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8), (64, 64))


def test_images_are_sampled_evenly_over_a_real_clip() -> None:
    clip = read_clip(Path(clip_or_skip("bikes.mp4")), 10)
    assert len(clip.images) == 10 and clip.images[0].shape == (272, 640, 3)
    assert len(clip.fingerprints) == 10


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "got no image"),
        ([noise(0)], "got 1 in 1"),
        ([noise(0)] * 30, "got 1 in"),
        ([np.zeros((64, 64, 3), np.uint8)] * 30, "got 0 in"),
    ],
    ids=["empty", "single frame", "frozen", "black"],
)
def test_too_few_images_are_refused(tmp_path: Path, frames: list, message: str) -> None:
    with pytest.raises(OptimizeError, match=message):
        read_clip(video(tmp_path / "clip.avi", frames), 16)


def test_addresses_of_clips(tmp_path: Path) -> None:
    """file:// is percent-encoded; a stream is refused without showing its password."""
    assert split_clips("~/c.mp4", [(tmp_path / "front door.mp4").as_uri()]) == (
        str(Path("~/c.mp4").expanduser()),
        (str(tmp_path / "front door.mp4"),),
    )
    with pytest.raises(SourceError, match=r"got the address 'rtsp://\*\*\*@camera/1': record it"):
        split_clips(None, ["rtsp://user:secret@camera/1"])


@pytest.mark.parametrize("name", ["nothing.mp4", "text.mp4", "folder"])
def test_a_path_that_is_not_a_clip_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OptimizeError, match="expected a video"):
        read_clip(tmp_path / name, 16)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", 9)
    (folder / "004.png").write_bytes(b"\x89PNG damaged")
    with pytest.raises(OptimizeError, match=r"004\.png"):
        read_clip(folder, 9)


def test_an_image_that_claims_gigabytes_is_not_decoded(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "images", 8)
    data = (folder / "004.png").read_bytes()
    (folder / "004.png").write_bytes(data[:16] + b"\0\0\x3f\xff" * 2 + data[24:])
    with pytest.raises(OptimizeError, match=r"004\.png.*expected at most 50 megapixels, got 16383x16383"):
        read_clip(folder, 8)


def test_a_clip_for_both_calibration_and_evaluation_is_refused(tmp_path: Path) -> None:
    one, two = (read_clip(image_folder(tmp_path / name, 9, seed), 9) for seed, name in enumerate("ab"))
    check_disjoint(one, [two])
    with pytest.raises(OptimizeError, match="contain the same images"):
        check_disjoint(one, [two, one])


def test_a_part_of_the_calibration_clip_under_another_name_is_refused(tmp_path: Path) -> None:
    whole = image_folder(tmp_path / "whole", 20)
    part = tmp_path / "part"
    part.mkdir()
    for file in sorted(whole.iterdir())[5:14]:
        shutil.copy(file, part / f"other_{file.name}")
    with pytest.raises(OptimizeError, match="--calibration"):
        check_disjoint(read_clip(whole, 20), [read_clip(part, 20)])


def test_the_first_of_several_clips_is_for_calibration(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4", "note.txt"):
        (tmp_path / name).touch()
    a, b = str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")
    assert split_clips(None, [str(tmp_path)]) == (a, (b,))
    assert split_clips(None, [a]) == ("", (a,))
    assert split_clips(b, [a]) == (b, (a,))


def test_written_images_are_read_bit_exact(tmp_path: Path) -> None:
    given = [noise(1), noise(2)]
    digest = write_images(given, tmp_path / "kept")
    again = read_images(tmp_path / "kept")
    assert all(np.array_equal(one, two) for one, two in zip(given, again, strict=True))
    assert digest == write_images(given, tmp_path / "again") != write_images(given[:1], tmp_path / "less")
    with pytest.raises(OptimizeError, match="start a new study"):
        read_images(tmp_path / "gone")


def test_tiles_cover_the_image_once() -> None:
    image = noise(3)[:63, :61]
    parts = tiles([image])
    assert len(parts) == 4 and sum(part.size for part in parts) == image.size
