#!/usr/bin/env python3
"""Compares measurements over SSH with local ones on the same machine: `make bench-device`.

The device is an SSH server on 127.0.0.1, so both sides measure the same processor. Local and remote trials of
the same candidate alternate. Writes out/bench/device.json.

BACKEND p50, cpu, rss           median over the rounds of the remote figure over that of the local one; cold
                                start, too, without a target: it depends on what the disk's cache contains.
agreement equal                 share of rounds in which both have the same agreement.
connect, first and again         from the start of ssh to the facts of the device; first with the package
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from parts.benchmark import MODEL, finish, make_parser, new_result
from parts.common import REPO, Row, at_least, at_most

sys.path[:0] = [str(REPO / "test" / "unit")]

from ssh_cases import HOST, loopback  # noqa: E402

from edge_vision.optimize.data.dataset import EVALUATION, prepare_dataset  # noqa: E402
from edge_vision.optimize.device import this_device  # noqa: E402
from edge_vision.optimize.remote.address import DeviceAddress  # noqa: E402
from edge_vision.optimize.remote.executor import DeviceExecutor  # noqa: E402
from edge_vision.optimize.settings import Settings  # noqa: E402
from edge_vision.optimize.trials.executor import LocalExecutor, Trial, TrialExecutor  # noqa: E402
from edge_vision.optimize.trials.measure import Measurement, MeasureTask  # noqa: E402
from edge_vision.optimize.trials.worker import WorkerSetup  # noqa: E402

BACKENDS = ("onnxruntime", "openvino")
LOW, HIGH = 0.9, 1.1
WITH_TARGET = ("p50", "cpu", "rss")
FIGURES: dict[str, Callable[[Measurement], float]] = {
    "p50": lambda one: one.timing.p50_ms,
    "cpu": lambda one: one.timing.cpu_p50_ms,
    "rss": lambda one: one.rss_mb,
    "cold start": lambda one: one.cold_start_s,
}
_EXAMPLES = """examples:
  python bench/remote_device.py              about five minutes
  python bench/remote_device.py --rounds 3
  python bench/remote_device.py --strict     exit status 1 where a target is missed"""


def main() -> int:
    parser = make_parser("device", __doc__, _EXAMPLES)
    parser.add_argument("--rounds", type=int, default=8, help="default: %(default)s")
    options = parser.parse_args()
    rounds = options.rounds
    result = new_result(options.video) | {"rounds": rounds}
    with tempfile.TemporaryDirectory() as name, loopback(Path(name) / "robot") as server:
        os.environ["PATH"] = f"{server.bin}:{os.environ['PATH']}"
        folder = _study(Path(name) / "study", options.video)
        local = LocalExecutor()
        address = DeviceAddress.parse(f"ssh://{HOST}{sys.executable}")
        remote = DeviceExecutor(address, local, "bench")
        try:
            result["connect_s"] = [_timed_s(remote.connect), _connect_again_s(remote)]
            result["runs"] = {
                backend: _compare(backend, folder, local, remote, rounds)
                for backend in BACKENDS
                if backend in this_device().backends
            }
        finally:
            remote.close()
    return finish(options, result, _rows(result))


def _study(folder: Path, video: Path) -> Path:
    for name in ("trials", "predictions"):
        (folder / name).mkdir(parents=True)
    prepare_dataset(folder, Settings(MODEL, (str(video),), images=8), print)
    return folder


def _timed_s(call: Callable[[], object]) -> float:
    started_s = time.monotonic()
    call()
    return round(time.monotonic() - started_s, 3)


def _connect_again_s(remote: DeviceExecutor) -> float:
    remote.close()
    return _timed_s(remote.connect)


def _compare(
    backend: str, folder: Path, local: TrialExecutor, remote: TrialExecutor, rounds: int
) -> list[dict[str, Any]]:
    """Local and remote figures of each round."""
    setup = WorkerSetup("source", backend, "auto", 1, EVALUATION)
    found = []
    for number in range(-1, rounds):
        print(f"{backend}, round {number + 1} of {rounds} ...", flush=True)
        sides = [("local", local), ("remote", remote)]
        figures: dict[str, Any] = {}
        for name, executor in sides[:: -1 if number % 2 else 1]:
            task = MeasureTask(
                setup, None, "detect", 2.0, f"predictions/{name}.npz", f"predictions/{name}.npz"
            )
            outcome = executor.run(Trial("measure", name, task, Measurement, (str(number),)), folder, 300.0)
            if outcome.result is None:
                raise SystemExit(f"{backend}, {name}: {outcome.status}: {outcome.reason}")
            figures[name] = {key: figure(outcome.result) for key, figure in FIGURES.items()}
            figures[name]["agreement"] = outcome.result.agreement.value
            figures[name]["wall_s"] = outcome.wall_s
        found.append(figures)
    return found[1:]  # The first one compiles and caches modules.


def _rows(result: dict[str, Any]) -> list[Row]:
    rows = []
    for backend, runs in result["runs"].items():
        for key in FIGURES:
            ratios = [one["remote"][key] / one["local"][key] for one in runs]
            ratio = median(one["remote"][key] for one in runs) / median(one["local"][key] for one in runs)
            note = f"rounds {min(ratios):.2f} to {max(ratios):.2f}"
            if key in WITH_TARGET:
                rows.append(at_least(f"{backend} {key}, least", ratio, LOW, "remote / local", note))
                rows.append(at_most(f"{backend} {key}, most", ratio, HIGH, "remote / local", note))
            else:
                rows.append(Row(f"{backend} {key}", ratio, "remote / local", note=note))
        equal = [one["remote"]["agreement"] == one["local"]["agreement"] for one in runs]
        rows.append(at_least(f"{backend} agreement equal", sum(equal) / len(equal), 1.0, "of rounds"))
    first, again = result["connect_s"]
    return [*rows, Row("connect, first", first, "s"), Row("connect, again", again, "s")]


if __name__ == "__main__":
    sys.exit(main())
