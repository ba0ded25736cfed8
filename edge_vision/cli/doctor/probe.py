"""Runs in a child process what may crash or hang: an import, a runtime, a model.

    python -m edge_vision.cli.doctor.probe modules NAME...    import modules
    python -m edge_vision.cli.doctor.probe backend NAME       load a runtime and list its devices
    python -m edge_vision.cli.doctor.probe model NAME BACKEND open a bundle as a node does, and run it
    python -m edge_vision.cli.doctor.probe node [ROS_ARGS]    start a node and stop it

Each finding is a line of JSON behind a mark, as runtimes write to standard output too.
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
TIMEOUT_S = 60.0
RUNS = 6


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """findings: reported by the process before it ended. failure: how it ended, "" if in order."""

    findings: tuple[dict[str, Any], ...]
    failure: str
    timed_out: bool = False

    @property
    def last(self) -> dict[str, Any]:
        """The last finding, empty without any."""
        return self.findings[-1] if self.findings else {}


def run_probe(*arguments: str, timeout_s: float = TIMEOUT_S) -> ProbeResult:
    """Run a probe and wait for its result."""
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
    return ProbeResult(_findings(done.stdout), _failure(done.returncode, done.stderr))


def _findings(output: bytes) -> tuple[dict[str, Any], ...]:
    lines = output.decode("utf-8", "replace").splitlines()
    return tuple(json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK))


def _failure(returncode: int, stderr: bytes) -> str:
    if returncode == 0:
        return ""
    if returncode < 0:
        return f"its process {describe_exit(returncode)}"
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return f"its process {describe_exit(returncode)}: {lines[-1] if lines else 'no output'}"


# The child.
def _report(**finding: Any) -> None:
    print(MARK + json.dumps(finding, default=str), flush=True)


def _modules(*names: str) -> None:
    for name in names:
        # Before the import: if that ends the process, the parent knows the name.
        _report(module=name, importing=True)
        try:
            module = importlib.import_module(name)
        except Exception as error:  # A package can fail in any way while it is imported.
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            _report(module=name, error=f"{type(error).__name__}: {error}", missing=missing)
            continue
        _report(module=name, version=_version(name, module))


def _version(name: str, module: Any) -> str:
    """The version of the module or its distribution, "" if neither has one."""
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
        _report(unavailable=reason)
        return
    _report(devices=list(backend.devices()))


def _model(name: str, backend: str) -> None:
    from edge_vision.backends.serving.loaded_model import ModelRequest, load_model
    from edge_vision.detect.detector import Detector, black_frame

    model = load_model(ModelRequest(name, backend), Detector.from_bundle)
    detector, report = model.runner, model.report
    runs_ms = []
    for _ in range(RUNS):
        runs_ms.append(detector.detect(black_frame(detector.input_spec)).timing.inference_ms)
    actual = report.actual
    _report(
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
    importlib.import_module("edge_vision.nodes.observers.system_probe").check_node_starts(ros_args)


_PROBES: dict[str, Callable[..., None]] = {
    "modules": _modules,
    "backend": _backend,
    "model": _model,
    "node": _node,
}


def main() -> int:
    """Run the probe that the command line names; an exception becomes a finding."""
    try:
        _PROBES[sys.argv[1]](*sys.argv[2:])
    except Exception as error:
        _report(error=f"{error}" or type(error).__name__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
