"""Backends of another package that do harm: installed for real, as an entry point on PYTHONPATH."""

from __future__ import annotations

from pathlib import Path

import pytest

_CODE = '''
import os, signal
from edge_vision.backends.runtimes.onnxruntime import OnnxRuntimeBackend

class Harmless(OnnxRuntimeBackend):
    name = "harmless"
    load_limit_s = 20.0

class Aborts(Harmless):
    name = "aborts"
    def load(self, graph, request):
        os.abort()

class Segfaults(Harmless):
    name = "segfaults"
    def load(self, graph, request):
        os.kill(os.getpid(), signal.SIGSEGV)

class Hangs(Harmless):
    name = "hangs"
    load_limit_s = 1.0
    def load(self, graph, request):
        while True:
            pass

class Exits(Harmless):
    name = "exits"
    def load(self, graph, request):
        os._exit(7)

class Eats(Harmless):
    name = "eats"
    def load(self, graph, request):
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1 << 20)) * 16)

class HangsInRun(Harmless):
    name = "hangs_in_run"
    def load(self, graph, request):
        session = super().load(graph, request)
        def run(tensors):
            while True:
                pass
        session.run = run
        return session

class AbortsOnWhite(Harmless):
    name = "aborts_on_white"
    def load(self, graph, request):
        session = super().load(graph, request)
        inner = session.run
        def run(tensors):
            if all((tensor == 1).all() for tensor in tensors.values()):
                os.abort()
            return inner(tensors)
        session.run = run
        return session

class AbortsLater(Harmless):
    """Passes its trial, and dies under what comes then."""
    name = "aborts_later"
    def load(self, graph, request):
        session = super().load(graph, request)
        inner, runs = session.run, []
        def run(tensors):
            runs.append(1)
            if len(runs) > 6:  # The images of a trial.
                os.abort()
            return inner(tensors)
        session.run = run
        return session
'''
_NAMES = (
    "Harmless",
    "Aborts",
    "Segfaults",
    "Hangs",
    "Exits",
    "Eats",
    "HangsInRun",
    "AbortsOnWhite",
    "AbortsLater",
)


def install_harmful_backends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the package into `folder`, where this process and its children find it."""
    info = folder / "harmful-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: harmful\nVersion: 1.0\n")
    lines = (f"{_snake(name)} = harmful_backends:{name}" for name in _NAMES)
    (info / "entry_points.txt").write_text("[edge_vision.backends]\n" + "\n".join(lines) + "\n")
    (folder / "harmful_backends.py").write_text(_CODE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
