"""Backends: which are installed, whether they load, what they see, and what `auto` runs the detector on."""

from __future__ import annotations

from collections.abc import Iterator

from edge_vision.backends import known_backends, make_backend
from edge_vision.backends.registry import REFERENCE
from edge_vision.cli.doctor.check import ERROR, INSTALLATION, OK, WARN, Check
from edge_vision.cli.doctor.probe import ask
from edge_vision.nodes.interface.specs import DETECTOR


def look() -> Iterator[Check]:
    """A check per backend of the registry, and one that all of them together can run the detector's model."""
    checks = [_backend(name) for name in known_backends()]
    yield from checks
    if any(check.values["loads"] is not False for check in checks):
        yield _model(DETECTOR.param("model").default, DETECTOR.param("backend").default)
    else:
        yield Check(
            INSTALLATION, "model", ERROR, f"no backend works here: {make_backend(REFERENCE).install_hint}"
        )


def _backend(name: str) -> Check:
    answer = ask("backend", name)
    found = answer.found[-1] if answer.found else {}
    label = f"backend {name}"
    if "unavailable" in found:
        # One that nobody asked for is no fault.
        return Check(INSTALLATION, label, OK, found["unavailable"], {"loads": False, "devices": []})
    if "devices" not in found:
        text = f"installed, but does not load: {found.get('error') or answer.trouble}"
        return Check(INSTALLATION, label, WARN, text, {"loads": False, "devices": []})
    devices = found["devices"]
    # One that does not tell has perhaps not even been imported.
    values = {"loads": True if devices else None, "devices": devices}
    text = (
        f"loads, sees {', '.join(devices)}"
        if devices
        else "installed, not tried: it does not tell what it sees"
    )
    if answer.trouble:
        return Check(INSTALLATION, label, WARN, f"{text}; {answer.trouble}", values)
    return Check(INSTALLATION, label, OK, text, values)


def _model(name: str, backend: str) -> Check:
    """Opens the detector's default model as the node does, which measures the runtimes the first time."""
    answer = ask("model", name, backend)
    found = answer.found[-1] if answer.found else {}
    if not found and answer.late:
        text = (
            f"{name} was not ready: {answer.trouble}. The first time, runtimes are measured, engines built: "
            f"python -m edge_vision.backends.auto_select {name} does that ahead"
        )
        return Check(INSTALLATION, "model", WARN, text)
    if "bundle" not in found:
        return Check(INSTALLATION, "model", ERROR, f"{found.get('error') or answer.trouble}", found)
    text = (
        f"{found['bundle']} on {found['backend']} {found['version']}, {found['device']} "
        f"({found['provider']}), {found['precision']}, {found['threads'] or 'untold'} threads: "
        f"{found['run_ms']:.1f} ms a run"
    )
    text += f"; {backend}: {found['choice']}" if found["selection_reason"] else ""
    if found["fallback_reason"]:
        return Check(INSTALLATION, "model", WARN, f"{text}; fallback: {found['fallback_reason']}", found)
    return Check(INSTALLATION, "model", OK, text, found)
