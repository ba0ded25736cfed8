"""What importing the package does at run time: limits, telemetry, files in the home folder."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import PACKAGE, REPO, imported, parsed


def test_opencv_refuses_images_above_every_limit() -> None:
    """A header that claims 20000x20000: OpenCV's own limits were set before it was imported."""
    code = (
        "import edge_vision.core.frame, cv2, numpy\n"
        "try:\n"
        "    cv2.imdecode(numpy.frombuffer(b'P5 20000 20000 255 ', numpy.uint8), cv2.IMREAD_GRAYSCALE)\n"
        "except cv2.error as error:\n"
        "    assert 'CV_IO_MAX_IMAGE' in str(error), error\n"
        "else:\n"
        "    raise SystemExit('decoded')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_the_standard_library_alone() -> None:
    assert set(imported(PACKAGE / "__init__.py")) <= {"os", "sys"}


SCRIPTS = [file for folder in ("bench", "examples", "scripts") for file in (REPO / folder).rglob("*.py")]


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: str(file.relative_to(REPO)))
def test_a_script_imports_a_runtime_only_after_edge_vision(file: Path) -> None:
    runtimes = {module.partition(".")[0] for module in imported(file)} & {"onnxruntime", "openvino"}
    body = parsed(file).body
    at_top = [ast.unparse(node) for node in body if isinstance(node, (ast.ImportFrom, ast.Import))]
    assert not runtimes or any("edge_vision" in line for line in at_top), f"{file}: import edge_vision"
    assert not any(name in line for line in at_top for name in runtimes), f"{file}: import it in a function"


@pytest.mark.parametrize("module", ["onnxruntime", "openvino", "ai_edge_litert.interpreter", "matplotlib"])
def test_a_library_writes_nothing_into_the_home_folder(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them start their telemetry, and create its files, when they are imported."""
    pytest.importorskip(module)
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "cache"))
    (tmp_path / "home").mkdir()
    code = f"import edge_vision, {module}"
    if module == "matplotlib":
        code = "from edge_vision.evaluate.plot import figure_of; figure_of(1, 1).savefig('/dev/null')"
    subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True)
    assert list((tmp_path / "home").iterdir()) == []
