"""Shared by the tests of studies on other machines: a connected device and a trial for it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssh_cases import HOST, Loopback

from edge_vision.optimize.remote.address import DeviceAddress
from edge_vision.optimize.remote.executor import DeviceExecutor
from edge_vision.optimize.trials.executor import LocalExecutor, Trial
from edge_vision.optimize.trials.measure import Measurement, MeasureTask
from edge_vision.optimize.trials.worker import WorkerSetup

DEVICE = f"ssh://{HOST}{sys.executable}"


def measurement(measure_s: float = 0.2, **others: Any) -> Trial[Measurement]:
    setup = replace(WorkerSetup("source", "onnxruntime", "auto", 1, "images"), **others)
    task = MeasureTask(setup, None, "classify", measure_s, "predictions/x.npz", "predictions/x.npz")
    return Trial("measure", "x", task, Measurement)


class OnDevice(DeviceExecutor):
    """Connected. reports: the lines that stay."""

    def __init__(self, address: str = DEVICE, **options: Any) -> None:
        self.reports: list[str] = []
        self.while_waiting: Callable[[], None] = lambda: None
        options = {"study": "study", "waits_s": (0.1, 0.2, 0.4), **options}
        super().__init__(
            DeviceAddress.parse(address),
            LocalExecutor(),
            log=self.reports.append,
            show_progress=lambda text: self.while_waiting(),
            **options,
        )

    def __enter__(self) -> OnDevice:
        self.found = self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def inodes(robot: Loopback) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in (robot.cache / "blobs").iterdir()}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def script(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file
