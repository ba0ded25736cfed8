"""Runs on a device: `optimize run --device ssh://...` sends the text of this file to the device's Python.

It keeps files by their SHA-256 in a cache folder of limited size, and runs trials with them. Requests and
replies are frames: a line of JSON, then as many bytes as its `size` states. Both sides send a beat every
BEAT_S; without any for SILENCE_S, or when standard input ends, the agent kills its trial and exits. Imports
the standard library only, since the device may lack this package.
"""

from __future__ import annotations

import compileall
import errno
import fcntl
import hashlib
import json
import os
import platform
import queue
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

READY = b"edge_vision agent 1\n"
"""The first bytes of the agent. What the device's shell prints before them is skipped."""
BEAT_S, SILENCE_S = 2.0, 20.0
MAX_FRAME_BYTES = 1 << 26
"""Of the line of a frame, and of what follows it: neither side fills the memory of the other."""
_LOCK_S = 2 * SILENCE_S
"""An agent whose link is lost notices it after SILENCE_S, and releases the lock."""
_MARKER = ".edge_vision-device"
_MARKER_TEXT = (
    "edge_vision keeps files of `optimize run --device` here, and deletes them when it needs space.\n"
)
_MEASURING = ("core", "bundles", "backends", "detect", "optimize")
"""The parts of the package that a measurement imports, for the most part."""
_BUSY = (errno.EAGAIN, errno.EACCES)


class AgentError(Exception):
    """A request cannot be fulfilled. The text is for the user."""


class Frames:
    """Frames from a file descriptor. Raises EOFError at its end, TimeoutError after silence_s without a
    byte, ValueError for anything else than frames, and for more than MAX_FRAME_BYTES of a frame."""

    def __init__(self, fd: int, silence_s: float) -> None:
        self._fd, self._silence_s, self._buffer = fd, silence_s, bytearray()

    def line(self) -> bytes:
        """The next line, with its end."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_FRAME_BYTES:
                raise ValueError(f"expected a line of at most {MAX_FRAME_BYTES} bytes")
            self._receive()
        return self._take(end + 1)

    def next(self) -> tuple[dict[str, Any], bytes]:
        """The next frame: its JSON, and its bytes."""
        try:
            header = json.loads(self.line())
        except RecursionError:
            raise ValueError("expected a frame, got JSON that is too deep") from None
        size = header.get("size", 0) if isinstance(header, dict) else None
        if type(size) is not int or not 0 <= size <= MAX_FRAME_BYTES:
            raise ValueError(f"expected a frame of at most {MAX_FRAME_BYTES} bytes, got {header!r:.100}")
        while len(self._buffer) < size:
            self._receive()
        return header, self._take(size)

    def _receive(self) -> None:
        if not select.select([self._fd], [], [], self._silence_s)[0]:
            raise TimeoutError(f"no sign of life for {self._silence_s:.0f} s")
        data = os.read(self._fd, 1 << 20)
        if not data:
            raise EOFError
        self._buffer += data

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


def frame(header: dict[str, Any], data: bytes = b"") -> bytes:
    """A frame as bytes."""
    return json.dumps({**header, "size": len(data)}).encode() + b"\n" + data


class Cache:
    """Files by their SHA-256, unpacked packages and results, in a folder of at most limit_bytes.

    blobs/ complete files, partial/ those on their way, packages/ unpacked, results/ of trials, work/ of the
    running one. What was used least recently is deleted first.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Raises AgentError if the folder is not ours, or if another agent uses it."""
        self.limit_bytes, self._keep = limit_bytes, set[str]()
        self.folder = _cache_folder()
        marker = self.folder / _MARKER
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.is_symlink() or self.folder.stat().st_uid != os.getuid():
            raise AgentError(f"{self.folder}: expected a folder of this user, got a link or another user's")
        if not marker.is_file() and any(self.folder.iterdir()):
            raise AgentError(
                f"{self.folder}: expected an empty folder or one with {_MARKER}, got other files"
            )
        marker.write_text(_MARKER_TEXT, "utf-8")
        self._lock()
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        for name in ("blobs", "partial", "packages", "results", "work"):
            (self.folder / name).mkdir(exist_ok=True)

    def _lock(self) -> None:
        """Two measurements at a time would disturb each other. The lock ends with this process."""
        self._lock_fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        until_s = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except OSError as error:
                if error.errno not in _BUSY:
                    raise
                if time.monotonic() > until_s:
                    raise AgentError("another `optimize run --device` is using this device") from None
            time.sleep(0.2)

    def missing(self, sizes: dict[str, int]) -> dict[str, int]:
        """Of files by hash and size, those that are not here, with the number of bytes that are. Makes space
        for them."""
        self._keep = set(sizes)
        missing = {}
        for name, size in sizes.items():
            if not self.has(name):
                partial = self.folder / "partial" / name
                missing[name] = partial.stat().st_size if partial.is_file() else 0
                if missing[name] > size:
                    partial.unlink()
                    missing[name] = 0
        self._make_space(sum(sizes[name] - have for name, have in missing.items()))
        return missing

    def has(self, name: str) -> bool:
        """Whether a file is complete. Marks it as used."""
        try:
            os.utime(self.folder / "blobs" / name)
        except FileNotFoundError:
            return False
        return True

    def write(self, name: str, offset: int, data: bytes, total: int) -> int:
        """Write a part of a file, and rename it when it is complete. Returns the number of bytes that are
        here now: 0 if they do not have the hash."""
        partial = self.folder / "partial" / name
        with partial.open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if offset + len(data) < total:
            return offset + len(data)
        if sha256_of(partial) != name:
            partial.unlink()
            return 0
        os.replace(partial, self.folder / "blobs" / name)
        return total

    def add(self, file: Path) -> tuple[str, int]:
        """Move a file into the cache. Returns its hash and size."""
        name, size = sha256_of(file), file.stat().st_size
        os.replace(file, self.folder / "blobs" / name)
        self._keep.add(name)
        return name, size

    def link(self, name: str, target: Path) -> None:
        """Put a file at a path; it must not be written there."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.folder / "blobs" / name, target)
        except OSError:  # A file system without hard links.
            shutil.copyfile(self.folder / "blobs" / name, target)

    def package(self, name: str) -> Path:
        """The folder with the unpacked zip file of this hash."""
        folder = self.folder / "packages" / name
        if not folder.is_dir():
            unfinished = self.folder / "work" / f"package-{name}"
            with zipfile.ZipFile(self.folder / "blobs" / name) as archive:
                archive.extractall(unfinished)
            # As an installed package: the first measurement does not pay for it.
            for room in _MEASURING:
                compileall.compile_dir(unfinished / "edge_vision" / room, quiet=2)
            os.replace(unfinished, folder)
        os.utime(folder)
        return folder

    def _make_space(self, needed: int) -> None:
        """Delete what was used least recently until `needed` bytes fit. Raises AgentError."""
        entries = [
            (path.stat().st_mtime, path, _size(path))
            for name in ("partial", "blobs", "packages", "results")
            for path in (self.folder / name).iterdir()
        ]
        used = sum(size for _, _, size in entries)
        for _, path, size in sorted(entries, key=lambda one: one[0]):
            if used + needed <= self.limit_bytes:
                return
            if path.name not in self._keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                used -= size
        if used + needed > self.limit_bytes:
            raise AgentError(
                f"{self.folder}: expected at most {self.limit_bytes / 1e6:.0f} MB for a measurement, "
                f"got {(used + needed) / 1e6:.0f} MB"
            )


def _cache_folder() -> Path:
    """As `bundles.store.cache_dir`, which this file cannot import."""
    own = os.environ.get("EDGE_VISION_CACHE")
    if own:
        return Path(own).expanduser().absolute() / "device"
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "edge_vision" / "device"


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class Agent:
    """Serves requests from standard input, one at a time. The public methods are the requests."""

    def __init__(self, responses: int) -> None:
        self._responses, self._writing = responses, threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._cache: Cache

    def serve(self) -> None:
        """Does not return."""
        requests: queue.Queue[tuple[dict[str, Any], bytes]] = queue.Queue()
        for ends in (signal.SIGHUP, signal.SIGTERM):
            signal.signal(ends, lambda *_: self._end())
        self._write(READY)
        for work in (lambda: self._read(requests), self._beat):
            threading.Thread(target=work, daemon=True).start()
        while True:
            header, data = requests.get()
            reply, out = self._reply(header, data)
            self._write(frame({**reply, "id": header["id"]}, out))

    def _reply(self, header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            answer = getattr(self, header["request"])(data=data, **header["arguments"])
        except AgentError as error:
            return {"error": str(error)}, b""
        except OSError as error:
            text = f"{error.filename or 'the cache'}: {error.strerror}"
            return {"error": text, "errno": error.errno}, b""
        return ({"value": None}, answer) if isinstance(answer, bytes) else ({"value": answer}, b"")

    def hello(self, data: bytes, modules: list[str], limit_bytes: int) -> dict[str, Any]:
        """Open the cache. Returns this Python, and which of the modules it lacks."""
        self._cache = Cache(limit_bytes)
        missing = [name for name in modules if find_spec(name) is None]
        return {"python": platform.python_version(), "executable": sys.executable, "missing": missing}

    def missing(self, data: bytes, sizes: dict[str, int]) -> dict[str, int]:
        """See `Cache.missing`."""
        return self._cache.missing(sizes)

    def put(self, data: bytes, name: str, offset: int, total: int) -> int:
        """See `Cache.write`."""
        return self._cache.write(name, offset, data, total)

    def get(self, data: bytes, name: str, offset: int, count: int) -> bytes:
        """A part of a file."""
        with (self._cache.folder / "blobs" / name).open("rb") as file:
            file.seek(offset)
            return file.read(count)

    def facts(self, data: bytes, package: str) -> dict[str, Any]:
        """What `python -m edge_vision.optimize.device` prints: OptimizedDevice as a mapping."""
        done = subprocess.run(
            [sys.executable, "-m", "edge_vision.optimize.device"],
            cwd=self._cache.folder / "work",
            env=self._environment(package),
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        if done.returncode:
            raise AgentError(f"this package does not run there: {_last_line(done.stderr)}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def run(
        self,
        data: bytes,
        key: str,
        package: str,
        trial: str,
        files: dict[str, str],
        outputs: list[str],
        timeout_s: float,
    ) -> dict[str, Any]:
        """Run a trial with files (path -> hash), unless its result is stored. key: of the result.

        Returns `code`, the exit status, None after the time limit; `log`, its last line; `answer`, None
        without one; `outputs`, path -> hash and size.
        """
        stored = self._cache.folder / "results" / key
        known = _stored(stored)
        if known and all(self._cache.has(name) for name, _ in known["outputs"].values()):
            return known
        work = self._cache.folder / "work" / key
        work.mkdir()
        try:
            for path, name in files.items():
                self._cache.link(name, work / path)
            for path in outputs:
                (work / path).parent.mkdir(parents=True, exist_ok=True)
            result = self._run(work, package, trial, timeout_s)
            made = {path: self._cache.add(work / path) for path in outputs if (work / path).is_file()}
        finally:
            shutil.rmtree(work, ignore_errors=True)
        result = {**result, "outputs": made}
        if result["answer"]:
            unfinished = stored.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(result), "utf-8")
            os.replace(unfinished, stored)
        return result

    def _run(self, work: Path, package: str, trial: str, timeout_s: float) -> dict[str, Any]:
        (work / "trial.json").write_text(trial, "utf-8")
        with (work / "log").open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "edge_vision.optimize.trials.process", "trial.json", "answer.json"],
                cwd=work,
                env=self._environment(package),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code: int | None = None
            with suppress(subprocess.TimeoutExpired):
                code = self._child.wait(timeout_s)
            self._kill()
            self._child.wait()
            self._child = None
        answer = work / "answer.json"
        finished = json.loads(answer.read_text("utf-8")) if code == 0 and answer.is_file() else None
        return {"code": code, "log": _last_line((work / "log").read_bytes()), "answer": finished}

    def _environment(self, package: str) -> dict[str, str]:
        paths = [str(self._cache.package(package)), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def _read(self, requests: queue.Queue[tuple[dict[str, Any], bytes]]) -> None:
        frames = Frames(0, SILENCE_S)
        try:
            while True:
                received = frames.next()
                if "request" in received[0]:
                    requests.put(received)
        finally:
            self._end()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT_S)
            self._write(frame({}))

    def _write(self, data: bytes) -> None:
        try:
            with self._writing:
                while data:
                    data = data[os.write(self._responses, data) :]
        except OSError:
            self._end()

    def _kill(self) -> None:
        """Kill the trial with all processes that it started."""
        child = self._child
        if child is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def _end(self) -> None:
        self._kill()
        os._exit(1)


def _stored(file: Path) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return values


def _last_line(text: bytes) -> str:
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return " ".join(lines[-1].split())[:300] if lines else "no output"


def main() -> None:
    """Serve. Whatever else prints to standard output goes to standard error."""
    responses = os.dup(1)
    os.dup2(2, 1)
    Agent(responses).serve()


if __name__ == "__main__":
    main()
