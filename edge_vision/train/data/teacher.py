"""Training samples with the teacher's outputs, cached in a folder so that they are computed once.

Outputs for reviewed pictures are corrected by the labels.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.model_spec import InputSpec
from edge_vision.core.preprocess import Preprocessor
from edge_vision.optimize.quantization import graph_session
from edge_vision.optimize.quantization.graph_edit import with_outputs
from edge_vision.train.data.augmentation import augmented
from edge_vision.train.data.label_correction import LabelCorrection

_FILE = "targets.json"
_DIGESTED = 32
"""Samples that are read at once for a checksum."""

Show = Callable[[str, int, int], None]
"""What is done, how much of it, of how much."""


@dataclass(frozen=True, slots=True, eq=False)
class TeacherSamples:
    """inputs (n, ...), targets by tensor name (n, ...): float16 files mapped into memory. corrections: of
    all targets by labels, see `CorrectedOutputs`; empty without labels."""

    inputs: np.ndarray
    targets: Mapping[str, np.ndarray]
    corrections: Mapping[str, int] = field(default_factory=dict)

    def batch(self, numbers: Sequence[int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Inputs and targets of these samples, float32."""
        at = sorted(numbers)
        targets = {name: np.asarray(values[at], np.float32) for name, values in self.targets.items()}
        inputs = np.asarray(self.inputs[at], np.float32)
        _release((self.inputs, *self.targets.values()))
        return inputs, targets


@dataclass(frozen=True, slots=True, eq=False)
class LabelledTargets:
    """The correction of the teacher's outputs, and the boxes on each image; None without a review."""

    correction: LabelCorrection
    boxes: Sequence[Detections | None]


def cached_samples(
    folder: Path,
    teacher: Any,
    outputs: Sequence[str],
    images: Sequence[np.ndarray],
    spec: InputSpec,
    task: str,
    count: int,
    seed: int,
    show: Show,
    labelled: LabelledTargets | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> TeacherSamples:
    """So many augmented images and what the teacher, a folded model, outputs for them. labelled: corrects the
    outputs. log: receives a line if damaged samples are computed again.

    The folder is complete once its last file is written; an incomplete one is made again. Raises OSError.
    """
    if (folder / _FILE).is_file():
        try:
            return _read(folder, outputs, count)
        except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError) as error:
            log(f"{folder}: damaged ({error}); the samples are computed again")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write(folder, teacher, outputs, images, spec, task, count, seed, show, labelled)
    return _read(folder, outputs, count)


def _read(folder: Path, outputs: Sequence[str], count: int) -> TeacherSamples:
    """The stored samples. Raises OSError, ValueError and others if they are damaged."""
    stored = json.loads((folder / _FILE).read_text("utf-8"))
    arrays = [np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(len(outputs) + 1)]
    if stored["outputs"] != list(outputs) or any(len(one) != count for one in arrays):
        raise ValueError(f"expected {count} samples of {', '.join(outputs)}")
    if [_digest(one) for one in arrays] != stored["digests"]:
        raise ValueError("expected what was written, got another content")
    corrections = {str(name): int(number) for name, number in stored["corrections"].items()}
    return TeacherSamples(arrays[0], dict(zip(outputs, arrays[1:], strict=True)), corrections)


def _write(
    folder: Path,
    teacher: Any,
    outputs: Sequence[str],
    images: Sequence[np.ndarray],
    spec: InputSpec,
    task: str,
    count: int,
    seed: int,
    show: Show,
    labelled: LabelledTargets | None,
) -> None:
    session = graph_session.session(with_outputs(teacher, outputs))
    preprocessor, rng, files = Preprocessor(spec), np.random.default_rng(seed), []
    corrections = dict.fromkeys(("raised", "lowered"), 0) if labelled else {}
    for number in range(count):
        source = number % len(images)
        boxes = labelled.boxes[source] if labelled else None
        image, boxes = augmented(images[source], task, rng, boxes)
        prepared, transform = preprocessor.prepare(Frame(image, 0, ""))
        # The teacher sees what the student will see: float16.
        tensor = prepared.astype(np.float16)
        found = dict(
            zip(outputs, session.run(list(outputs), {spec.name: tensor.astype(np.float32)}), strict=True)
        )
        if labelled and boxes is not None:
            corrected = labelled.correction.corrected(found, boxes, transform)
            found = corrected.outputs
            corrections["raised"] += corrected.raised
            corrections["lowered"] += corrected.lowered
        arrays = [np.asarray(one[0], np.float16) for one in (tensor, *found.values())]
        if not number:
            files = [_mapped(folder / f"{i}.npy", count, array.shape) for i, array in enumerate(arrays)]
        for file, array in zip(files, arrays, strict=True):
            file[number] = array
        _release(files)
        show("teacher", number + 1, count)
    for file in files:
        file.flush()
    stored = {
        "outputs": list(outputs),
        "corrections": corrections,
        "digests": list(map(_digest, files)),
    }
    write_file(folder / _FILE, json.dumps(stored).encode())


def _digest(array: np.ndarray) -> list[Any]:
    """Type, shape and checksum."""
    checksum = 0
    for start in range(0, len(array), _DIGESTED):
        checksum = zlib.crc32(array[start : start + _DIGESTED].tobytes(), checksum)
        _release([array])
    return [str(array.dtype), list(array.shape), checksum]


def _release(arrays: Iterable[np.ndarray]) -> None:
    """Give up the memory of mapped files, which counts as that of the process; their content stays."""
    bases: list[Any] = [one.base for one in arrays]
    for base in bases:
        if isinstance(base, mmap.mmap):
            base.madvise(mmap.MADV_DONTNEED)


def _mapped(path: Path, count: int, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new file for an array. Its space is reserved: a full disk is an OSError here, not a SIGBUS later."""
    mapped = np.lib.format.open_memmap(path, "w+", np.float16, (count, *shape))
    with path.open("r+b") as opened:
        os.posix_fallocate(opened.fileno(), 0, path.stat().st_size)
    return mapped
