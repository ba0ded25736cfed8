"""Real processes of the executables: always stopped, and their output checked for tracebacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from executable_cases import Executable


@pytest.fixture
def launch(domain: int, tmp_path: Path) -> Iterator[Callable[..., Executable]]:
    """Starts executables: launch(name, *arguments). The detector runs on ONNX Runtime unless set."""
    started: list[Executable] = []

    def begin(name: str, *arguments: Any, **kwargs: Any) -> Executable:
        if name in ("pipeline", "detector_node") and "--backend" not in arguments:
            arguments = ("--backend", "onnxruntime", *arguments)
        started.append(Executable(tmp_path, name, *map(str, arguments), **kwargs))
        return started[-1]

    yield begin
    for one in started:
        one.kill()
        assert one.members() == [], f"{one.name} left processes behind"
        assert "Traceback" not in one.output, one.output
