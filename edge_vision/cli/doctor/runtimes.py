"""Checks of the backends: whether they load, their devices, and the one that runs the detector's model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_vision.backends import known_backends, make_backend
from edge_vision.backends.registry import REFERENCE
from edge_vision.cli.doctor.check import ERROR, INSTALLATION, OK, WARN, Check
from edge_vision.cli.doctor.probe import run_probe
from edge_vision.nodes.interface.specs import DETECTOR


def checks() -> Iterator[Check]:
    """A check per known backend, then one of the detector's default model."""
    backends = [_backend(name) for name in known_backends()]
    yield from backends
    if any(check.values["loads"] is not False for check in backends):
        yield _model(DETECTOR.param("model").default, DETECTOR.param("backend").default)
    else:
        yield Check(
            INSTALLATION, "model", ERROR, f"no backend works here: {make_backend(REFERENCE).install_hint}"
        )


def _backend(name: str) -> Check:
    result = run_probe("backend", name)
    label, finding = f"backend {name}", result.last
    if "unavailable" in finding:
        # A backend that is not installed is not a fault.
        return Check(INSTALLATION, label, OK, finding["unavailable"], {"loads": False, "devices": []})
    if "devices" not in finding:
        text = f"installed, but does not load: {finding.get('error') or result.failure}"
        return Check(INSTALLATION, label, WARN, text, {"loads": False, "devices": []})
    devices = finding["devices"]
    # A backend that lists no device may not have imported its runtime.
    values = {"loads": True if devices else None, "devices": devices}
    text = f"loads, devices: {', '.join(devices)}" if devices else "installed, not tested: it lists no device"
    if result.failure:
        return Check(INSTALLATION, label, WARN, f"{text}; {result.failure}", values)
    return Check(INSTALLATION, label, OK, text, values)


def _model(name: str, backend: str) -> Check:
    """Opens the model as the node does, which measures the runtimes on the first start."""
    result = run_probe("model", name, backend)
    finding = result.last
    if not finding and result.timed_out:
        text = (
            f"{name} was not ready: {result.failure}. The first start measures runtimes and builds engines: "
            f"python -m edge_vision backends measure {name} does so in advance"
        )
        return Check(INSTALLATION, "model", WARN, text)
    if "bundle" not in finding:
        return Check(INSTALLATION, "model", ERROR, f"{finding.get('error') or result.failure}", finding)
    text = _model_text(finding, backend)
    if finding["fallback_reason"]:
        return Check(INSTALLATION, "model", WARN, f"{text}; fallback: {finding['fallback_reason']}", finding)
    return Check(INSTALLATION, "model", OK, text, finding)


def _model_text(finding: Mapping[str, Any], backend: str) -> str:
    threads = f"{finding['threads']} threads" if finding["threads"] else "threads not reported"
    reason = f"; {backend}: {finding['selection_reason']}" if finding["selection_reason"] else ""
    return (
        f"{finding['bundle']} on {finding['backend']} {finding['version']}, {finding['device']} "
        f"({finding['provider']}), {finding['precision']}, {threads}: {finding['run_ms']:.1f} ms per "
        f"inference{reason}"
    )
