"""The presets: one truth in code and in config/, and each sets what the gate declares."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from edge_vision.gate.frame_gate import DEFAULT_PRESET, PRESETS, GateConfig
from edge_vision.nodes.interface.specs import GATE

CONFIG = Path(__file__).resolve().parents[2] / "config"


@pytest.mark.parametrize("preset", PRESETS)
def test_the_file_of_a_preset_has_its_values(preset: str) -> None:
    content = yaml.safe_load((CONFIG / f"{preset}.yaml").read_text("utf-8"))
    values = content["/**/gate"]["ros__parameters"]
    assert values.items() <= PRESETS[preset].items()
    defaults = PRESETS[DEFAULT_PRESET]
    assert {name for name in defaults if PRESETS[preset][name] != defaults[name]} <= set(values)


def test_the_default_preset_has_the_gates_defaults() -> None:
    values = PRESETS[DEFAULT_PRESET]
    assert {field.name: field.default for field in fields(GateConfig) if field.name in values} == values
    assert {name: GATE.param(name).default for name in values} == values


def test_the_parameter_file_with_all_defaults_leaves_a_preset_its_values() -> None:
    content = yaml.safe_load((CONFIG / "pipeline.yaml").read_text("utf-8"))
    assert not GATE.preset_names & set(content["/**/gate"]["ros__parameters"])
    assert content["/**/gate"]["ros__parameters"]["preset"] == DEFAULT_PRESET
