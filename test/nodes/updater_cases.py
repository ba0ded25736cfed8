"""Shared by the tests of the updater: variants of a real model, settings, a camera, and what it has done."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from model_cases import SSD, bundle_or_skip, video_frame
from ros_cases import CHAIN, Image, image_message
from std_srvs.srv import Trigger
from update_cases import GROUP, World

from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.nodes import updater_node, updater_shadow
from edge_vision.nodes.updater_node import UpdaterNode
from edge_vision.updates import probation
from edge_vision.updates import shadow as comparison

KINDS = (*CHAIN, UpdaterNode)
STREET = 200


def hurry(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The updater keeps its state in this folder, and decides after few frames."""
    monkeypatch.setattr(updater_node, "cache_dir", lambda: cache)
    monkeypatch.setattr(updater_node, "TICK_S", 0.05)
    monkeypatch.setattr(updater_shadow, "PERIOD_S", 0.0)
    monkeypatch.setattr(comparison, "MAX_MISS_RATE", 0.3)  # 14 frames without a miss suffice, not 53.
    monkeypatch.setattr(probation, "PROBATION_S", 1.0)
    # The first report of the new model may count a frame of the present one.
    monkeypatch.setattr(probation, "MIN_FRAMES", 20)
    monkeypatch.setattr(probation, "JUDGED_FRAMES", 3)


def variant(folder: Path, version: str, *changes: tuple[str, str]) -> Bundle:
    """The SSD with another version and other lines in its manifest."""
    shutil.copytree(bundle_or_skip(SSD).folder, folder)
    manifest = folder / "bundle.yaml"
    text = manifest.read_text().replace("version: 1.0.0", f"version: {version}")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    manifest.write_text(text)
    return load_bundle(str(folder))


def overrides(world: World, **updater: Any) -> dict[str, dict[str, Any]]:
    settings = {"repository_url": world.url, "group": GROUP, "bootstrap_root": str(world.operator.root)}
    return {
        "gate": {"enabled": False},
        "cascade": {"enabled": False},
        "detector": {"model": SSD},
        "updater": {"auto": "off", **settings, **updater},
    }


def call(robot: Any, name: str) -> Trigger.Response:
    return robot.call(Trigger, f"updater/{name}", Trigger.Request())


class Camera:
    """Sends a street with people at up to 16 Hz, not faster than the detector takes it."""

    def __init__(self, robot: Any, running: Any) -> None:
        self.frames, self._stop = 0, threading.Event()
        self._publisher = robot.publisher(Image, "image_raw")
        self._image, self._running = video_frame("vtest.avi", STREET).image, running
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            self.frames += 1
            self._publisher.publish(image_message(self._image, self.frames * 10**8))
            while not self._stop.wait(0.06) and self._running.ledger["in_flight"]:
                pass

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def serving(robot: Any, version: str) -> None:
    robot.status("detector", lambda _, values: values["model"].endswith(version))


def events(slots: Path) -> list[str]:
    return [json.loads(line)["event"] for line in (slots / "history.jsonl").read_text().splitlines()]


def fetched(robot: Any, version: str) -> None:
    assert call(robot, "check").success
    robot.status("updater", lambda _, values: f" {version} " in values["candidate"])
