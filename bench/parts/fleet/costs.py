"""What a real repository, its server and report files cost."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from parts.fleet.rollouts import MODEL
from update_cases import GROUP, World

from edge_vision.bundles.store import load_bundle
from edge_vision.errors import UpdateError
from edge_vision.updates.robot_report import (
    GOOD,
    MAX_REPORTS,
    ReportSender,
    RobotReport,
    new_report,
    read_reports,
)

REPORT_COUNTS = (1000, 10_000, 100_000)


def repository_cost() -> dict[str, Any]:
    """Requests and bytes of one robot: a first check with the download of a release, then a check a day
    later, when the timestamp is signed again, and one that finds nothing new. By the number of groups."""
    found: dict[str, Any] = {}
    for groups in (1, 30):
        with tempfile.TemporaryDirectory() as folder, _world(Path(folder)) as world:
            for number in range(groups - 1):
                world.operator.repository.add_key(f"fleet/g{number}")
            world.operator.publish_bundle(load_bundle(MODEL))
            costs = {"install": _cost(world, world.update)}
            world.operator.wait(hours=20)
            world.operator.repository.renew()
            costs["renewed"] = _cost(world, world.client().check)
            costs["check"] = _cost(world, world.client().check)
            found[str(groups)] = costs
            print(f"{groups} groups: {costs}", flush=True)
    return found


@contextlib.contextmanager
def _world(folder: Path) -> Iterator[World]:
    world = World(folder)
    try:
        yield world
    finally:
        world.close()


def _cost(world: World, action: Any) -> dict[str, int]:
    world.server.requests.clear()
    action()
    paths = [world.operator.folder / path for path, _ in world.server.requests]
    return {"requests": len(paths), "bytes": sum(path.stat().st_size for path in paths if path.is_file())}


def server_rate(seconds: float = 3.0) -> dict[str, float]:
    """Requests per second for a small file that Python's own server answers, each on a new connection."""
    with tempfile.TemporaryDirectory() as folder, _world(Path(folder)) as world:
        counts: list[int] = []

        def ask() -> None:
            until_s, done = time.monotonic() + seconds, 0
            while time.monotonic() < until_s:
                connection = http.client.HTTPConnection("127.0.0.1", world.server.server_port)
                connection.request("GET", "/metadata/timestamp.json")
                connection.getresponse().read()
                connection.close()
                done += 1
            counts.append(done)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {"requests_hz": sum(counts) / seconds}


def reports_cost() -> dict[str, Any]:
    """CPU seconds to read report files in memory and to add them up, by number, and how many a folder on
    disk takes per second."""
    found: dict[str, Any] = {"read_s": {}}
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        written = 0
        for count in REPORT_COUNTS:
            for number in range(written, count):
                report = _report(number, rng)
                data = json.dumps(asdict(report), indent=1).encode()
                (folder / report.file).write_bytes(data)
            written = count
            begin_s = time.process_time()
            summary = read_reports(folder).of(GROUP, "stable", 12)
            found["read_s"][count] = time.process_time() - begin_s
            assert summary.good + summary.bad == count
            print(f"{count} reports of {len(data)} bytes: {found['read_s'][count]:.2f} s", flush=True)
        found |= {"bytes": len(data), "limit": MAX_REPORTS}
        (folder / "one_more.json").touch()
        try:
            read_reports(folder)
        except UpdateError as error:
            found["refused"] = str(error).replace(name, "FOLDER")
    with tempfile.TemporaryDirectory() as name:
        sender, begin_s = ReportSender(name), time.perf_counter()
        for number in range(50):
            report = _report(number, rng)
            sender._write(report.file, json.dumps(asdict(report), indent=1).encode())
        found["writes_hz"] = 50 / (time.perf_counter() - begin_s)
    return found


def _report(number: int, rng: random.Random) -> RobotReport:
    bad = rng.random() < 0.02
    text = "rolled back yard 2.0.0 (release 12) to the factory model: blind: 0.00 detections per frame"
    return new_report(
        f"{rng.getrandbits(128):032x}",
        "/front",
        text if bad else "committed yard 2.0.0 (release 12)",
        group=GROUP,
        channel="stable",
        serving="factory" if bad else "yard 2.0.0 (release 12)",
        release=12,
        outcome="rolled_back" if bad else GOOD,
    )
