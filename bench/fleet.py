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

import sys
from pathlib import Path
from typing import Any

from parts.benchmark import finish, make_parser
from parts.common import REPO, Row, at_most

sys.path[:0] = [str(REPO / "test" / "unit")]

from parts.fleet.audits import audits  # noqa: E402
from parts.fleet.costs import reports_cost, repository_cost, server_rate  # noqa: E402
from parts.fleet.rollouts import CHECK_S, TIMER_S, power_cut, rollouts  # noqa: E402

from edge_vision.offline.provenance import machine, versions  # noqa: E402
from edge_vision.updates.release import Release  # noqa: E402

READ_LIMIT_S = TIMER_S / 10
_EXAMPLES = """examples:
  python bench/fleet.py                                 two minutes
  python bench/fleet.py --robots 100000 --seed 7
  python bench/fleet.py --prometheus /usr/bin/prometheus    also its memory, four minutes more
  python bench/fleet.py --prometheus /usr/bin/prometheus --picture docs/images/fleet.png"""


def main() -> int:
    parser = make_parser("fleet", __doc__, _EXAMPLES)
    parser.add_argument("--robots", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prometheus", type=Path, help="the program, to measure its memory and CPU time")
    parser.add_argument("--picture", type=Path, help="draw the results to this file; with --prometheus")
    options = parser.parse_args()
    if options.picture and not options.prometheus:
        parser.error("--picture shows the memory of Prometheus: expected --prometheus PROGRAM too")
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


def _rows(result: dict[str, Any]) -> list[Row]:
    robots, check = result["robots"], result["repository"]["1"]["check"]
    read_s = max((s for count, s in result["reports"]["read_s"].items() if count <= robots), default=None)
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
