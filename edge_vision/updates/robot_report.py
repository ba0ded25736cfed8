"""What robots report about a rollout: one small JSON file each, in a folder or by HTTP PUT.

Reports are not signed. Who can write them can halt a rollout and hide that one goes wrong, but never bring a
file to a robot.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import socket
import stat
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.bundles import schema
from edge_vision.core.redaction import redact_text
from edge_vision.errors import BundleError, UpdateError
from edge_vision.updates.release import TIME_FORMAT

DEADLINE_S = 30.0
MAX_REPORT_BYTES = 16_384
MAX_REPORTS = 100_000
MAX_TEXT = 500
GOOD, BAD = "committed", ("rolled_back", "fell_back", "rejected", "refused")
HALTING_ROLLBACKS = 3
"""`halt` acts from here on: of a few reports, one is a large share, and a good release has one by chance."""
OPEN = ("", "downloaded", "compares", "agrees", "promoted", "withdrawn")
_ROBOT, _DETECTOR = r"[A-Za-z0-9_-]{1,64}", r"(/[A-Za-z0-9_]{1,64}){0,4}"


def resolve_robot_id(robot: str) -> str:
    """The id of this robot: as given, or derived from that of the machine. Raises UpdateError."""
    if not robot:
        with contextlib.suppress(OSError):
            machine = Path("/etc/machine-id").read_bytes().strip()
            # The machine's id is a secret: man 5 machine-id.
            robot = hmac.new(machine, b"edge_vision", hashlib.sha256).hexdigest()[:32] if machine else ""
    robot = robot or re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:64]
    if not re.fullmatch(_ROBOT, robot):
        raise UpdateError(
            "config", f"robot_id: expected 1 to 64 of a-z, A-Z, 0-9, _ and -, got {robot!r:.80}"
        )
    return robot


def check_share(robot: str) -> float:
    """The share of the check interval, 0..1, that passes between the first check and the second one.

    It follows from the robot's id, so that robots which start together, after a power cut for example, do not
    check together any more.
    """
    return int.from_bytes(hashlib.sha256(f"check {robot}".encode()).digest()[:8], "big") / 2**64


@dataclass(frozen=True, slots=True)
class RobotReport:
    """Of one detector. detector: its namespace, "" for none. release: the number of the last one that
    `outcome`, a name of GOOD, BAD or OPEN, and `text` are about. at: by the robot's clock."""

    robot: str
    detector: str
    group: str
    channel: str
    serving: str
    release: int
    outcome: str
    text: str
    at: str = ""

    @property
    def file(self) -> str:
        """The name of its file."""
        return f"{self.robot}{self.detector.replace('/', '.')}.json"


class ReportSender:
    """Writes reports to a folder or an http(s) URL, in a thread: the newest one, one at a time.

    problem: of the last one, "" if it arrived. The next report is the next attempt.
    """

    def __init__(self, target: str, deadline_s: float = DEADLINE_S) -> None:
        scheme = urlsplit(target).scheme
        if not (scheme in ("http", "https") or Path(target).expanduser().is_absolute()):
            raise UpdateError(
                "config",
                f"report_to: expected a folder, or an http or https URL, got {redact_text(target)!r:.200}",
            )
        self._target, self._deadline_s, self._is_url = target, deadline_s, bool(scheme)
        self.problem = ""
        self._lock = threading.Lock()
        self._next: RobotReport | None = None
        self._busy = False

    def send(self, report: RobotReport) -> None:
        """Send a report in place of one that waits. Returns at once."""
        with self._lock:
            self._next = report
            if not self._busy:
                self._busy = True
                threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                report, self._next = self._next, None
                if report is None:
                    self._busy = False
                    return
            try:
                data = json.dumps(asdict(report), indent=1).encode()
                self._put(report.file, data) if self._is_url else self._write(report.file, data)
                self.problem = ""
            except (OSError, ValueError) as error:
                cause = getattr(error, "reason", None) or error
                self.problem = f"{redact_text(self._target)}: expected to write the report, got: {cause}"[
                    :300
                ]

    def _write(self, name: str, data: bytes) -> None:
        folder = Path(self._target).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / name, data)

    def _put(self, name: str, data: bytes) -> None:
        import http.client
        import urllib.request

        from edge_vision.updates.connection_watchdog import ConnectionWatchdog

        url = f"{self._target.rstrip('/')}/{quote(name)}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="PUT")
        watchdog = ConnectionWatchdog(self._deadline_s)
        try:
            watchdog.opener().open(request, timeout=self._deadline_s).close()
        except http.client.HTTPException as error:
            raise ValueError(f"no HTTP: {type(error).__name__}") from None
        finally:
            watchdog.close()


def new_report(robot: str, namespace: str, text: str, **values: Any) -> RobotReport:
    """A report of now. namespace: as of a node, / for none."""
    at = time.strftime(TIME_FORMAT, time.gmtime())
    return RobotReport(robot, namespace.rstrip("/"), text=text[:MAX_TEXT], at=at, **values)


def parse_report(data: bytes) -> RobotReport:
    """A report from outside. Raises BundleError, ValueError."""
    section = schema.Section(json.loads(data), "report", "", tuple(RobotReport.__dataclass_fields__))
    name = schema.matching(r"[a-z0-9_/-]{1,160}")
    short = schema.matching(rf"(?s).{{0,{MAX_TEXT}}}")
    return RobotReport(
        robot=section.take("robot", schema.matching(_ROBOT), "the id of a robot"),
        detector=section.take("detector", schema.matching(_DETECTOR), "a namespace"),
        group=section.take("group", name, "a group"),
        channel=section.take("channel", name, "a channel"),
        serving=section.take("serving", short, "a text"),
        release=section.take("release", schema.integer(0, 2**53), "a whole number"),
        outcome=section.take("outcome", schema.one_of(GOOD, *BAD, *OPEN), "an outcome"),
        text=section.take("text", short, "a text"),
        at=section.take("at", short, "a time"),
    )


@dataclass(frozen=True, slots=True)
class Reports:
    """Those in a folder. invalid: file -> why."""

    valid: tuple[RobotReport, ...]
    invalid: Mapping[str, str]

    def of(self, group: str, channel: str, release: int) -> RolloutSummary:
        """Of one release."""
        return RolloutSummary.over(
            one for one in self.valid if (one.group, one.channel, one.release) == (group, channel, release)
        )


@dataclass(frozen=True, slots=True)
class RolloutSummary:
    """How often each outcome, and each text of a bad one."""

    outcomes: Mapping[str, int]
    reasons: Mapping[str, int]

    @classmethod
    def over(cls, reports: Iterable[RobotReport]) -> RolloutSummary:
        """Of reports about one release."""
        found = list(reports)
        bad = [one.text for one in found if one.outcome in BAD]
        return cls(Counter(one.outcome for one in found), dict(Counter(bad).most_common(5)))

    @property
    def good(self) -> int:
        return self.outcomes.get(GOOD, 0)

    @property
    def bad(self) -> int:
        return sum(self.outcomes.get(name, 0) for name in BAD)

    def exceeds(self, percent: float, at_least: int = 1) -> bool:
        """Whether more than this share of the robots that are through with the release went back, and at
        least so many."""
        return self.bad >= at_least and self.bad * 100 > percent * (self.bad + self.good)


def read_reports(folder: Path) -> Reports:
    """All reports in a folder. What is not one is listed, never followed. Raises UpdateError."""
    valid, invalid = [], {}
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError as error:
        raise UpdateError(
            "reports", f"{folder}: expected a folder of reports, got: {error.strerror}"
        ) from None
    if len(names) > MAX_REPORTS:
        raise UpdateError("reports", f"{folder}: expected at most {MAX_REPORTS} reports, got {len(names)}")
    for name in names:
        try:
            report = parse_report(_read_file(folder / name))
            if report.file != name:
                raise ValueError(f"expected the name {report.file}")
            valid.append(report)
        except (OSError, ValueError, RecursionError, BundleError) as error:
            invalid[name] = str(error) or type(error).__name__
    return Reports(tuple(valid), invalid)


def _read_file(path: Path) -> bytes:
    """A plain file, not a link, a pipe or a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("expected a plain file")
        data = os.read(descriptor, MAX_REPORT_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(data) > MAX_REPORT_BYTES:
        raise ValueError(f"expected at most {MAX_REPORT_BYTES} bytes")
    return data
