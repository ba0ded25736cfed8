"""Cache of engines: graphs compiled for one device, which takes minutes to build and a second to open.

An engine is code that the runtime trusts, so only an engine built for this graph, runtime, device and driver
is opened. Each `NAME.engine` has a `NAME.json` with its key and sha256. Both are verified on the bytes in
memory that are then opened.

Anyone who can write both files can replace them, so a folder that others may write to is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import cache_dir
from edge_vision.errors import BackendError, EngineRefused

REMEDY = "python -m edge_vision backends build BUNDLE --backend {builder} --rebuild"
_MAX_SIDE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine was built for. It is opened only if every field is identical.

    builder, version: the runtime. device: the driver's name, with the compute capability. settings: further
    options of the builder.
    """

    graph_sha256: str
    builder: str
    version: str
    device: str
    driver: str
    precision: str
    settings: str = ""

    @property
    def name(self) -> str:
        """The file name. Versions and drivers of one graph, builder, device, precision, settings share it."""
        identity = "\n".join((self.graph_sha256, self.device, self.settings))
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        return f"{self.builder}-{self.graph_sha256[:12]}-{re.sub(r'[^a-z0-9]', '_', self.precision)}-{digest}"


@dataclass(frozen=True, slots=True)
class CachedEngine:
    """engine: verified, or just built. built: by this call. note: why it is not kept, else empty."""

    engine: bytes
    built: bool
    note: str = ""


class EngineCache:
    """Engines of any runtime in one folder, by default `engines` in the cache."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / "engines"

    def get(self, key: EngineKey, build: Callable[[], bytes], rebuild: bool = False) -> CachedEngine:
        """The kept engine, or a new one from `build`, which is then kept.

        Other processes that need the same engine wait. If the disk cannot be written to, the note reports it,
        and the next start builds again. Raises EngineRefused, and what `build` raises.
        """
        if not rebuild and (found := self.find(key)) is not None:
            return CachedEngine(found, built=False)
        with contextlib.ExitStack() as stack:
            # Without a lock file the engine cannot be kept either, and the note says so.
            with contextlib.suppress(OSError):
                stack.enter_context(self._lock(key))
            if not rebuild and (found := self.find(key)) is not None:
                return CachedEngine(found, built=False)
            return self._build(key, build)

    def find(self, key: EngineKey) -> bytes | None:
        """The verified engine for a key, None if there is none. Raises EngineRefused."""
        engine_path, side_path = self._paths(key)
        if not side_path.is_file() or not engine_path.is_file():
            return None
        try:
            self._check_folder()
            side = _read_side(side_path)
            difference = _difference(key, side["key"])
            if difference:
                raise self._refused(key, f"was built for {difference}")
            engine = engine_path.read_bytes()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._refused(key, f"cannot be checked ({error})") from error
        if hashlib.sha256(engine).hexdigest() != side["sha256"]:
            raise self._refused(key, "is not the one that was built: it is damaged or was modified")
        return engine

    def put(self, key: EngineKey, engine: bytes) -> None:
        """Keep an engine. If interrupted, the old pair, none, or the new one remains."""
        self._make_folder()
        engine_path, side_path = self._paths(key)
        side = {"key": asdict(key), "sha256": hashlib.sha256(engine).hexdigest(), "bytes": len(engine)}
        # An engine without its side file does not count: remove the old one first, write the new one last.
        side_path.unlink(missing_ok=True)
        write_file(engine_path, engine)
        write_file(side_path, json.dumps(side, indent=1).encode())

    def _build(self, key: EngineKey, build: Callable[[], bytes]) -> CachedEngine:
        engine = build()
        try:
            self.put(key, engine)
        except OSError as error:
            return CachedEngine(engine, built=True, note=self._not_kept(error))
        return CachedEngine(engine, built=True)

    def _paths(self, key: EngineKey) -> tuple[Path, Path]:
        return self.folder / f"{key.name}.engine", self.folder / f"{key.name}.json"

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)

    def _check_folder(self) -> None:
        mode = self.folder.stat().st_mode
        if mode & 0o022:
            raise ValueError(f"others may write to {self.folder}: chmod go-w {self.folder}")

    @contextlib.contextmanager
    def _lock(self, key: EngineKey) -> Iterator[None]:
        """One builder of an engine at a time. The kernel releases the lock when the process ends."""
        self._make_folder()
        with (self.folder / f"{key.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _refused(self, key: EngineKey, why: str) -> EngineRefused:
        path = self._paths(key)[0]
        return EngineRefused(
            f"the engine {path} {why}; it was not opened. Build it again: "
            f"{REMEDY.format(builder=key.builder)}"
        )

    def _not_kept(self, error: OSError) -> str:
        return (
            f"the engine could not be kept in {self.folder} ({error.strerror}): each start builds it again; "
            f"free space there, or set EDGE_VISION_CACHE"
        )


def graph_sha256(graph: Path) -> str:
    """The sha256 of a graph file, in hex; of an OpenVINO graph with its weights. Raises BackendError."""
    weights = graph.with_suffix(".bin")
    try:
        digest = hashlib.sha256(graph.read_bytes())
        if graph.suffix == ".xml" and weights.is_file():
            digest.update(weights.read_bytes())
        return digest.hexdigest()
    except OSError as error:
        raise BackendError(f"cannot read {graph}: {error.strerror}: fetch the bundle again") from error


def _read_side(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(_MAX_SIDE_BYTES + 1)
    if len(data) > _MAX_SIDE_BYTES:
        raise ValueError(f"{path} is too large")
    side = json.loads(data)
    if not isinstance(side, dict) or not isinstance(side.get("key"), dict):
        raise ValueError(f"{path} is not a side file")
    return side


def _difference(key: EngineKey, other: dict[str, Any]) -> str:
    """The first field that differs from the key, as text; empty if none does."""
    for name, value in asdict(key).items():
        if other.get(name) != value:
            return f"{name} {other.get(name)!r:.80}, here it is {value!r:.80}"
    return ""


def write_file(path: Path, data: bytes) -> None:
    """The whole file or none. The name must not be on disk before the bytes are: a robot loses power."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
