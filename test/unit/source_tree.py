"""The package's source as syntax trees: modules, imports, classes and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "edge_vision"
FILES = sorted(PACKAGE.rglob("*.py"))
ROS_PACKAGES = {"rclpy", "rosidl_runtime_py", "ament_index_python", "cv_bridge", "launch", "launch_ros"}


class Function(NamedTuple):
    """lines: of the body, without the signature and the docstring."""

    name: str
    lines: int


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def module_of(file: Path) -> str:
    """The module's name below the package, "" for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return module.split(".")[0]


MODULES = {module_of(file): file for file in FILES}


def imported(file: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, at its top or inside a function."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full name"
            module = node.module or ""
            below = module.removeprefix("edge_vision").lstrip(".")
            for alias in node.names:
                inner = f"{below}.{alias.name}".lstrip(".")
                ours = room_of(module) == "edge_vision" and inner in MODULES
                yield f"edge_vision.{inner}" if ours else module


def own_imports(file: Path) -> set[str]:
    """The modules of this package that a file imports, as keys of MODULES, without the package itself."""
    names = (name.removeprefix("edge_vision.") for name in imported(file) if name.startswith("edge_vision."))
    return {name for name in names if name in MODULES}


def is_ros(module: str) -> bool:
    root = module.split(".")[0]
    return root.endswith(("_msgs", "_srvs", "_interfaces")) or root in ROS_PACKAGES


def public_classes(file: Path) -> list[str]:
    body = parsed(file).body
    return [node.name for node in body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def functions(file: Path) -> list[Function]:
    """All functions and methods of a file."""
    nodes = (node for node in ast.walk(parsed(file)) if isinstance(node, ast.FunctionDef))
    return [Function(f"{file.name}:{node.name}", _body_lines(node)) for node in nodes]


def _body_lines(node: ast.FunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
