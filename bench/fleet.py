#!/usr/bin/env python3
"""Simulates a fleet of robots: `make bench-fleet`. Writes out/bench/fleet.json, and a picture with --picture.

Time is simulated, the parts are real: a signed repository and its client behind an HTTP server, the hash that
decides a robot's stage, report files and what reads them, the decision of the audit, and a page of metrics.

Robots check at an interval from a random phase; a tenth of them is switched off for half of each day. They
install a release at the first check at which their stage includes them, and report its outcome after the
download and 2 to 10 minutes of probation. The operator's timer reads the reports every five minutes, and
halts a release as `updates halt --reports` does. Stages: 1 % at 0 h, 10 % after 24 h, 100 % after 48 h.

check_requests, check_kb   of a check without a new release.
release_gb                 bytes of a release to all robots.
restart_checks_hz          most checks per second in the hours after all robots have started within a minute.
bad_installs               robots that install a release that a third of them rolls back, before it is halted.
read_reports_s             CPU time to read the reports of all robots, as the timer does.
false_alarms_per_day       robots that report a miss rate above the limit of 0.2, while it is 0.1 on all.
prometheus_mb              memory of a Prometheus server for the fleet; measured with --prometheus PROGRAM.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from parts.benchmark import finish, make_parser
from parts.common import REPO, Row, at_most

sys.path[:0] = [str(REPO / "test" / "unit")]

from update_cases import GROUP, World  # noqa: E402

from edge_vision.bundles.store import load_bundle  # noqa: E402
from edge_vision.core.confidence_intervals import anytime_exceeds  # noqa: E402
from edge_vision.errors import UpdateError  # noqa: E402
from edge_vision.gate.audit import EPOCH_FRAMES  # noqa: E402
from edge_vision.offline.provenance import machine, versions  # noqa: E402
from edge_vision.updates.release import Release  # noqa: E402
from edge_vision.updates.robot_report import (  # noqa: E402
    GOOD,
    HALTING_ROLLBACKS,
    MAX_REPORTS,
    ReportSender,
    RobotReport,
    RolloutSummary,
    check_share,
    new_report,
    read_reports,
)
from edge_vision.updates.transport import TransferLimits  # noqa: E402

MODEL = "ssdlite_mobilenet_v2_coco"
HOUR_S, DAY_S = 3600.0, 86_400.0
CHECK_S, TIMER_S = HOUR_S, 300.0
PROBATION_S = (120.0, 600.0)
STAGES = ((0.0, 1), (24 * HOUR_S, 10), (48 * HOUR_S, 100))
ALL_AT_ONCE = ((0.0, 100),)
MAX_BAD_PERCENT = 5.0
OFF_SHARE = 0.1
SEEDS = 20
REPORT_COUNTS = (1000, 10_000, 100_000)
MAX_MISS_RATE, AUDITS_HZ = 0.2, 0.1
"""audit_rate 0.01 of a camera at 10 Hz, while nearly all frames are skipped."""
RATES = (0.05, 0.1, 0.15, 0.2, 0.3)
READ_LIMIT_S = TIMER_S / 10
_EXAMPLES = """examples:
  python bench/fleet.py                                 two minutes
  python bench/fleet.py --robots 100000 --seed 7
  python bench/fleet.py --prometheus /usr/bin/prometheus    also its memory, four minutes more
  python bench/fleet.py --picture docs/images/fleet.png"""


def main() -> int:
    parser = make_parser("fleet", __doc__, _EXAMPLES)
    parser.add_argument("--robots", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prometheus", type=Path, help="the program, to measure its memory and CPU time")
    parser.add_argument("--picture", type=Path, help="draw the results to this file")
    options = parser.parse_args()
    from parts.fleet.prometheus import page_of_a_robot, prometheus_cost

    result: dict[str, Any] = {"machine": machine(), "versions": versions(), "robots": options.robots}
    result |= {"seed": options.seed, "repository": repository_cost(), "server": server_rate()}
    result["rollouts"] = rollouts(options.robots, options.seed)
    result["power_cut"] = power_cut(options.robots, options.seed)
    result["reports"] = reports_cost()
    result["audits"] = audits(options.robots, options.seed)
    page = page_of_a_robot()
    series = sum(not line.startswith(b"#") for line in page.splitlines())
    result["metrics"] = {"page_bytes": len(page), "series": series}
    if options.prometheus:
        result["metrics"] |= prometheus_cost(options.prometheus, page)
    if options.picture:
        from parts.fleet.picture import draw

        draw(result, options.picture)
    return finish(options, result, _rows(result))


# The repository.
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


# Rollouts.
@dataclass(frozen=True, slots=True)
class Rollout:
    """times_s: of each install, sorted. halted_s: None if it was not. bad: robots that rolled it back."""

    times_s: np.ndarray
    halted_s: float | None
    bad: int


def rollout(
    robots: int,
    seed: int,
    bad_share: float,
    stages: Sequence[tuple[float, int]],
    download_s: float,
    at_least: int = HALTING_ROLLBACKS,
) -> Rollout:
    """One release. bad_share: of the robots that roll it back. at_least: rollbacks that halt it."""
    rng = np.random.default_rng([seed, 7])
    phase_s = rng.uniform(0, CHECK_S, robots)
    opens_s = np.full(robots, np.inf)
    release = Release("yard", "2.0.0", "stable", seed, 0, "0.0.0", "", ("bundle.yaml",))
    for start_s, percent in reversed(stages):
        stage = replace(release, percent=percent)
        included = np.array([stage.includes(f"robot{number}") for number in range(robots)])
        opens_s[included] = start_s
    checks_s = phase_s + np.ceil(np.maximum(0.0, opens_s - phase_s) / CHECK_S) * CHECK_S
    # Switched off for half of a day, from a random hour on: the first check after that.
    off = rng.random(robots) < OFF_SHARE
    since_off_s = (checks_s - rng.uniform(0, DAY_S, robots)) % DAY_S
    checks_s = np.where(off & (since_off_s < DAY_S / 2), checks_s + DAY_S / 2 - since_off_s, checks_s)
    ends_s = checks_s + download_s + rng.uniform(*PROBATION_S, robots)
    is_bad = rng.random(robots) < bad_share
    halted_s = _halted_s(ends_s, is_bad, at_least)
    installs = checks_s <= (np.inf if halted_s is None else halted_s)
    return Rollout(np.sort(checks_s[installs]), halted_s, int(is_bad[installs].sum()))


def _halted_s(ends_s: np.ndarray, is_bad: np.ndarray, at_least: int) -> float | None:
    """When the operator's timer first finds too many rollbacks, and so many, among the reports."""
    order = np.argsort(ends_s)
    ends_s, bad = ends_s[order], np.cumsum(is_bad[order])
    for tick_s in np.arange(TIMER_S, ends_s[-1] + TIMER_S, TIMER_S):
        done = int(np.searchsorted(ends_s, tick_s, "right"))
        if done:
            outcomes = {GOOD: done - int(bad[done - 1]), "rolled_back": int(bad[done - 1])}
            if RolloutSummary(outcomes, {}).exceeds(MAX_BAD_PERCENT, at_least):
                return float(tick_s)
    return None


def rollouts(robots: int, seed: int) -> dict[str, Any]:
    """Medians over SEEDS releases; curve: of a good one."""
    size = sum(path.stat().st_size for path in load_bundle(MODEL).folder.iterdir())
    download_s = size / TransferLimits().max_bytes_per_s
    found: dict[str, Any] = {"release_bytes": size}
    good = rollout(robots, seed, 0.0, STAGES, download_s)
    found["curve_h"] = [float(np.quantile(good.times_s, share)) / HOUR_S for share in np.linspace(0, 1, 1001)]
    found["all_h"] = float(good.times_s[-1]) / HOUR_S
    least = HALTING_ROLLBACKS
    for name, stages, at_least in (
        ("stages", STAGES, least),
        ("at_once", ALL_AT_ONCE, least),
        ("stages_first", STAGES, 1),
    ):
        found[name] = {}
        for bad_share in (0.01, 0.06, 0.1, 0.33, 1.0):
            runs = [rollout(robots, seed + n, bad_share, stages, download_s, at_least) for n in range(SEEDS)]
            halted = [one for one in runs if one.halted_s is not None]
            found[name][str(bad_share)] = {
                "halted": len(halted) / SEEDS,
                "halted_h": median([one.halted_s / HOUR_S for one in halted]) if halted else None,  # type: ignore[operator]
                "installs": median(len(one.times_s) for one in runs),
                "bad": median(one.bad for one in runs),
            }
            print(f"{name}, {bad_share:.0%} roll back: {found[name][str(bad_share)]}", flush=True)
    return found


def power_cut(robots: int, seed: int) -> dict[str, list[int]]:
    """The most checks within a second in each hour after all robots have started within a minute: as they are
    spread by their id, and with a fixed period."""
    starts_s = np.random.default_rng([seed, 13]).uniform(0, 60, robots)
    shares = np.array([check_share(f"robot{number}") for number in range(robots)])
    found = {}
    for name, second_s in (("spread", shares * CHECK_S), ("fixed", np.full(robots, CHECK_S))):
        checks_s = [starts_s, *(starts_s + second_s + n * CHECK_S for n in range(5))]
        per_second = np.bincount(np.concatenate(checks_s).astype(int), minlength=5 * int(CHECK_S))
        hours = per_second[60 : 60 + 4 * int(CHECK_S)].reshape(4, -1)
        found[name] = [int(per_second[:60].max()), *hours.max(axis=1).tolist()]
    print(f"after a power cut: {found}", flush=True)
    return found


# Reports.
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


# Audits.
def audits(robots: int, seed: int) -> dict[str, Any]:
    """Share of epochs in which a robot reports a miss rate above the limit, by its true rate; alarms a day;
    and the frames until a rise from 0.05 to 0.1 is certain, on one robot and pooled over a stage of 1 %."""
    rng = np.random.default_rng([seed, 11])
    least = _least_missed(EPOCH_FRAMES, MAX_MISS_RATE)
    found: dict[str, Any] = {"opens": {}, "alarms_per_day": {}}
    epochs_per_day = DAY_S * AUDITS_HZ / EPOCH_FRAMES
    for rate in RATES:
        missed = np.cumsum(rng.random((robots, EPOCH_FRAMES), np.float32) < rate, axis=1)
        share = float((missed >= least).any(axis=1).mean())
        found["opens"][rate] = share
        found["alarms_per_day"][rate] = share * robots * epochs_per_day
    frames = 20_000
    above = _least_missed(frames, 0.075)
    paths = np.cumsum(rng.random((200, frames), np.float32) < 0.1, axis=1) >= above
    certain = float(np.median(np.where(paths.any(axis=1), paths.argmax(axis=1), frames)))
    found["rise_frames"] = certain
    found["rise_h_one"] = certain / AUDITS_HZ / HOUR_S
    found["rise_s_pooled"] = certain / AUDITS_HZ / (robots / 100)
    print(f"audits: {found}", flush=True)
    return found


def _least_missed(frames: int, rate: float) -> np.ndarray:
    """(frames,) the least number of misses at which the audit's bound exceeds a rate, after each frame."""
    least, missed = np.zeros(frames, np.int64), 0
    for n in range(1, frames + 1):
        while missed <= n and not anytime_exceeds(missed, n, rate):
            missed += 1
        least[n - 1] = missed
    return least


def _rows(result: dict[str, Any]) -> list[Row]:
    robots, check = result["robots"], result["repository"]["1"]["check"]
    read_s = max(seconds for count, seconds in result["reports"]["read_s"].items() if count <= robots)
    metrics, staged = result["metrics"], result["rollouts"]["stages"]["0.33"]
    return [
        Row("check_requests", check["requests"], ""),
        Row("check_kb", check["bytes"] / 1e3, "kB"),
        Row("checks_hz", robots / CHECK_S * check["requests"], "requests/s"),
        Row("restart_checks_hz", max(result["power_cut"]["spread"][1:]), "checks/s", note="an hour after it"),
        Row("server_hz", result["server"]["requests_hz"], "requests/s", note="Python's own server, one host"),
        Row("release_gb", robots * result["repository"]["1"]["install"]["bytes"] / 1e9, "GB"),
        Row("bad_installs", staged["installs"], "robots", note=f"at once: {_at_once(result):.0f}"),
        at_most("read_reports_s", read_s, READ_LIMIT_S, "s"),
        Row(
            "report_writes_hz",
            result["reports"]["writes_hz"],
            "files/s",
            note=f"{robots / CHECK_S:.1f} needed",
        ),
        Row("false_alarms_per_day", result["audits"]["alarms_per_day"][0.1], "robots"),
        Row("series", robots * metrics["series"], ""),
        Row("prometheus_mb", metrics.get("mb_per_target", 0) * robots or None, "MB"),
        Row("stage_percent", _stage_percent(robots), "%", note="of the robots, in a stage of 10 %"),
    ]


def _at_once(result: dict[str, Any]) -> float:
    return float(result["rollouts"]["at_once"]["0.33"]["installs"])


def _stage_percent(robots: int) -> float:
    release = Release("yard", "2.0.0", "stable", 12, 0, "0.0.0", "", ("bundle.yaml",), 10)
    return 100 * sum(release.includes(f"robot{number}") for number in range(robots)) / robots


if __name__ == "__main__":
    sys.exit(main())
