"""A whole updating robot in processes of its own, which is killed at random instants while frames flow.

The pipeline shows a clip; beside it runs the updater. The first release is committed. After each later start
the newest release is fetched and promoted, so that a kill meets a download, a trial, a promotion, a load or a
probation; a quarter of the kills meets the start. Each release brings a parameter.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from parts.common import REPO, spread
from rcl_interfaces.srv import GetParameters
from rclpy.node import Node
from slot_cases import check_complete
from std_srvs.srv import Trigger
from update_cases import GROUP, Operator, Server
from vision_msgs.msg import Detection2DArray

from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.nodes.interface import specs
from edge_vision.nodes.interface.live_parameters import parse_live_parameters
from edge_vision.nodes.interface.status_messages import status_values
from edge_vision.nodes.transport.qos import RESULTS, STATUS
from edge_vision.updates.release import PARAMETERS_FILE
from edge_vision.updates.slots import MAX_TRIES, SlotStore, bundle_path, read_state

MODEL, PARAMETER = "ssdlite_mobilenet_v2_coco", "max_detections"
LIMIT_S = 60.0
LONGEST_S = 12.0
EARLY_SHARE, EARLY_S = 0.25, 3.0
"""Share of the kills while the processes start, within this time."""
COMMIT_LIMIT_S = 150.0
SETTLED = ("inferred", "gated", "rejected", "superseded", "failed", "in_flight")


class RobotObserver(Node):
    """Notes when detections and which model's status arrive, and whether the frames add up."""

    def __init__(self) -> None:
        super().__init__("update_kills")
        self.first_s: float | None = None
        self.model, self.reports, self.unequal = "", 0, 0
        self.check = self.create_client(Trigger, "updater/check")
        self.promote = self.create_client(Trigger, "updater/promote")
        self._get = self.create_client(GetParameters, "detector/get_parameters")
        self._value: int | None = None
        self.create_subscription(Detection2DArray, "detections", self._on_detections, RESULTS)
        self.create_subscription(DiagnosticArray, "detector/status", self._on_status, STATUS)

    def begin(self) -> None:
        """Before a start of the robot."""
        self.first_s, self.model, self._value = None, "", None

    def has(self, value: int) -> bool:
        """Whether the detector's parameter had this value when it answered last; asks again."""
        if self._get.service_is_ready():
            self._get.call_async(GetParameters.Request(names=[PARAMETER])).add_done_callback(self._on_value)
        time.sleep(0.1)
        return self._value == value

    def _on_value(self, done: Any) -> None:
        self._value = done.result().values[0].integer_value

    def serves(self, sha256: str) -> bool:
        """Whether the last status is of this model."""
        return self.model == sha256

    def _on_detections(self, _: Detection2DArray) -> None:
        self.first_s = self.first_s or time.monotonic()

    def _on_status(self, message: DiagnosticArray) -> None:
        values = status_values(message.status[0])
        self.model = values.get("model_sha256", "")
        counts = {name: int(values.get(f"ledger.{name}", 0)) for name in ("received", *SETTLED)}
        self.reports += 1
        self.unequal += counts["received"] != sum(counts[name] for name in SETTLED)


class UpdatingRobot:
    """The processes. folder: of its cache and logs."""

    def __init__(self, folder: Path, operator: Operator, url: str) -> None:
        self.slots = folder / "updates" / "default"
        self._env = {**os.environ, "EDGE_VISION_CACHE": str(folder), "PYTHONPATH": str(REPO)}
        # Compiled modules are kept, as in an installation.
        self._env |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "pycache")}
        # As the launch file does.
        self._env["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(REPO / "config" / "fastdds.xml")
        self._log = (folder / "robot.log").open("w")
        self._begun_s, self._begun_at = 0.0, 0
        self._model, self._clip = str(cache_dir() / "bundles" / MODEL), cache_dir() / "video" / "vtest.avi"
        settings = {"repository_url": url, "group": GROUP, "bootstrap_root": operator.root, "auto": "off"}
        self._updater = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def serving_ms(self) -> float | None:
        """From the start until all nodes of the pipeline were active, with a model; None before."""
        text = Path(self._log.name).read_text("utf-8", "replace")[self._begun_at :]
        active = re.search(r"\[([\d.]+)\] \[source\]: active", text)
        return (float(active[1]) - self._begun_s) * 1e3 if active else None

    def start(self) -> None:
        self._begun_s, self._begun_at = time.time(), len(Path(self._log.name).read_text("utf-8", "replace"))
        gate = ["-p", "gate:enabled:=false", "-p", "cascade:enabled:=false"]
        self._start(
            "pipeline",
            "--model",
            self._model,
            "--backend",
            "onnxruntime",
            "--source",
            str(self._clip),
            "--loop",
            "--ros-args",
            *gate,
        )
        self._start("updater_node", "--ros-args", *self._updater)

    def _start(self, *words: str) -> None:
        command = [sys.executable, "-m", "edge_vision.nodes.cli", *words]
        self._processes.append(
            subprocess.Popen(
                command, env=self._env, stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True
            )
        )

    def kill(self) -> None:
        """Kill everything at once, as a power cut does."""
        for one in self._processes:
            os.killpg(one.pid, signal.SIGKILL)
        for one in self._processes:
            one.wait()
        self._processes.clear()

    @property
    def died(self) -> bool:
        return any(one.poll() is not None for one in self._processes)


def kill_system(kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """Commit a first release, then kill the robot this often. Returns the times after the later starts, and
    what was wrong."""
    chance, wrong, served = random.Random(seed), list[str](), Counter[str]()
    serving_ms, first_ms, slot_ms = [], [], []
    operator = Operator(folder / "operator")
    server = Server(operator.folder)
    rclpy.init()
    node, robot_folder = RobotObserver(), folder / "robot"
    robot_folder.mkdir()
    robot = UpdatingRobot(robot_folder, operator, server.url)
    spinning = threading.Thread(target=rclpy.spin, args=(node,), daemon=True)
    spinning.start()
    try:
        for kill in range(kills + 1):
            if kill % 2 == 0:
                parameters = f"/**/detector: {{ros__parameters: {{{PARAMETER}: {kill + 10}}}}}".encode()
                bundle = _variant(folder / f"bundle{kill}", f"{kill + 2}.0.0")
                operator.publish_bundle(bundle, parameters=parameters)
            expected, value = _expected(robot.slots)
            node.begin()
            start_s = time.monotonic()
            robot.start()
            if kill and chance.random() < EARLY_SHARE:
                time.sleep(chance.uniform(0.0, EARLY_S))
                problem = ""
                served["killed while it started"] += 1
            else:
                first_s = _wait(lambda: node.first_s, robot)
                problem = "" if first_s else "no detections after the start"
                if first_s and kill:  # The first start compiles modules and tries the graph.
                    first_ms.append((first_s - start_s) * 1e3)
                    serving_ms.append(robot.serving_ms)
                if expected and not problem:
                    _wait(partial(node.serves, expected), robot)
                    slot_ms.append((time.monotonic() - start_s) * 1e3)
                    problem = "" if node.serves(expected) else "the slot's model does not serve"
                if not problem and not _wait(partial(node.has, value), robot):
                    problem = f"the detector has {node._value} for {PARAMETER}, expected {value}"
                served[_kind(robot.slots)] += 1
                if kill:
                    _update(node, robot, chance.uniform(0.0, LONGEST_S))
                elif not problem:
                    problem = _commit(node, robot)
            problem = problem or ("a process ended by itself" if robot.died else "")
            robot.kill()
            problem = problem or _problem(robot.slots)
            print(f"kill {kill}: {problem or 'right'}, {dict(served)}", flush=True)
            wrong += [f"kill {kill}: {problem}"] if problem else []
    finally:
        robot.kill()
        server.close()
        rclpy.try_shutdown()
        spinning.join()
    return {
        "n": kills,
        "wrong": wrong,
        "served": dict(served),
        "reports": node.reports,
        "unequal_ledgers": node.unequal,
        "serving_ms": spread([one for one in serving_ms if one is not None]),
        "first_detections_ms": spread(first_ms),
        "slot_serves_ms": spread(slot_ms),
    }


def _variant(folder: Path, version: str) -> Any:
    """The model with another version."""
    shutil.copytree(cache_dir() / "bundles" / MODEL, folder)
    manifest = folder / "bundle.yaml"
    manifest.write_text(manifest.read_text().replace("version: 1.0.0", f"version: {version}"))
    return load_bundle(str(folder))


def _expected(slots: Path) -> tuple[str, int]:
    """What must serve after the next start: sha256 of the manifest, "" for the factory's; the parameter."""
    state = read_state(slots)
    if state.current and not state.current.proven and state.tries >= MAX_TRIES:
        state = state.without_current("")
    slot = state.current
    if slot is None:
        return "", specs.DETECTOR.param(PARAMETER).default
    folder = bundle_path(slots, slot)
    values = parse_live_parameters((folder / PARAMETERS_FILE).read_text(), PARAMETERS_FILE)
    return hashlib.sha256((folder / "bundle.yaml").read_bytes()).hexdigest(), values["detector"][PARAMETER]


def _kind(slots: Path) -> str:
    slot = read_state(slots).current
    return "factory" if slot is None else "proven" if slot.proven else "on trial"


def _commit(node: RobotObserver, robot: UpdatingRobot) -> str:
    """Let the first release pass its probation: from then on there is a proven slot to go back to."""
    until_s = time.monotonic() + COMMIT_LIMIT_S
    while _kind(robot.slots) == "factory" and time.monotonic() < until_s and not robot.died:
        _update(node, robot, 1.0)
    proven = _wait(lambda: _kind(robot.slots) == "proven", robot, COMMIT_LIMIT_S)
    return "" if proven else "the first release was not committed"


def _wait(happened: Any, robot: UpdatingRobot, limit_s: float = LIMIT_S) -> Any:
    until_s = time.monotonic() + limit_s
    while not (found := happened()) and time.monotonic() < until_s and not robot.died:
        time.sleep(0.01)
    return found


def _update(node: RobotObserver, robot: UpdatingRobot, for_s: float) -> None:
    """Check and promote again and again, as an impatient operator does."""
    until_s = time.monotonic() + for_s
    while time.monotonic() < until_s and not robot.died:
        for client in (node.check, node.promote):
            if client.service_is_ready():
                client.call_async(Trigger.Request())
        time.sleep(min(0.5, max(0.0, until_s - time.monotonic())))


def _problem(slots: Path) -> str:
    """What is wrong on disk after a kill, "" if nothing is."""
    if not slots.is_dir():
        return ""
    store = SlotStore(slots)
    try:
        for slot in store.state.slots.values():
            check_complete(store.bundle_path(slot))
        return store.note
    except AssertionError as error:
        return str(error) or "a bundle is not complete"
    finally:
        store.close()
