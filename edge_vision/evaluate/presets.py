"""The gate's settings of a preset: a parameter file in config/, with NAME=VALUE changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import yaml

from edge_vision.evaluate.errors import EvaluateError
from edge_vision.gate.frame_gate import GateConfig
from edge_vision.offline.config_files import config_file

PRESETS = ("balanced", "economy")
"""Names of parameter files in config/."""
Settings = dict[str, float | int | bool]
_DEFAULTS: Settings = {field.name: getattr(GateConfig(), field.name) for field in fields(GateConfig)}


def preset_file(preset: str) -> Path:
    """The parameter file of a preset. Raises EvaluateError if it is not installed."""
    path = config_file(f"{preset}.yaml")
    if path is None:
        raise EvaluateError(f"config/{preset}.yaml: expected this file in the installation, found none")
    return path


def gate_settings(preset: str, changes: Sequence[str] = ()) -> Settings:
    """The gate's settings in a preset, with NAME=VALUE changes. Raises EvaluateError for a wrong change."""
    content = yaml.safe_load(preset_file(preset).read_text("utf-8"))
    settings = dict(content["/**/gate"]["ros__parameters"])
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or name not in _DEFAULTS:
            raise EvaluateError(
                f"expected NAME=VALUE with a name out of {', '.join(_DEFAULTS)}, got '{change}'"
            )
        settings[name] = _parsed(name, text, type(_DEFAULTS[name]))
    return settings


def gate_config(settings: Settings) -> GateConfig:
    """The configuration of a gate with these settings, the others at their defaults."""
    return GateConfig(**settings)  # type: ignore[arg-type]


def _parsed(name: str, text: str, kind: type) -> float | int | bool:
    if kind is bool:
        if text not in ("true", "false"):
            raise EvaluateError(f"{name}: expected true or false, got '{text}'")
        return text == "true"
    try:
        return int(text) if kind is int else float(text)
    except ValueError:
        raise EvaluateError(f"{name}: expected a number, got '{text}'") from None
