"""setup.py, package.xml, config/ and the installed files agree with the code and with each other."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
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
# Import name -> rosdep key, where they differ.
ROSDEP = {
    "cv2": "python3-opencv",
    "yaml": "python3-yaml",
    "numpy": "python3-numpy",
    "psutil": "python3-psutil",
    "onnxruntime": "python3-onnxruntime-pip",
}


_SPY = """
import json, setuptools
setuptools.setup = lambda **given: print("SETUP " + json.dumps(given))
exec(compile(open("setup.py").read(), "setup.py", "exec"), {"__name__": "__main__"})
"""


def setup_arguments(*argv: str) -> dict[str, Any]:
    """What `setup.py ARGV` passes to setuptools. In a child process: setuptools must be imported first."""
    command = [sys.executable, "-c", _SPY, *argv]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("SETUP "))
    given: dict[str, Any] = json.loads(line.removeprefix("SETUP "))
    return given


def test_one_version_everywhere() -> None:
    version = edge_vision.__version__
    assert MANIFEST.findtext("version") == version
    assert setup_arguments()["version"] == version
    assert f"## {version}" in (REPO / "CHANGELOG.md").read_text()


OPTIONAL = {"foxglove_msgs"}
"""Used only where it is installed: `tracks/annotations`."""


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
    assert wanted - OPTIONAL <= named


@pytest.mark.parametrize("command", ["install", "develop"])
def test_every_executable_is_a_script_for_ros2_run(command: str) -> None:
    scripts = setup_arguments(command)["entry_points"]["console_scripts"]
    targets = dict(script.split(" = ") for script in scripts)
    assert targets.pop("edge-vision") == "edge_vision.cli.main:main"
    assert targets == {name: f"edge_vision.nodes.cli:{name}" for name in cli.EXECUTABLES}
    assert all(callable(getattr(cli, name)) for name in targets)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what an installation needs: builds leave files beside setup.py."""
    for folder in ("config", "launch", "resource", "edge_vision"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPO / folder, tmp_path / "source" / folder, ignore=ignored)
    for file in ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "LICENSE"):
        shutil.copy(REPO / file, tmp_path / "source" / file)
    return tmp_path / "source"


def run_python(folder: Path, *arguments: str | Path) -> None:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pip_puts_only_edge_vision_on_the_path(source: Path, tmp_path: Path) -> None:
    if not all(importlib.util.find_spec(name) for name in ("pip", "setuptools", "wheel")):
        pytest.skip("pip, setuptools or wheel is not installed: nothing to build a wheel with")
    prefix = tmp_path / "prefix"
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--prefix", prefix)
    run_python(source, "-m", "pip", "install", *options, source)
    assert [file.name for file in (prefix / "bin").iterdir()] == ["edge-vision"]


def test_colcon_puts_every_executable_into_lib(source: Path, tmp_path: Path) -> None:
    """The command line of colcon's build task for Python packages."""
    prefix = tmp_path / "install"
    build = ("build", "--build-base", tmp_path / "build")
    install = ("install", "--prefix", prefix, "--record", tmp_path / "install.log")
    run_python(source, "setup.py", *build, *install, "--single-version-externally-managed")
    executables = [file for file in (prefix / "lib" / "edge_vision").iterdir() if os.access(file, os.X_OK)]
    assert {file.name for file in executables} == {"edge-vision", *cli.EXECUTABLES}
    assert not (prefix / "bin").exists()


def test_files_installed_to_share_exist() -> None:
    files = dict(setup_arguments()["data_files"])
    assert files["share/ament_index/resource_index/packages"] == ["resource/edge_vision"]
    assert files["share/edge_vision"] == ["package.xml"]
    assert set(files["share/edge_vision/launch"]) == {"launch/pipeline.launch.py"}
    assert {"config/pipeline.yaml", "config/fastdds.xml"} <= set(files["share/edge_vision/config"])
    assert all((REPO / file).is_file() for group in files.values() for file in group)


def test_scripts_are_installed_where_ros2_run_finds_them() -> None:
    assert "install_scripts=$base/lib/edge_vision" in (REPO / "setup.cfg").read_text()


def test_every_package_of_the_source_is_installed() -> None:
    folders = {file.parent.relative_to(REPO) for file in (REPO / "edge_vision").rglob("*.py")}
    maintainers = {"edge_vision.evaluate.sequences"}
    assert set(setup_arguments()["packages"]) == {".".join(folder.parts) for folder in folders} - maintainers


def test_colcon_builds_only_this_package() -> None:
    others = [path.parent for path in REPO.glob("*/**/package.xml") if ".venv" not in path.parts]
    assert all((REPO / folder.relative_to(REPO).parts[0] / "COLCON_IGNORE").exists() for folder in others)


def test_pipeline_yaml_has_every_parameter_at_its_default() -> None:
    """Except what is a comment: empty lists, which have no type in ROS, and what a preset sets."""
    document = yaml.safe_load((CONFIG / "pipeline.yaml").read_text())
    for node in NODES:
        values = document[f"/**/{node.name}"]["ros__parameters"]
        assert values == {
            param.name: param.default
            for param in node.params
            if param.default != [] and param.name not in node.preset_names
        }
    assert set(document) == {f"/**/{node.name}" for node in NODES}


def test_the_fast_dds_profile_is_the_default_and_uses_every_transport_that_it_defines() -> None:
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
    "recorder",
    "collector",
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
