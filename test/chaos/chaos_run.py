"""One scenario: its processes, what a robot's node receives from them, and the checks."""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

TEST = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TEST.parent), *(str(TEST / name) for name in ("chaos", "", "unit", "e2e"))]

import pytest  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from executable_cases import Executable  # noqa: E402
from model_cases import DETECTOR, bundle_or_skip, clip_or_skip  # noqa: E402
from rcl_interfaces.msg import Log  # noqa: E402
from ros_cases import FATES, RELIABLE, ROSOUT, TIMEOUT_S, Robot, adds_up, stamp_of  # noqa: E402
from vision_msgs.msg import Detection2DArray  # noqa: E402

from edge_vision.bundles.store import cache_dir  # noqa: E402
from edge_vision.nodes.interface.status_messages import status_values  # noqa: E402

PROFILE = TEST.parent / "config" / "fastdds.xml"
NODES = ("source", "gate", "cascade", "detector", "diagnostics")
UNFINISHED = (".writing-*", ".building-*", ".fetching-*")
"""Names of temporary files in the cache."""
LEDGER_KEYS = ("received", "in_flight", *FATES, "handed_on")
STALE = 3
Send = Callable[[], None]
SEND_S = 0.1


class Abandoned(Exception):
    """A check failed, without which the scenario cannot continue."""


@dataclass(frozen=True)
class ChaosCheck:
    """expected, got: as text, for the report. at_s: since the start of the scenario."""

    name: str
    expected: str
    got: str
    ok: bool
    at_s: float

    def line(self) -> str:
        verdict = "ok  " if self.ok else "FAIL"
        return f"{self.at_s:6.1f} s  {verdict}  {self.name}: expected {self.expected}, got {self.got}"


class Received:
    """What a node outside the pipeline receives, and whether each ledger in it adds up."""

    def __init__(self, robot: Robot) -> None:
        self.values: dict[str, dict[str, str]] = {}
        """Node -> values of its last status."""
        self.reports: Counter[str] = Counter()
        self.ledgers = 0
        self.unbalanced: list[str] = []
        self.detections: list[int] = []
        """Stamp of each message in ns."""
        self.outputs: list[tuple[int, str]] = []
        """Level and sentence of each `output` status; the sentence begins with the cause."""
        self.watched: set[str] = set()
        """Nodes whose reports the diagnostics node receives."""
        self.log: list[tuple[str, str]] = []
        """Node and text of each line."""
        subscribe = robot.node.create_subscription
        for name in NODES:
            subscribe(
                DiagnosticArray, f"{name}/status", lambda m, name=name: self._on_status(name, m), RELIABLE
            )
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        subscribe(Detection2DArray, "detections", lambda m: self.detections.append(stamp_of(m)), RELIABLE)
        subscribe(Log, "/rosout", lambda line: self.log.append((line.name, line.msg)), ROSOUT)

    def _on_status(self, name: str, message: DiagnosticArray) -> None:
        values = status_values(message.status[0])
        self.values[name] = values
        self.reports[name] += 1
        counts = {key: int(values[f"ledger.{key}"]) for key in LEDGER_KEYS if f"ledger.{key}" in values}
        if counts:
            self.ledgers += 1
            if not adds_up(counts) or values["ledger.balanced"] != "True":
                self.unbalanced.append(f"{name}: {counts}")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "output":
                self.outputs.append((status.level[0], status.message))
        if len(message.status) > 1:  # A change of `output` is published alone.
            self.watched = {one.name for one in message.status if one.level[0] != STALE} & {*NODES}

    def count(self, key: str) -> int:
        """A count of the detector's ledger, which is that of all nodes."""
        return int(self.values.get("detector", {}).get(f"ledger.{key}", 0))

    def failures(self) -> dict[str, int]:
        """Failed frames by reason."""
        prefix = "ledger.failed."
        values = self.values.get("detector", {})
        return {key[len(prefix) :]: int(n) for key, n in values.items() if key.startswith(prefix)}


class ChaosRun:
    """Use it as a context manager: it ends all processes, and then checks what they have left behind.

    folder: for logs and temporary files. short: the form for `make test`. seconds: of the overload.
    """

    def __init__(self, folder: Path, domain: int, short: bool = False, seconds: float = 60.0) -> None:
        self.folder, self.short, self.seconds = folder, short, seconds
        self.checks: list[ChaosCheck] = []
        self.summary: dict[str, Any] = {}
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True)
        self._started: list[Executable] = []
        self._domain, self._started_s = domain, time.monotonic()

    @cached_property
    def robot(self) -> Robot:
        """A node outside the pipeline."""
        return Robot(self._domain)

    @cached_property
    def received(self) -> Received:
        return Received(self.robot)

    def __enter__(self) -> ChaosRun:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> bool:
        """Record an error of the scenario as a failed check. A skip and Ctrl-C go on."""
        failed = isinstance(error, (Exception, pytest.fail.Exception))
        if failed and not isinstance(error, Abandoned):
            self.check("the scenario runs to its end", "no exception", traceback.format_exc(), False)
        try:
            self._end()
        finally:
            if "robot" in vars(self):
                self.robot.close()
        return failed

    # Processes.
    def launch(
        self, name: str, *arguments: Any, kind: type[Executable] = Executable, **env: str
    ) -> Executable:
        """Start an executable. The detector runs on ONNX Runtime unless set."""
        _ = self.received  # From its first report on.
        if name in ("pipeline", "detector_node") and "--backend" not in arguments:
            arguments = ("--backend", "onnxruntime", *arguments)
        places = {"TMPDIR": str(self._temporary), "ROS_LOG_DIR": str(self.folder / "ros_log")}
        profile = {f"{vendor}_DEFAULT_PROFILES_FILE": str(PROFILE) for vendor in ("FASTRTPS", "FASTDDS")}
        started = kind(self.folder, name, *map(str, arguments), env={**places, **profile, **env})
        self._started.append(started)
        return started

    def end(self, *processes: Executable) -> None:
        """Stop processes in order, all at once."""
        for one in processes:
            one.process.send_signal(signal.SIGINT)
        statuses = {one.name: one.process.wait(TIMEOUT_S) for one in processes}
        self.check("exit status after SIGINT", str(dict.fromkeys(statuses, 0)), str(statuses))

    def _end(self) -> None:
        """End what runs, and check what is left."""
        for process in self._started:
            process.kill()
        orphans = {process.name: left for process in self._started if (left := process.members())}
        self.check("no process is left behind", "none", str(orphans or "none"))
        for pid in itertools.chain(*orphans.values()):
            os.kill(pid, signal.SIGKILL)
        traces = sorted({process.name for process in self._started if "Traceback" in process.output})
        self.check("no traceback in an output", "none", ", ".join(traces) or "none")
        left = [path.name for path in self._temporary.rglob("*")]
        left += [path.name for pattern in UNFINISHED for path in cache_dir().rglob(pattern)]
        self.check("no temporary file is left behind", "none", ", ".join(left) or "none")
        if "received" in vars(self):
            wrong, total = self.received.unbalanced, self.received.ledgers
            got = f"{len(wrong)} of {total}" + "".join(f"; {one}" for one in wrong[:3])
            self.check("ledgers out of balance", f"0 of {total}", got)
            self.summary["detections"] = len(self.received.detections)
            self.summary["reports"] = dict(self.received.reports)

    # Checks.
    def check(self, name: str, expected: str, got: str, ok: bool | None = None) -> None:
        """Record a check. ok: by default, whether both texts are equal."""
        at_s = round(time.monotonic() - self._started_s, 1)
        self.checks.append(ChaosCheck(name, expected, got, got == expected if ok is None else ok, at_s))
        print(f"  {self.checks[-1].line()}", flush=True)

    def wait(self, name: str, expected: str, happened: Callable[[], Any], send: Send | None = None) -> Any:
        """Wait for a true value, which is recorded, while calling `send` ten times per second. Raises
        Abandoned after a limit that is generous for a loaded machine."""
        due_s = 0.0

        def step() -> Any:
            nonlocal due_s
            if send and time.monotonic() >= due_s:
                due_s = time.monotonic() + SEND_S
                send()
            return happened()

        try:
            got = self.robot.wait(step, name)
        except pytest.fail.Exception as error:
            self.check(name, expected, f"{error}; last output: {self.received.outputs[-1:]}", False)
            raise Abandoned(name) from None
        self.check(name, expected, expected if got is True else str(got), True)
        return got

    def flow(self, when: str, send: Send | None = None, count: int = 3) -> None:
        """Wait for more detections."""
        before = len(self.received.detections)
        enough = f"{count} more messages"
        self.wait(
            f"{when}: detections", enough, lambda: len(self.received.detections) >= before + count, send
        )

    def output(self, when: str, expected: str, pattern: str, send: Send | None = None) -> None:
        """Wait for an `output` status, from now on, whose sentence has a match."""
        before = len(self.received.outputs)

        def found() -> str | None:
            new = (text for _, text in self.received.outputs[before:])
            return next((text for text in new if re.search(pattern, text)), None)

        self.wait(f"{when}: output", expected, found, send)

    def no_fault(self, when: str, send: Send | None = None) -> None:
        """Wait for an `output` status without a fault. An empty scene and a closed gate are none."""
        before = len(self.received.outputs)
        self.wait(
            f"{when}: output has no fault",
            "level OK",
            lambda: any(level == 0 for level, _ in self.received.outputs[before:]),
            send,
        )

    def reports(self, when: str, send: Send | None = None) -> None:
        """Wait for two more reports of the detector: the second one is about what came after this call."""
        before = self.received.reports["detector"]
        self.wait(f"{when}: reports", "2 more", lambda: self.received.reports["detector"] > before + 1, send)

    def report(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return {"checks": [asdict(check) for check in self.checks], "summary": self.summary}


def street_clip() -> str:
    """The path of the clip that all scenarios play. Skips without it, or without the model."""
    bundle_or_skip(DETECTOR)
    return clip_or_skip("vtest.avi")
