"""Our messages are upstream's: the same fields give the same RIHS01 hash, on disk and on the wire."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
from ros_cases import Robot
from type_hashes import HASHES

OURS = Path(__file__).parents[2] / "interfaces"


def description(name: str) -> dict:
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):
        path = Path(prefix) / "share" / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text())
    pytest.fail(f"no description of {name} is installed in {prefixes}")


def as_text(type_hash) -> str:
    """Jazzy's rclpy gives an object with version and value; others give the text itself."""
    value = getattr(type_hash, "value", None)
    return f"RIHS01_{bytes(value).hex()}" if value is not None else str(type_hash)


@pytest.mark.parametrize("name", HASHES)
def test_the_installed_description(name):
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description(name)["type_hashes"]}
    assert hashes[name] == f"RIHS01_{HASHES[name]}"
    for used, value in hashes.items():
        assert used not in HASHES or value == f"RIHS01_{HASHES[used]}"


def test_on_the_wire(robot, domain):
    other = Robot(domain)
    for name in HASHES:
        package, _, short = name.split("/")
        kind = getattr(import_module(f"{package}.msg"), short)
        robot.node.create_publisher(kind, f"/{name}", 1)
    for name, value in HASHES.items():
        found = other.wait(lambda name=name: other.node.get_publishers_info_by_topic(f"/{name}"), f"/{name}")
        assert as_text(found[0].topic_type_hash) == f"RIHS01_{value}"
        assert found[0].topic_type == name
    other.close()


def test_we_define_these_types_and_no_others():
    found = {f"{path.parents[1].name}/msg/{path.stem}" for path in OURS.glob("*/msg/*.msg")}
    assert found == set(HASHES)
