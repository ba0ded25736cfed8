"""The layout of the package: which room may import which, unique class names, short functions."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping

from source_tree import (
    FILES,
    MODULES,
    PACKAGE,
    REPO,
    functions,
    imported,
    is_ros,
    own_imports,
    public_classes,
    room_of,
)

from edge_vision.backends.registry import BACKENDS
from edge_vision.nodes.cli import EXECUTABLES

# From the ground up: a room imports only rooms before it in this list.
ROOMS = (
    "errors",
    "core",
    "bundles",
    "backends",
    "tracking",
    "localize",
    "detect",
    "source",
    "gate",
    "cascade",
    "diagnostics",
    "updates",
    "record",
    "web",
    "dataset",
    "nodes",
    "offline",
    "importer",
    "optimize",
    "model_zoo",
    "train",
    "export",
    "remote",
    "evaluate",
    "cli",
)
CORE_MAY_IMPORT = {"numpy", "cv2", "edge_vision"}
RUNTIME_ROOMS = {*ROOMS[: ROOMS.index("nodes") + 1]} - {"updates", "record", "dataset", "web"}
# The updater is a process of its own: a pipeline imports neither it nor `updates`.
UPDATER = {
    "nodes.updater_node",
    "nodes.updater_serving",
    "nodes.updater_shadow",
    "nodes.updater_parameters",
    "nodes.interface.updater",
    "nodes.interface.live_parameters",
}
# A pipeline imports these only on request.
COMPONENTS = {
    *("nodes.recorder_node", "nodes.interface.recorder"),
    *("nodes.collector_node", "nodes.interface.collector"),
}
# Processes of their own: a pipeline imports none of it.
OTHER_PROCESSES = (
    UPDATER | COMPONENTS | {name for name in MODULES if f"{name}.".startswith("nodes.observers.")}
)
RUNTIME = {name for name in MODULES if room_of(name) in RUNTIME_ROOMS} - OTHER_PROCESSES
NODE_MODULES = {path.removeprefix("edge_vision.") for path in EXECUTABLES.values()} & RUNTIME
# The aim is 20 000: lower it whenever there is room.
MAX_RUNTIME_LINES = 23_722
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_LINES = 8


def test_every_folder_and_file_of_the_package_is_a_known_room() -> None:
    assert {room_of(module) for module in MODULES} - {"", "__main__"} == set(ROOMS)


def test_a_room_imports_only_rooms_below_it() -> None:
    order = {room: number for number, room in enumerate(ROOMS)}
    upward = [
        f"{module} imports {other}"
        for module, file in MODULES.items()
        # An entry point belongs to the CLI, in whichever room it is.
        for room in ("cli" if file.name == "__main__.py" else room_of(module),)
        for other in own_imports(file)
        if not module or order[room_of(other)] > order[room]
    ]
    assert upward == [], (
        "the order of the rooms, from the ground up, is that of ROOMS; the package imports none"
    )


def folder_of(module: str) -> str:
    """The folder within a room that a module is in, "" if it is at the top of its room."""
    room, _, rest = module.partition(".")
    return f"{room}.{rest.split('.')[0]}" if "." in rest else ""


def test_there_is_no_import_cycle() -> None:
    check_no_cycle({name: own_imports(file) - {name} for name, file in MODULES.items()})


def test_the_folders_within_a_room_import_each_other_in_one_direction() -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for name, file in MODULES.items():
        graph[folder_of(name)] |= {folder_of(other) for other in own_imports(file)} - {folder_of(name), ""}
    del graph[""]
    check_no_cycle({name: graph.get(name, set()) for name in {*graph, *set().union(*graph.values())}})


def check_no_cycle(graph: Mapping[str, set[str]]) -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_only_nodes_import_ros() -> None:
    importing = {module for module, file in MODULES.items() if any(map(is_ros, imported(file)))}
    assert {room_of(module) for module in importing} == {"nodes"}


def test_only_the_updater_imports_updates() -> None:
    importing = {
        module
        for module, file in MODULES.items()
        if room_of(module) != "updates" and any(room_of(other) == "updates" for other in own_imports(file))
    }
    # Of which the recorder needs one function, to flush a folder.
    assert importing and importing <= {*UPDATER, "cli.updates", "record.recording_file"}


def test_no_pipeline_imports_web() -> None:
    importing = {
        module
        for module, file in MODULES.items()
        if room_of(module) not in ("web", "cli")
        and any(room_of(other) == "web" for other in own_imports(file))
    }
    assert importing and importing <= {*OTHER_PROCESSES, "dataset.review"}


def reached_from(roots: set[str], allowed: set[str]) -> set[str]:
    """These modules and what they import, at their top or inside a function, within the allowed ones."""
    found: set[str] = set()
    left = roots & allowed
    while left:
        found |= left
        left = {other for name in left for other in own_imports(MODULES[name])} & allowed - found
    return found


def test_a_node_can_import_every_module_of_the_runtime() -> None:
    """Others belong to `offline` and the rooms after it, or to the observers."""
    by_name = {path.partition(":")[0].removeprefix("edge_vision.") for path in BACKENDS.values()}
    entry_points = {"nodes.cli", "bundles.__main__", "backends.trial.child", *NODE_MODULES, *by_name}
    reached = reached_from(entry_points, RUNTIME)
    # A package is imported with its modules.
    reached |= {name for name in RUNTIME if any(one.startswith(f"{name}.") for one in reached)}
    assert RUNTIME - reached == set()


def test_no_pipeline_imports_another_process() -> None:
    reached = reached_from({"nodes.pipeline"}, set(MODULES) - COMPONENTS)
    assert {name for name in reached & OTHER_PROCESSES if not name.startswith("nodes.interface.")} == set()


def test_the_core_needs_numpy_and_opencv_alone() -> None:
    for file in sorted((PACKAGE / "core").rglob("*.py")):
        roots = {module.split(".")[0] for module in imported(file)} - sys.stdlib_module_names
        assert roots <= CORE_MAY_IMPORT, file.name


def test_public_class_names_are_unique() -> None:
    modules_by_name: dict[str, list[str]] = defaultdict(list)
    for module, file in MODULES.items():
        for name in public_classes(file):
            modules_by_name[name].append(module)
    assert {name: modules for name, modules in modules_by_name.items() if len(modules) > 1} == {}


def test_functions_are_short() -> None:
    found = [function for file in FILES for function in functions(file)]
    assert statistics.median(function.lines for function in found) <= MAX_MEDIAN_LINES
    assert [function for function in found if function.lines > MAX_FUNCTION_LINES] == []


def test_the_runtime_stays_small() -> None:
    lines = sum(len(MODULES[name].read_text("utf-8").splitlines()) for name in RUNTIME)
    assert lines <= MAX_RUNTIME_LINES


def test_modules_that_must_work_without_ros_load_none_of_it() -> None:
    code = (
        "import sys\n"
        "import edge_vision.nodes.interface.specs, edge_vision.nodes.cli, edge_vision.detect.detector\n"
        "import edge_vision.backends, edge_vision.bundles, edge_vision.cli.main\n"
        "heavy = {'tuf', 'rclpy', 'onnxruntime', 'openvino', 'onnx', 'vision_msgs'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
