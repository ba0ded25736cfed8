"""Checks a file of predictions that another machine made: it is read only if it is one, and of its size."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator

import numpy as np

from edge_vision.core.model_spec import MAX_DETECTIONS

IMAGE_BYTES = 1 << 17
"""At most of one image: MAX_DETECTIONS boxes have 24 kB, 22,000 classes 88 kB."""
_ARRAYS = {"detect": {"boxes": "f", "scores": "f", "ids": "i"}, "classify": {"scores": "f"}}
"""Task -> arrays of one image with the kind of their dtype."""


def max_bytes(images: int) -> int:
    """Of a file with the predictions of so many images."""
    return 1024 + images * IMAGE_BYTES


def check_predictions(data: bytes, task: str, images: int) -> None:
    """Raise ValueError unless this is what a worker writes: for each image plain numbers, uncompressed.

    Nothing is unpacked: an archive may declare more than fits into the memory. No array has objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            names = {f"{image}.{name}.npy" for image in range(images) for name in _ARRAYS[task]}
            if len(entries) != len(names) or {entry.filename for entry in entries} != names:
                raise ValueError(f"{len(entries)} arrays, expected {len(names)} of {images} images")
            if any(one.compress_type != zipfile.ZIP_STORED for one in entries):
                raise ValueError("compressed arrays")
            if sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("arrays that are larger than the file")
            shapes = dict(_shapes(archive, task))
    except ValueError:
        raise
    except Exception as error:  # zipfile and numpy's parser of headers raise almost anything.
        raise ValueError(f"no predictions: {error!r:.60}") from None
    for image in range(images):
        _check_shapes(task, {name: shapes[f"{image}.{name}.npy"] for name in _ARRAYS[task]})


def _shapes(archive: zipfile.ZipFile, task: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for entry in archive.infolist():
        with archive.open(entry) as stream:
            if np.lib.format.read_magic(stream) != (1, 0):
                raise ValueError(f"{entry.filename} of another version")
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            size = entry.file_size - stream.tell()
        if dtype.kind != _ARRAYS[task][entry.filename.split(".")[1]]:
            raise ValueError(f"{entry.filename} of {dtype!s:.30}")
        if min(shape, default=0) < 0 or size != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{entry.filename} of {shape!r:.60} in {size} bytes")
        yield entry.filename, shape


def _check_shapes(task: str, shapes: dict[str, tuple[int, ...]]) -> None:
    count = shapes["scores"][0] if len(shapes["scores"]) == 1 else -1
    expected = {"boxes": (count, 4), "scores": (count,), "ids": (count,)}
    if count < 0 or any(shape != expected[name] for name, shape in shapes.items()):
        raise ValueError(f"shapes {shapes!r:.100}")
    if task == "detect" and count > MAX_DETECTIONS:
        raise ValueError(f"{count} detections, expected at most {MAX_DETECTIONS}")
