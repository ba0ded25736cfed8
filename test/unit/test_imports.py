"""Each part imports only what it may: ROS stays under nodes/, and the core needs numpy and OpenCV alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "edge_vision"
FILES = sorted(PACKAGE.rglob("*.py"))
# diagnostics/process_usage.py reads what a process costs, and nothing else in the core needs more.
CORE_MAY_IMPORT = {"numpy", "cv2", "edge_vision"}
CORE_EXTRAS = {"resources.py": {"psutil"}}


def imported(file: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full name"
            yield node.module or ""


def is_ros(module: str) -> bool:
    root = module.split(".")[0]
    return root.endswith(("_msgs", "_srvs", "_interfaces")) or root in {
        "rclpy",
        "rosidl_runtime_py",
        "ament_index_python",
        "cv_bridge",
        "launch",
        "launch_ros",
    }


def test_opencv_refuses_what_no_limit_of_ours_would_let_through() -> None:
    """A header that claims 20000x20000: OpenCV's own limits were set before it was imported."""
    code = (
        "import edge_vision.nodes.interface.reference, cv2, numpy\n"
        "try:\n"
        "    cv2.imdecode(numpy.frombuffer(b'P5 20000 20000 255 ', numpy.uint8), cv2.IMREAD_GRAYSCALE)\n"
        "except cv2.error as error:\n"
        "    assert 'CV_IO_MAX_IMAGE' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('it was allocated')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_the_standard_library_alone() -> None:
    assert set(imported(PACKAGE / "__init__.py")) <= {"os", "sys"}


SCRIPTS = [file for folder in ("bench", "examples", "scripts") for file in (REPO / folder).rglob("*.py")]


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: str(file.relative_to(REPO)))
def test_a_script_imports_a_runtime_only_after_edge_vision(file: Path) -> None:
    runtimes = {module.partition(".")[0] for module in imported(file)} & {"onnxruntime", "openvino"}
    body = ast.parse(file.read_text("utf-8")).body
    at_top = [ast.unparse(node) for node in body if isinstance(node, (ast.ImportFrom, ast.Import))]
    assert not runtimes or any("edge_vision" in line for line in at_top), f"{file}: import edge_vision"
    assert not any(name in line for line in at_top for name in runtimes), f"{file}: import it in a function"


@pytest.mark.parametrize("module", ["onnxruntime", "openvino", "ai_edge_litert.interpreter", "matplotlib"])
def test_a_library_writes_nothing_into_the_home_folder(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The telemetry of two of them starts, and makes its files, with the import."""
    pytest.importorskip(module)
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "home").mkdir()
    code = f"import edge_vision, {module}"
    if module == "matplotlib":
        code = "from edge_vision.evaluate.gate.plot import figure_of; figure_of(1, 1).savefig('/dev/null')"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)
    assert list((tmp_path / "home").iterdir()) == []


def test_what_must_work_without_ros_loads_none_of_it() -> None:
    code = (
        "import sys\n"
        "import edge_vision.nodes.interface.reference, edge_vision.nodes.cli, edge_vision.detect.detector\n"
        "import edge_vision.backends, edge_vision.bundles\n"
        "heavy = {'rclpy', 'onnxruntime', 'openvino', 'onnx', 'vision_msgs'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
