"""Train and judge images: time ranges with a gap, overlap, diversity; augmentation; cached outputs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from model_cases import clip_or_skip
from optimize_cases import image_folder, tiny_bundle, tiny_graph
from source_tree import REPO

from edge_vision.bundles.store import load_bundle
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session
from edge_vision.train.data import time_split
from edge_vision.train.data.augmentation import augmented
from edge_vision.train.data.teacher import TeacherSamples, cached_samples
from edge_vision.train.data.time_split import check_clips, split


def test_train_and_judge_are_time_ranges_with_a_gap() -> None:
    clip = clip_or_skip("bikes.mp4")
    found = split([clip], [], 20, 10)
    train, judge = found.train_ranges[0], found.judge_ranges[0]
    assert train.start < train.end < judge.start < judge.end
    assert judge.start - train.end >= 0.04 * judge.end
    assert (len(found.train), len(found.judge)) == (20, 10)
    assert len(train.sha256) == 64


def test_judge_clips_leave_the_whole_video_to_training(tmp_path: Path) -> None:
    first, second = (image_folder(tmp_path / str(seed), 20, seed) for seed in (1, 2))
    found = split([str(first)], [str(second)], 20, 10)
    assert (found.train_ranges[0].start, found.train_ranges[0].end) == (0.0, 19.0)
    assert (found.judge_ranges[0].path, found.judge_ranges[0].start) == (str(second), 0.0)


def test_the_same_clip_on_both_sides_is_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "clip", 20)
    with pytest.raises(OptimizeError, match="got 20 in both, as in a clip that repeats itself"):
        split([str(folder)], [str(folder)], 20, 10)


def test_a_clip_that_repeats_itself_is_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "clip", 16)
    for number in range(16):
        (folder / f"{number + 16:03d}.png").write_bytes((folder / f"{number:03d}.png").read_bytes())
    with pytest.raises(OptimizeError, match="in both, as in a clip that repeats itself; pass another clip"):
        split([str(folder)], [], 20, 10)


def test_a_clip_of_one_image_is_refused(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "clip", 1)
    for number in range(1, 40):
        (folder / f"{number:03d}.png").write_bytes((folder / "000.png").read_bytes())
    with pytest.raises(OptimizeError, match="at least 8 different images to train, got 1; use a longer clip"):
        split([str(folder)], [], 20, 10)


def test_folders_among_the_images_are_passed_over_and_slivers_refused(tmp_path: Path) -> None:
    clip = image_folder(tmp_path / "clip", 60)
    (clip / "a.png").mkdir()
    check_clips([str(clip)], (), ())
    cv2.imwrite(str(clip / "0.png"), np.zeros((1, 500, 3), np.uint8))
    with pytest.raises(OptimizeError, match=r"0\.png: expected 8 px or more each way, got 500x1"):
        check_clips([str(clip)], (), ())


def test_rare_frames_are_selected(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    rng = np.random.default_rng(0)
    usual = rng.integers(0, 256, (48, 48, 3)).astype(np.uint8)
    for number in range(100):
        image = np.clip(usual + rng.normal(0, 2, usual.shape), 0, 255).astype(np.uint8)
        if number in (21, 40):
            image[:24] = 255 - image[:24]
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)
    chosen = split([str(folder)], [], 8, 8).train
    assert any(np.abs(one[:24].astype(float) - (255 - usual[:24])).mean() < 5 for one in chosen)


def test_a_clip_of_unknown_length_is_sampled_over_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_split, "_CANDIDATES", 30)
    folder = image_folder(tmp_path / "clip", 90)
    found = split([str(folder)], [], 100, 100)
    assert found.train_ranges[0].start == 0.0
    assert found.judge_ranges[0].end >= 80.0
    assert len(found.train) + len(found.judge) <= 45


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_augmentation_is_reproducible_and_varied(task: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    rngs = [np.random.default_rng(3) for _ in range(2)]
    first, second = ([augmented(image, task, rng)[0] for _ in range(6)] for rng in rngs)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({one.tobytes() for one in first}) == 6
    assert all(one.dtype == np.uint8 and one.shape[0] <= 60 and one.shape[1] <= 90 for one in first)


def test_the_teacher_runs_on_augmented_images_and_only_once(tmp_path: Path) -> None:
    bundle = load_bundle(f"{tiny_bundle(tmp_path / 'tiny', tiny_graph(tmp_path / 'tiny.onnx'))}/")
    folded = graph_session.folded(bundle.verify(bundle.manifest.graphs[0]))
    images = [np.random.default_rng(i).integers(0, 256, (80, 80, 3)).astype(np.uint8) for i in range(3)]
    shown: list[int] = []

    def samples() -> object:
        return cached_samples(
            tmp_path / "samples", folded, ["logits"], images, bundle.manifest.input, "classify", 10, 0,
            lambda what, done, total: shown.append(done),
        )  # fmt: skip

    inputs, targets = samples().batch(range(10))  # type: ignore[attr-defined]
    session = graph_session.session(folded)
    for one, target in zip(inputs, targets["logits"], strict=True):
        np.testing.assert_allclose(session.run(["logits"], {"images": one[None]})[0][0], target, atol=5e-3)
    assert shown == list(range(1, 11))
    samples()
    assert len(shown) == 10
    (tmp_path / "samples" / "targets.json").unlink()  # As after a kill.
    samples()
    assert len(shown) == 20


def test_samples_do_not_stay_in_memory(tmp_path: Path) -> None:
    file = tmp_path / "samples.npy"
    np.save(file, np.random.default_rng(0).random((64, 1 << 14), np.float32).astype(np.float16))
    samples = TeacherSamples(np.load(file, mmap_mode="r"), {})
    first, second = (samples.batch(range(64))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    (mapped,) = (one.rss for one in psutil.Process().memory_maps() if one.path == str(file))
    assert mapped < file.stat().st_size / 2


def test_without_pytorch_the_command_names_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edge_vision.cli.main import main\n"
        "sys.exit(main(['optimize', 'train', 'qat', 'x', '--video', 'y', '--out', 'z']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=with_package(), capture_output=True, text=True
    )
    assert done.returncode == 1
    expected = "pip install torch --index-url https://download.pytorch.org/whl/cpu"
    assert done.stderr.startswith("optimize: package torch is not installed: ")
    assert done.stderr.endswith(f"{expected}\n")
    assert not (tmp_path / "z").exists()


def with_package() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO)}
