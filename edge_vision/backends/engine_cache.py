"""Engines, kept on disk: what a runtime made of a graph for one device, in minutes, and opens in a second.

An engine is a program that the runtime trusts, so that none is handed to it unless it is the very one that
was built for this graph, runtime, device and driver. Beside `NAME.engine` lies `NAME.json` with its key and
its own sha256; both are checked over the bytes in memory, and these bytes are what is opened.

Who can write both files can put anything there: the folder is the owner's alone, and one that others may
write to is refused.
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

Report = Callable[[str], None]
REMEDY = "python -m edge_vision backends build BUNDLE --backend {builder} --rebuild"
_MAX_SIDE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine is for. All of it must be the same, to the letter, for the engine to be opened.

    builder, version: the runtime. device: as the driver names it, with what tells it from similar ones.
    settings: what else was asked of the builder.
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
        """The place that engines of one graph, builder, device, precision and settings share."""
        place = "\n".join((self.graph_sha256, self.device, self.settings))
        digest = hashlib.sha256(place.encode()).hexdigest()[:16]
        return f"{self.builder}-{self.graph_sha256[:12]}-{re.sub(r'[^a-z0-9]', '_', self.precision)}-{digest}"


@dataclass(frozen=True, slots=True)
class CachedEngine:
    """engine: verified, or just built. note: why it is not kept, else empty. built: by this call."""

    engine: bytes
    built: bool
    note: str = ""


class EngineCache:
    """Engines of any runtime in one folder, by default `engines` in the cache."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / "engines"

    def get(
        self, key: EngineKey, build: Callable[[], bytes], rebuild: bool = False, report: Report | None = None
    ) -> CachedEngine:
        """The kept engine, else one that `build` makes and that is kept from now on.

        One process builds while others that want the same engine wait for it. A disk that cannot be written
        to costs the next start its time, and nothing else: the note says so. Raises EngineRefused, and what
        `build` raises.
        """
        say = report or _nothing
        if not rebuild and (found := self.find(key)) is not None:
            return CachedEngine(found, built=False)
        with contextlib.ExitStack() as stack:
            # Where the lock cannot be made, neither can the engine be kept, and the note will say so.
            with contextlib.suppress(OSError):
                stack.enter_context(self._lock(key, say))
            if not rebuild and (found := self.find(key)) is not None:
                return CachedEngine(found, built=False)
            return self._build(key, build)

    def find(self, key: EngineKey) -> bytes | None:
        """The engine for a key, verified; None where there is none. Raises EngineRefused."""
        engine_path, side_path = self._paths(key)
        if not side_path.is_file() or not engine_path.is_file():
            return None
        try:
            self._check_folder()
            side = _read_side(side_path)
            other = _difference(key, side["key"])
            if other:
                raise self._refused(key, f"was made for {other}")
            engine = engine_path.read_bytes()
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise self._refused(key, f"cannot be checked ({error})") from error
        if hashlib.sha256(engine).hexdigest() != side["sha256"]:
            raise self._refused(key, "is not the one that was built: it is damaged or was changed")
        return engine

    def put(self, key: EngineKey, engine: bytes) -> None:
        """Keep an engine. Stopped at any moment, it leaves the old pair, none, or the new one."""
        self._make_folder()
        engine_path, side_path = self._paths(key)
        side = {"key": asdict(key), "sha256": hashlib.sha256(engine).hexdigest(), "bytes": len(engine)}
        # An engine without its side file is none: so the old one ends here, and the new one begins last.
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
    def _lock(self, key: EngineKey, say: Report) -> Iterator[None]:
        """One builder of an engine at a time. The kernel drops the lock when the process ends, in any way."""
        self._make_folder()
        with (self.folder / f"{key.name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another process is building this engine, waiting for it")
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
            f"make room there, or set EDGE_VISION_CACHE"
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


def _nothing(_line: str) -> None:
    """A report that nobody reads."""


def _read_side(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(_MAX_SIDE_BYTES + 1)
    if len(data) > _MAX_SIDE_BYTES:
        raise ValueError(f"{path} is too large")
    side = json.loads(data)
    if not isinstance(side, dict) or not isinstance(side.get("key"), dict):
        raise ValueError(f"{path} is no side file")
    return side


def _difference(key: EngineKey, other: dict[str, Any]) -> str:
    """The first part of a key that is another, in words; empty where all are the same."""
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
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
