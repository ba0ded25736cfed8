"""Every test file is collected, whatever is installed and sourced."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
FILES = sorted((REPO / "test").rglob("*.py"))
SKIPS = {"importorskip", "skip", "exit"}


def skips_on_import(tree: ast.Module) -> bool:
    """True where a module calls pytest.skip and the like outside of functions."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {f"pytest.{name}" for name in SKIPS}:
            return True
        todo.extend(ast.iter_child_nodes(node))
    return False


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("rich = pytest.importorskip('rich')", True),
        ("if not ros:\n    pytest.skip('no ROS', allow_module_level=True)", True),
        ("def test_it():\n    pytest.importorskip('rich')", False),
        ("pytestmark = pytest.mark.skipif(True, reason='no ROS')", False),
    ],
)
def test_what_a_skip_on_import_is(text: str, found: bool) -> None:
    assert skips_on_import(ast.parse(text)) is found


def test_no_file_skips_on_import() -> None:
    assert [str(file) for file in FILES if skips_on_import(ast.parse(file.read_text("utf-8")))] == []


def test_the_plugins_of_launch_testing_are_off(pytestconfig: pytest.Config) -> None:
    """They come with ROS, and import each test file to search for launch tests."""
    assert pytestconfig.pluginmanager.is_blocked("launch_testing")
    assert pytestconfig.pluginmanager.is_blocked("launch_ros")


def test_without_ros_its_tests_are_skipped_with_the_remedy_and_the_rest_runs(tmp_path: Path) -> None:
    (tmp_path / "without_ros.py").write_text("import sys\nsys.modules['rclpy'] = None\n")
    command = [sys.executable, "-c", "import sys, pytest; sys.path.insert(0, sys.argv.pop(1)); pytest.main()"]
    command += [str(tmp_path), "-p", "without_ros", "-p", "no:cacheprovider", "-rs", "-q"]
    command += ["test/nodes/test_names.py", "test/e2e", "test/unit/test_arbiter.py"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=200)
    e2e = len(list((REPO / "test" / "e2e").glob("test_*.py")))
    assert f"{e2e + 1} skipped" in done.stdout and " passed" in done.stdout, done.stdout + done.stderr
    assert "rclpy is not installed: source ROS 2, or run `make setup`" in done.stdout
    assert "error" not in done.stdout
