"""Tries in a process of its own what may crash or hang: an import, a runtime, a model.

    python -m edge_vision.cli.doctor.probe modules NAME...    import modules
    python -m edge_vision.cli.doctor.probe backend NAME       load a runtime, and ask what it sees
    python -m edge_vision.cli.doctor.probe model NAME BACKEND open a bundle as a node does, and run it
    python -m edge_vision.cli.doctor.probe node [ROS_ARGS]    start a node, and end it

Each finding is a line of JSON behind a mark, as runtimes write on standard output too.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from statistics import median
from typing import Any

from edge_vision.core.child_process import child_environment, describe_exit, python_command

MARK = "doctor-probe: "
PATIENCE_S = 60.0
RUNS = 6


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """found: what the process told before it ended. trouble: how it ended, "" where in order. late: it had to
    be ended, as it took too long."""

    found: tuple[dict[str, Any], ...]
    trouble: str
    late: bool = False


def ask(*arguments: str, timeout_s: float = PATIENCE_S) -> ProbeResult:
    """Run a probe and wait for it."""
    command = python_command("edge_vision.cli.doctor.probe", *arguments)
    try:
        done = subprocess.run(
            command,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        return ProbeResult(_findings(error.stdout or b""), f"no answer within {timeout_s:.0f} s", True)
    return ProbeResult(_findings(done.stdout), _ending(done.returncode, done.stderr))


def _findings(output: bytes) -> tuple[dict[str, Any], ...]:
    lines = output.decode("utf-8", "replace").splitlines()
    return tuple(json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK))


def _ending(returncode: int, stderr: bytes) -> str:
    if returncode == 0:
        return ""
    if returncode < 0:
        return f"its process {describe_exit(returncode)}"
    said = stderr.decode("utf-8", "replace").strip().splitlines()
    return f"its process {describe_exit(returncode)}: {said[-1] if said else 'no output'}"


# The child.
def _tell(**finding: Any) -> None:
    print(MARK + json.dumps(finding, default=str), flush=True)


def _modules(*names: str) -> None:
    for name in names:
        # First: where the import ends the process, its name is known.
        _tell(module=name, trying=True)
        try:
            module = importlib.import_module(name)
        except Exception as error:  # A package can fail in any way while it is imported.
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            _tell(module=name, error=f"{type(error).__name__}: {error}", missing=missing)
            continue
        _tell(module=name, version=_version(name, module))


def _version(name: str, module: Any) -> str:
    """The version that the module or its package gives, "" where none does."""
    version = getattr(module, "__version__", None)
    if isinstance(version, str):
        return version
    root = name.partition(".")[0].replace("_", "-")
    for distribution in (root, f"ros-{root}"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _backend(name: str) -> None:
    from edge_vision.backends import make_backend

    backend = make_backend(name)
    reason = backend.unavailable_reason()
    if reason:
        _tell(unavailable=reason)
        return
    _tell(devices=list(backend.devices()))


def _model(name: str, backend: str) -> None:
    from edge_vision.backends.model_manager import ModelRequest, load_model
    from edge_vision.detect.detector import Detector, black_frame

    model = load_model(ModelRequest(name, backend), Detector.from_bundle)
    detector, report = model.runner, model.report
    runs_ms = []
    for _ in range(RUNS):
        runs_ms.append(detector.detect(black_frame(detector.input_spec)).timing.inference_ms)
    actual = report.actual
    _tell(
        bundle=str(model.bundle),
        backend=actual.backend,
        version=actual.version,
        device=actual.device,
        provider=actual.provider,
        precision=actual.precision,
        threads=actual.threads or None,
        selection_reason=report.selection_reason,
        run_ms=round(median(runs_ms[1:]), 3),
        fallback_reason=report.fallback_reason,
    )


def _node(*ros_args: str) -> None:
    importlib.import_module("edge_vision.nodes.system_probe").check_node_starts(ros_args)


_PROBES: dict[str, Callable[..., None]] = {
    "modules": _modules,
    "backend": _backend,
    "model": _model,
    "node": _node,
}


def main() -> int:
    """The child's work."""
    try:
        _PROBES[sys.argv[1]](*sys.argv[2:])
    except Exception as error:  # Whatever it is, the doctor tells it in a sentence.
        _tell(error=f"{error}" or type(error).__name__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
