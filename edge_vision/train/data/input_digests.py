"""Digests of a model and of clips: whether a continued run reads what it began with."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import load_bundle, sha256_of
from edge_vision.errors import EdgeVisionError
from edge_vision.source.uri import source_kind
from edge_vision.train.data.labels import is_collected

MODEL, CLIPS = "model_sha256", "clips"
_BLOCK_BYTES = 1 << 20


def input_digests(model: str, clips: Sequence[str]) -> dict[str, Any]:
    """Digests by field of a stored request, as JSON has them. Those that cannot be read are left out, and
    folders of collected pictures: their reviews have a digest of their own."""
    found: dict[str, Any] = {}
    with contextlib.suppress(EdgeVisionError, OSError):
        found[MODEL] = _model_sha256(model)
    with contextlib.suppress(EdgeVisionError, OSError):
        found[CLIPS] = [_clip_digest(one) for one in clips if not is_collected(Path(one))]
    return found


def _model_sha256(model: str) -> str:
    path = Path(model).expanduser()
    if path.is_file():
        return sha256_of(path)
    graphs = load_bundle(model).manifest.graphs
    return hashlib.sha256(" ".join(sorted(one.sha256 for one in graphs)).encode()).hexdigest()


def _clip_digest(clip: str) -> str:
    """Name and digest. Of each file, the size, the first and the last block count: clips are large."""
    path, digest = Path(str(source_kind(clip).target)), hashlib.sha256()
    for file in _files(path):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)} {size} ".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(_BLOCK_BYTES))
            opened.seek(max(_BLOCK_BYTES, size - _BLOCK_BYTES))
            digest.update(opened.read(_BLOCK_BYTES))
    return f"{path.name}:{digest.hexdigest()[:16]}"


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    yield from sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
