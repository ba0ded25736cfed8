"""One study on several devices: one set of data and variants, made on this machine, and a report for each.

The results of this machine are in the study's folder, those of another device in `devices/NAME` within it.
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_vision.errors import EdgeVisionError
from edge_vision.offline.output_folder import marker_path, remove_path
from edge_vision.optimize.data.dataset import FILE as DATASET
from edge_vision.optimize.data.dataset import LABELS, prepare_dataset
from edge_vision.optimize.device import OptimizedDevice, this_device
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization.make_variant import VariantTask
from edge_vision.optimize.remote.address import LOCAL, DeviceAddress, device_name
from edge_vision.optimize.remote.executor import DeviceExecutor
from edge_vision.optimize.report.report_file import StudyReport, read_report, write_text
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.source import SHIPPED, TFLITE
from edge_vision.optimize.study import run_study
from edge_vision.optimize.trials.executor import LocalExecutor, Result, Trial, TrialExecutor, TrialOutcome
from edge_vision.optimize.trials.runner import store_outcome, stored_outcome

FOLDER = "devices"
_SHARED = (DATASET, "source", TFLITE, SHIPPED, "images", "ranges", LABELS)
_STUDY_ID = "study_id"
Say = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class DeviceStudy:
    """The results of one device. report: None without a measurement; incomplete if the study failed. error:
    why it did, or ""."""

    address: str
    folder: Path
    report: StudyReport | None = None
    error: str = ""

    @property
    def name(self) -> str:
        """The device in tables and folders."""
        return device_name(self.address)


def stored_study(address: str, folder: Path, error: str = "") -> DeviceStudy:
    """The results of a device from its folder. error: why its study failed."""
    try:
        return DeviceStudy(address, folder, read_report(folder), error)
    except OptimizeError as unread:
        return DeviceStudy(address, folder, None, error or str(unread))


def device_folders(folder: Path, devices: Sequence[str]) -> dict[str, Path]:
    """Device -> the folder with its results."""
    return {one: folder if one == LOCAL else folder / FOLDER / device_name(one) for one in devices}


def run_studies(folder: Path, settings: Settings, command: str, log: Say, show: Say) -> list[DeviceStudy]:
    """Run a study on each device of the settings, all at the same time. On this machine, one trial runs at a
    time. command: whose marker the folders of devices get. log, show: receive a device's name and a line that
    stays, or the progress of the moment.

    Raises OptimizeError, BundleError if a device cannot be used, or if no study can start. If a device fails
    later, its study has an error, and the others continue.
    """
    folders = device_folders(folder, settings.devices)
    shared = [path for path in folders.values() if path != folder]
    for path in shared:
        path.mkdir(parents=True, exist_ok=True)
        marker = marker_path(folder, command)
        shutil.copyfile(marker, path / marker.name)
    stop = threading.Event()

    def progress(name: str) -> Callable[[str], None]:
        def say(text: str) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            show(name, text)

        return say

    once = threading.Lock()
    executors: dict[str, TrialExecutor] = {}
    devices: dict[str, OptimizedDevice] = {}
    try:
        for address, path in folders.items():
            name = device_name(address)
            local = _OnceForAll(LocalExecutor(progress(name)), once, tuple(folders.values()))
            executors[address], devices[address] = local, this_device()
            if address != LOCAL:
                modules = ("pycocotools",) if settings.labels else ()
                remote = DeviceExecutor(
                    DeviceAddress.parse(address),
                    local,
                    _study_id(path),
                    partial(log, name),
                    progress(name),
                    modules,
                )
                executors[address], devices[address] = remote, remote.connect()
                found = devices[address]
                log(name, f"{found.cpu}, {found.cores} cores, {', '.join(found.flags) or 'no special flags'}")
        # After the connections: reading clips may take minutes, a wrong address is known in seconds.
        prepare_dataset(folder, settings, lambda text: log("", text))
        for path in shared:
            _share(folder, path)
        return _run_all(settings, folders, executors, devices, log, stop)
    finally:
        for executor in executors.values():
            if isinstance(executor, DeviceExecutor):
                executor.close()


def _run_all(
    settings: Settings,
    folders: dict[str, Path],
    executors: dict[str, TrialExecutor],
    devices: dict[str, OptimizedDevice],
    log: Say,
    stop: threading.Event,
) -> list[DeviceStudy]:
    """Run each study in a thread. After Ctrl-C they stop within a second, with their trials."""
    found = {address: DeviceStudy(address, path) for address, path in folders.items()}
    faults: list[BaseException] = []

    def run(address: str) -> None:
        name, path = device_name(address), folders[address]
        try:
            report = run_study(
                path, settings, executors[address], lambda text: log(name, text), devices[address]
            )
            found[address] = replace(found[address], report=report)
        except EdgeVisionError as error:
            found[address] = stored_study(address, path, str(error))
            log(name, str(error))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=run, args=[address]) for address in folders]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive() and not faults:
                thread.join(0.2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if faults:
        raise faults[0]
    return list(found.values())


class _OnceForAll(TrialExecutor):
    """Runs trials of this machine one at a time, and each once: a variant that one device's study made is
    copied to the others with the same int8 recipe."""

    def __init__(self, local: TrialExecutor, lock: threading.Lock, folders: tuple[Path, ...]) -> None:
        self._local, self._lock, self._folders = local, lock, folders

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        with self._lock:
            for other in self._folders:
                outcome = stored_outcome(trial, other) if other != folder else None
                if outcome is not None and outcome.status == "done":
                    if isinstance(trial.task, VariantTask):
                        _copy_variant(trial.task.out, other, folder)
                    return outcome
            outcome = self._local.run(trial, folder, timeout_s)
            store_outcome(trial, outcome, folder)
            return outcome


def _copy_variant(name: str, source: Path, target: Path) -> None:
    for path in (name, f"{name}.check"):
        remove_path(target / path)
        if (source / path).is_dir():
            shutil.copytree(source / path, target / path)


def _share(folder: Path, path: Path) -> None:
    """Link the data of the study into a device's folder."""
    (folder / "ranges").mkdir(exist_ok=True)
    for name in _SHARED:
        if (folder / name).exists() and not (path / name).is_symlink():
            (path / name).symlink_to(os.path.relpath(folder / name, path))


def _study_id(path: Path) -> str:
    """A name for this study's results in the cache of a device."""
    file = path / _STUDY_ID
    if not file.is_file():
        write_text(file, uuid.uuid4().hex)
    return file.read_text("utf-8")
