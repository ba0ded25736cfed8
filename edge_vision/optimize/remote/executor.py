"""Runs measurements on a device over SSH, and everything else on this machine."""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_vision.core.child_process import describe_exit
from edge_vision.core.missing_package import PYPI_NAMES
from edge_vision.optimize.data.prediction_file import check_predictions, max_bytes
from edge_vision.optimize.device import OptimizedDevice
from edge_vision.optimize.errors import DiskFull, OptimizeError
from edge_vision.optimize.records import decoded
from edge_vision.optimize.remote.address import DeviceAddress
from edge_vision.optimize.remote.agent import sha256_of
from edge_vision.optimize.remote.package import package_zip
from edge_vision.optimize.remote.session import ConnectionEnded, DeviceError, SshSession
from edge_vision.optimize.trials.executor import (
    EXIT_DISK_FULL,
    Result,
    Trial,
    TrialExecutor,
    TrialOutcome,
    decoded_outcome,
)
from edge_vision.optimize.trials.measure import Measurement, MeasureTask

CACHE_LIMIT_BYTES = 2 << 30
WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 60.0, 60.0)
"""Before each attempt to connect again: four minutes, in which a device restarts."""
MAX_LOST = 3
"""Connections lost while one trial runs, after which the trial counts as the cause."""
_MAX_SENDING_LOST = 20
_CHUNK_BYTES = 1 << 20
_HELLO: dict[str, Any] = {"python": str, "executable": str, "missing": tuple[str, ...]}
_OVERHEAD_S = 60.0
_MODULES = ("numpy", "cv2", "yaml")
"""What measuring imports on the device, besides a runtime."""
Say = Callable[[str], None]


class DeviceExecutor(TrialExecutor):
    """Measures on a device. Trials of other kinds are run by `local`.

    study: distinguishes this study's results in the device's cache. log: receives lines that stay.
    show_progress: receives a line twice per second; it may raise to stop. modules: further ones that the
    device needs. waits_s: before each attempt to connect again.
    """

    def __init__(
        self,
        address: DeviceAddress,
        local: TrialExecutor,
        study: str,
        log: Say = lambda text: None,
        show_progress: Say = lambda text: None,
        modules: Iterable[str] = (),
        waits_s: tuple[float, ...] = WAITS_S,
    ) -> None:
        self._address, self._local, self._study = address, local, study
        self._log, self._show = log, show_progress
        self._modules, self._waits_s = (*_MODULES, *modules), waits_s
        self._do("connecting")
        self._session: SshSession | None = None
        self._device: OptimizedDevice | None = None
        self._hashes: dict[tuple[str, int, int], str] = {}

    def connect(self) -> OptimizedDevice:
        """The device. Raises OptimizeError if it cannot be used."""
        self._do("connecting")
        session = SshSession(self._address, self._wait)
        try:
            with self._reading():
                values, _ = session.request("hello", modules=self._modules, limit_bytes=CACHE_LIMIT_BYTES)
                values = {name: decoded(kind, values[name], strict=True) for name, kind in _HELLO.items()}
            if values["missing"]:
                names = " ".join(PYPI_NAMES.get(name, name) for name in values["missing"])
                raise OptimizeError(
                    f"{self._address.text}: expected {', '.join(self._modules)} in its Python "
                    f"{values['python']}, got none of {', '.join(values['missing'])}; there: "
                    f"{values['executable']} -m pip install {names}"
                )
            package = package_zip()
            name = hashlib.sha256(package).hexdigest()
            self._send(session, {name: package})
            facts, _ = session.request("facts", package=name)
            with self._reading():
                found: OptimizedDevice = decoded(
                    OptimizedDevice, {**facts, "address": self._address.text}, strict=True
                )
            if self._device and found.identity != self._device.identity:
                raise OptimizeError(
                    f"expected {self._device.identity}, got {found.identity}: another machine"
                )
        except BaseException:
            session.close()
            raise
        self._session = session
        self._device = self._device or found
        return found

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Of what the device replies: it is not trusted."""
        try:
            yield
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
            raise DeviceError(
                f"{self._address.text}: expected replies of this package's agent, got others ({error!r:.200})"
            ) from None

    def close(self) -> None:
        """End the agent on the device, if it runs."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        """See TrialExecutor. Raises OptimizeError if the device cannot be reached any more."""
        if not isinstance(trial.task, MeasureTask):
            return self._local.run(trial, folder, timeout_s)
        lost = sending_lost = 0
        while True:
            session = self._session or self._connect_again()
            running = False
            try:
                files = self._send_files(session, trial.task, folder)
                running = True
                self._do(trial.name)
                return self._run(session, trial, files, folder, timeout_s)
            except ConnectionEnded as error:
                self.close()
                self._log(f"{error}; connecting again")
                lost, sending_lost = lost + running, sending_lost + (not running)
                if lost == MAX_LOST:
                    reason = f"the connection ended {lost} times while it ran: {error}"
                    return TrialOutcome("crashed", reason)
                if sending_lost == _MAX_SENDING_LOST:
                    raise

    def _connect_again(self) -> SshSession:
        reason = ""
        for wait_s in self._waits_s:
            self._do(f"no connection, the next attempt in {wait_s:.0f} s")
            until_s = time.monotonic() + wait_s
            while time.monotonic() < until_s:
                self._wait()
                time.sleep(min(0.5, wait_s))
            try:
                self.connect()
            except ConnectionEnded as error:
                reason = str(error)
                continue
            assert self._session is not None
            return self._session
        raise OptimizeError(
            f"{reason}; no connection in {len(self._waits_s)} attempts. Finished measurements are kept; "
            f"continue with: optimize resume DIR"
        )

    def _do(self, what: str) -> None:
        self._doing, self._since_s = what, time.monotonic()

    def _wait(self) -> None:
        self._show(f"{self._doing}: {time.monotonic() - self._since_s:.0f} s")

    def _run(
        self,
        session: SshSession,
        trial: Trial[Result],
        files: dict[str, str],
        folder: Path,
        timeout_s: float,
    ) -> TrialOutcome[Result]:
        """Run a trial whose files are on the device, and fetch what it wrote."""
        text, predictions = trial.to_json(), trial.task.predictions
        # The same trial of this study has the same key: after a lost connection, its result is not measured
        # again, and a result is stored under it at most once.
        key = hashlib.sha256(f"{self._study}\n{text}".encode()).hexdigest()
        values, _ = session.request(
            "run",
            limit_s=timeout_s + _OVERHEAD_S,
            key=key,
            package=hashlib.sha256(package_zip()).hexdigest(),
            trial=text,
            files=files,
            outputs=[predictions],
            timeout_s=timeout_s,
        )
        with self._reading():
            return self._outcome(session, trial, values, folder, timeout_s)

    def _outcome(
        self,
        session: SshSession,
        trial: Trial[Result],
        values: dict[str, Any],
        folder: Path,
        timeout_s: float,
    ) -> TrialOutcome[Result]:
        """The outcome of the device's reply. Raises TypeError, KeyError, AttributeError or ValueError for
        another reply."""
        predictions = trial.task.predictions
        if values["code"] is None:
            return TrialOutcome("timeout", f"exceeded the time limit of {timeout_s:.0f} s")
        if values["code"] == EXIT_DISK_FULL:
            raise DiskFull(self._address.text)
        if values["answer"] is None:
            reason = f"its process {describe_exit(values['code'])}: {values['log']!s:.300}"
            return TrialOutcome("crashed", reason)
        outcome = decoded_outcome(trial, values["answer"], strict=True)
        if isinstance(outcome.result, Measurement):
            _check_finite(asdict(outcome.result.timing))
        if predictions in values["outputs"]:
            name, size = values["outputs"][predictions]
            self._fetch(session, name, size, trial.task, folder)
        return outcome

    def _fetch(self, session: SshSession, name: str, size: int, task: MeasureTask, folder: Path) -> None:
        """Fetch the predictions, and keep them if they are some: they are read for the report."""
        images = len([*(folder / task.candidate.images).glob("*.png")])
        if type(size) is not int or not 0 <= size <= max_bytes(images):
            raise ValueError(f"a file of {size!r:.60} bytes, expected at most {max_bytes(images)}")
        data = bytearray()
        while len(data) < size:
            part = session.request("get", name=name, offset=len(data), count=_CHUNK_BYTES)[1]
            if not 0 < len(part) <= size - len(data):
                raise ValueError(f"a part of {len(part)} bytes, expected up to {size - len(data)}")
            data += part
        target = folder / task.predictions
        if hashlib.sha256(data).hexdigest() != name:
            raise DeviceError(f"{self._address.text}: {target.name} arrived damaged")
        check_predictions(bytes(data), task.task, images)
        unfinished = target.with_name(f".{target.name}.unfinished")
        unfinished.write_bytes(data)
        os.replace(unfinished, target)

    def _send_files(self, session: SshSession, task: MeasureTask, folder: Path) -> dict[str, str]:
        """Send what the device lacks. Returns path -> hash of all files of the task."""
        paths = {path: folder / path for path in input_files(task, folder)}
        names = {path: self._hash(file) for path, file in paths.items()}
        self._send(
            session, {names[path]: file for path, file in paths.items()} | {_package_hash(): package_zip()}
        )
        return names

    def _send(self, session: SshSession, contents: dict[str, Path | bytes]) -> None:
        """Send files, by their hash, from where an earlier attempt ended."""
        sizes = {name: _size(content) for name, content in contents.items()}
        missing, _ = session.request("missing", sizes=sizes)
        with self._reading():
            missing = dict(missing)
            if not all(type(have) is int and 0 <= have <= sizes[name] for name, have in missing.items()):
                raise ValueError(f"{missing!r:.100} of {len(sizes)} files")
        total, sent = sum(sizes[name] - have for name, have in missing.items()), 0
        for name, have in missing.items():
            damaged = False
            while True:
                self._do(f"sending, {sent / 1e6:.1f} of {total / 1e6:.1f} MB")
                chunk = _chunk(contents[name], have)
                before, sent = have, sent + len(chunk)
                have, _ = session.request("put", chunk, name=name, offset=before, total=sizes[name])
                if type(have) is not int or have not in (0, before + len(chunk)):
                    raise DeviceError(
                        f"{self._address.text}: expected {before + len(chunk)} bytes, got {have!r:.60}"
                    )
                if have == sizes[name]:
                    break
                if have <= before and damaged:
                    raise DeviceError(f"{self._address.text}: {name[:12]} arrived damaged twice")
                damaged = damaged or have <= before

    def _hash(self, file: Path) -> str:
        stat = file.stat()
        key = (str(file), stat.st_mtime_ns, stat.st_size)
        if key not in self._hashes:
            self._hashes[key] = sha256_of(file)
        return self._hashes[key]


def _check_finite(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if one is not None and not 0 <= one < math.inf:
                raise ValueError(f"{name} {one!r:.60}")


def _package_hash() -> str:
    return hashlib.sha256(package_zip()).hexdigest()


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _chunk(content: Path | bytes, offset: int) -> bytes:
    if isinstance(content, bytes):
        return content[offset : offset + _CHUNK_BYTES]
    with content.open("rb") as file:
        file.seek(offset)
        return file.read(_CHUNK_BYTES)


def input_files(task: MeasureTask, folder: Path) -> list[str]:
    """The files that a measurement reads, as paths within the study's folder."""
    bundles = [task.candidate.bundle, *([task.parent.bundle] if task.parent else [])]
    files = [
        task.labels,
        task.exact,
        *([str(Path(task.exact).with_name("tensors.npz"))] if task.exact else []),
    ]
    if task.reference != task.predictions:
        files.append(task.reference)
    for root in dict.fromkeys([*bundles, task.candidate.images]):
        base = folder / root
        found = (file for file in sorted(base.rglob("*")) if file.is_file())
        files += [f"{root}/{file.relative_to(base).as_posix()}" for file in found]
    return [path for path in dict.fromkeys(files) if path and (folder / path).is_file()]
