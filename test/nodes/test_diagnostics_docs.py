"""docs/status_keys.md has the keys that are published, all of them, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from ros_cases import ALL, DiagnosticArray, DiagnosticsNode, Image, image_message, picture
from sysfs_cases import plant

from edge_vision.nodes.interface.specs import DIAGNOSTICS
from edge_vision.nodes.interface.status_messages import status_values

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "status_keys.md").read_text("utf-8")
STAGES = ("gate", "cascade", "detector")
# What stands for a part of a key in the document.
PLACES = {"NAME": r"[\w.@-]+", "REASON": r"\w+", "FATE": r"\w+", "N": r"\d+"}


def documented(status):
    """{key with places: what the row says} of the sections that a status belongs to."""
    node = status in (*STAGES, "source")
    sections = ["every-node"] * node + ["stages"] * (status in STAGES) + [status]
    keys = {}
    for section in sections:
        heading = section.replace("-", " ").capitalize()
        body = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
        assert body is not None, f"no section {heading}"
        for row in re.findall(r"^\| (`.*) \|$", body[1], flags=re.MULTILINE):
            first, *_, last = row.split(" | ")
            keys.update(dict.fromkeys(re.findall(r"`([^`]+)`", first), last.lstrip("| ")))
    return keys


def pattern(key):
    return re.compile(re.sub(r"NAME|REASON|FATE|N\b", lambda place: PLACES[place[0]], re.escape(key)))


def test_the_keys_in_the_document_are_those_published(start, robot, tmp_path, monkeypatch):
    monkeypatch.setattr(DiagnosticsNode, "sensor_root", plant(tmp_path, "jetson_orin_nano"))
    running = start(ALL)
    heard = robot.listen(DiagnosticArray, "/diagnostics")
    camera = robot.publisher(Image, "image_raw")
    camera.publish(image_message(picture(1), 10**9))
    running.settled(1)
    published: dict[str, set[str]] = {}

    def complete():
        while heard:
            # A frame that fails has a reason in the ledger.
            camera.publish(image_message(picture(1), 10**9))
            for status in heard.pop(0).status:
                name = status.name.split()[0]
                published.setdefault(name, set()).update(status_values(status))
        return "ledger.failed.stamp_repeated" in published.get(
            "detector", ()
        ) and "energy_j" in published.get("system", ())

    robot.wait(complete, "all statuses")
    assert set(published) == {"source", *STAGES, "process", "system", "output"}
    for status, keys in published.items():
        patterns = {key: pattern(key) for key in documented(status)}
        missing = [key for key in keys if not any(one.fullmatch(key) for one in patterns.values())]
        assert missing == [], f"{status}: not in docs/status_keys.md"
        always = [key for key, says in documented(status).items() if not says.startswith("Only")]
        assert [key for key in always if not any(patterns[key].fullmatch(k) for k in keys)] == [], (
            f"{status}: in docs/status_keys.md, but not published"
        )


def test_every_limit_of_the_node_is_in_the_document():
    limits = [
        param.name for param in DIAGNOSTICS.params if param.name.startswith("max_") or "stale" in param.name
    ]
    assert len(limits) >= 8
    assert [name for name in limits if f"`{name}`" not in TEXT] == []
