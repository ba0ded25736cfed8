"""The package's own papers agree with its code and with each other."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

import edge_vision
from edge_vision.nodes import cli
from edge_vision.nodes.interface.specs import DIAGNOSTICS, NODES

REPO = Path(__file__).resolve().parents[2]
MANIFEST = ET.parse(REPO / "package.xml").getroot()
CONFIG = REPO / "config"
# rosdep's name for a package of Python where it is another than the import's.
ROSDEP = {
    "cv2": "python3-opencv",
    "yaml": "python3-yaml",
    "numpy": "python3-numpy",
    "psutil": "python3-psutil",
}


_SPY = """
import json, setuptools
setuptools.setup = lambda **given: print("SETUP " + json.dumps(given))
exec(compile(open("setup.py").read(), "setup.py", "exec"), {"__name__": "__main__"})
"""


def setup_arguments() -> dict[str, Any]:
    """What setup.py gives to setuptools. In a process of its own: setuptools wants to be imported first."""
    done = subprocess.run([sys.executable, "-c", _SPY], cwd=REPO, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("SETUP "))
    given: dict[str, Any] = json.loads(line.removeprefix("SETUP "))
    return given


def test_one_version_everywhere() -> None:
    version = edge_vision.__version__
    assert MANIFEST.findtext("version") == version
    assert setup_arguments()["version"] == version
    assert f"## {version}" in (REPO / "CHANGELOG.md").read_text()


def test_every_import_of_the_nodes_is_a_dependency() -> None:
    roots = {
        node.module.split(".")[0]
        for file in (REPO / "edge_vision").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    named = {element.text for element in MANIFEST.iter("exec_depend")}
    wanted = {ROSDEP.get(root, root) for root in roots if root.endswith(("_msgs", "_srvs", "_interfaces"))}
    wanted |= {"rclpy", "launch", "launch_ros", "cv_bridge", *ROSDEP.values()}
    assert wanted <= named


def test_the_executables_are_those_of_the_cli() -> None:
    scripts = setup_arguments()["entry_points"]["console_scripts"]
    assert {script.split(" = ")[0] for script in scripts} == set(cli.EXECUTABLES)
    for script in scripts:
        name, target = script.split(" = ")
        assert target == f"edge_vision.nodes.cli:{name}"
        assert callable(getattr(cli, name))


def test_what_is_installed_to_share_is_there() -> None:
    files = dict(setup_arguments()["data_files"])
    assert files["share/ament_index/resource_index/packages"] == ["resource/edge_vision"]
    assert files["share/edge_vision"] == ["package.xml"]
    assert set(files["share/edge_vision/launch"]) == {"launch/pipeline.launch.py"}
    assert {"config/pipeline.yaml", "config/fastdds.xml"} <= set(files["share/edge_vision/config"])
    assert all((REPO / file).is_file() for group in files.values() for file in group)


def test_ros_finds_the_executables_in_lib() -> None:
    assert "install_scripts=$base/lib/edge_vision" in (REPO / "setup.cfg").read_text()


def test_every_package_of_the_source_is_installed() -> None:
    folders = {file.parent.relative_to(REPO) for file in (REPO / "edge_vision").rglob("*.py")}
    assert set(setup_arguments()["packages"]) == {".".join(folder.parts) for folder in folders}


def test_colcon_builds_only_this_package() -> None:
    others = [path.parent for path in REPO.glob("*/**/package.xml") if ".venv" not in path.parts]
    assert all((REPO / folder.relative_to(REPO).parts[0] / "COLCON_IGNORE").exists() for folder in others)


def test_pipeline_yaml_holds_every_parameter_at_its_default() -> None:
    """An empty list has no type in ROS, and so stands there as a comment."""
    document = yaml.safe_load((CONFIG / "pipeline.yaml").read_text())
    for node in NODES:
        values = document[f"/**/{node.name}"]["ros__parameters"]
        assert values == {param.name: param.default for param in node.params if param.default != []}
    assert set(document) == {f"/**/{node.name}" for node in NODES}


def test_the_fast_dds_profile_is_the_default_one_and_has_all_its_transports() -> None:
    space = {"d": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
    root = ET.parse(CONFIG / "fastdds.xml").getroot()
    defined = {e.text for e in root.findall(".//d:transport_descriptor/d:transport_id", space)}
    used = {e.text for e in root.findall(".//d:userTransports/d:transport_id", space)}
    assert defined == used
    participant = root.find(".//d:participant", space)
    assert participant is not None
    assert participant.get("is_default_profile") == "true"


PARTS = [
    *next(p.default for p in DIAGNOSTICS.params if p.name == "watched_nodes"),
    "process 12",
    "system",
    "output",
]


@pytest.mark.parametrize("namespace", ["", "robot/", "a/b/"])
@pytest.mark.parametrize("part", PARTS)
def test_the_aggregator_sorts_our_statuses(namespace: str, part: str) -> None:
    document = yaml.safe_load((CONFIG / "diagnostic_aggregator.yaml").read_text())
    analyzers = document["/**/analyzers"]["ros__parameters"]["edge_vision"]["analyzers"]
    patterns = [pattern for analyzer in analyzers.values() for pattern in analyzer["regex"]]
    # The aggregator matches the whole name.
    assert sum(bool(re.fullmatch(pattern, namespace + part)) for pattern in patterns) == 1
