"""The layout of the package: which room may import which, and that each public class name is unique."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "edge_vision"
FILES = sorted(PACKAGE.rglob("*.py"))
# From the ground up: a room imports only rooms that stand before it in this list.
ROOMS = (
    "errors",
    "core",
    "bundles",
    "backends",
    "tracking",
    "detect",
    "source",
    "gate",
    "cascade",
    "diagnostics",
    "nodes",
    "importer",
    "model_zoo",
    "optimize",
    "evaluate",
    "cli",
)
CORE_MAY_IMPORT = {"numpy", "cv2", "edge_vision"}
ROS_PACKAGES = {"rclpy", "rosidl_runtime_py", "ament_index_python", "cv_bridge", "launch", "launch_ros"}
RUNTIME_ROOMS = ROOMS[: ROOMS.index("nodes") + 1]
MAX_RUNTIME_LINES = 20_000


def module_of(file: Path) -> str:
    """The module's name below the package, "" for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in FILES}


def imported(file: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full name"
            module = node.module or ""
            below = module.removeprefix("edge_vision").lstrip(".")
            for alias in node.names:
                inner = f"{below}.{alias.name}".lstrip(".")
                ours = module.split(".")[0] == "edge_vision" and inner in MODULES
                yield f"edge_vision.{inner}" if ours else module


def own_imports(file: Path) -> set[str]:
    """The modules of this package that a file imports, as keys of MODULES, without the package itself."""
    names = (name.removeprefix("edge_vision.") for name in imported(file) if name.startswith("edge_vision."))
    return {name for name in names if name in MODULES}


def is_ros(module: str) -> bool:
    root = module.split(".")[0]
    return root.endswith(("_msgs", "_srvs", "_interfaces")) or root in ROS_PACKAGES


def test_every_folder_and_file_is_a_room_with_a_place() -> None:
    assert {module.split(".")[0] for module in MODULES} - {"", "__main__"} == set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_below_it(file: Path) -> None:
    room = module_of(file).split(".")[0]
    if file.name == "__main__.py":
        room = "cli"  # An entry point, wherever it stands.
    if room == "":
        assert not own_imports(file), (
            "the package itself imports nothing, so that each part costs only itself"
        )
        return
    upward = {name for name in own_imports(file) if ROOMS.index(name.split(".")[0]) > ROOMS.index(room)}
    assert not upward, f"{file.name} imports {sorted(upward)}, which stand above {room}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: own_imports(file) - {name} for name, file in MODULES.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_nodes_import_ros(file: Path) -> None:
    ros = {module for module in imported(file) if is_ros(module)}
    assert not ros or file.relative_to(PACKAGE).parts[0] == "nodes", f"{file.name} imports {sorted(ros)}"


def test_the_core_needs_numpy_and_opencv_alone() -> None:
    for file in sorted((PACKAGE / "core").rglob("*.py")):
        roots = {module.split(".")[0] for module in imported(file)} - sys.stdlib_module_names
        assert roots <= CORE_MAY_IMPORT, file.name


def test_public_class_names_are_unique() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, file in MODULES.items():
        for node in ast.parse(file.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_runtime_stays_small() -> None:
    lines = sum(
        len(file.read_text("utf-8").splitlines())
        for name, file in MODULES.items()
        if name.split(".")[0] in RUNTIME_ROOMS
    )
    assert lines <= MAX_RUNTIME_LINES


def test_modules_that_must_work_without_ros_load_none_of_it() -> None:
    code = (
        "import sys\n"
        "import edge_vision.nodes.interface.reference, edge_vision.nodes.cli, edge_vision.detect.detector\n"
        "import edge_vision.backends, edge_vision.bundles, edge_vision.cli.main\n"
        "heavy = {'rclpy', 'onnxruntime', 'openvino', 'onnx', 'vision_msgs'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
