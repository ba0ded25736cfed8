"""Sections of parameter files that match no node are reported with the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest
import rclpy
from rclpy.context import Context

from edge_vision.nodes.interface import specs
from edge_vision.nodes.parameter_files import startup_error, unmatched_sections

NODES = ["/gate", "/detector"]
PARAMS = {spec.name: spec.params for spec in specs.NODES}
VALUES = "{ros__parameters: {enabled: false}}"


def warnings_for(folder: Path, text: str, nodes: list[str]) -> list[str]:
    file = folder / "params.yaml"
    file.write_text(text)
    known = {node: [param.name for param in PARAMS.get(node.rpartition("/")[2], ())] for node in nodes}
    return unmatched_sections(["gate_node", "--ros-args", "--params-file", str(file)], known)


@pytest.mark.parametrize(
    "section",
    ["gate", "/gate", "/**/gate", "/**", "/*", "**/gate", "/*/gate", "/camera_driver", "/front/gate"],
)
def test_a_section_that_matches_or_is_for_another_program_is_accepted(tmp_path: Path, section: str) -> None:
    text = f"{section}: {VALUES}\n/front/gate: {VALUES}\n"
    assert warnings_for(tmp_path, text, ["/gate", "/front/gate", "/a/gate"]) == []


@pytest.mark.parametrize("section", ["/**/detecter", "detectr", "/front/detector", "/**/Detector"])
def test_a_section_without_a_node_is_reported_with_the_nearest_name(tmp_path: Path, section: str) -> None:
    (warning,) = warnings_for(tmp_path, f"{section}: {VALUES}\n/**: {VALUES}\n", NODES)
    assert f"section '/{section.strip('/')}' matches no node, did you mean '/**/detector'?" in warning


@pytest.mark.parametrize(("section", "is_reported"), [("/**/gate", True), ("gate", True), ("/**", False)])
def test_a_parameter_of_another_node_is_reported(tmp_path: Path, section: str, is_reported: bool) -> None:
    text = f"{section}: {{ros__parameters: {{score_threshold: 0.3, max_blind_ms: 300.0}}}}\n"
    found = [one.partition(": ")[2] for one in warnings_for(tmp_path, text, NODES)]
    message = f"section '/{section.strip('/')}': 'score_threshold' is a parameter of cascade, detector"
    assert found == [message] * is_reported


@pytest.mark.parametrize(("rule", "is_reported"), [("gate:a:=1", True), ("a:=1", False), ("cam:a:=1", False)])
def test_a_parameter_of_a_node_in_a_namespace_cannot_be_set_on_the_command_line(
    rule: str, is_reported: bool
) -> None:
    found = unmatched_sections(["gate_node", "--ros-args", "-p", rule], {"/front/gate": ()})
    assert found == ([f"-p {rule}: no node is '/gate': use '/**/gate' in a parameter file"] * is_reported)
    assert unmatched_sections(["gate_node", "--ros-args", "-p", rule], {"/gate": ()}) == []


def test_sections_nested_by_namespace_are_read(tmp_path: Path) -> None:
    nested = f"/front:\n  gate: {VALUES}\n  detecter: {VALUES}\n"
    (warning,) = warnings_for(tmp_path, nested, ["/front/gate", "/front/detector"])
    assert "'/front/detecter'" in warning


def test_sections_of_several_pipelines_in_one_file_are_accepted(tmp_path: Path) -> None:
    text = f"/front/gate: {VALUES}\n/rear/gate: {VALUES}\n"
    assert warnings_for(tmp_path, text, ["/front/gate"]) == []


@pytest.mark.parametrize("text", ["", "- 1", ": : :", "gate: 5"])
def test_a_file_that_is_no_parameter_file_is_left_to_ros(tmp_path: Path, text: str) -> None:
    assert warnings_for(tmp_path, text, NODES) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/**/gate:\n  ros__parameters:\n\tmax_blind_ms: 4\n", ", line 3: invalid YAML: "),
        ("/**/gate:\n  ros__parameters:\n    a: [1, 2\n", ", line 4: invalid YAML: "),
        ("/**/gate:\n  max_blind_ms: 4\n", "before ros__parameters at line 2. Expected `/**/NODE: {ros__"),
        (None, ": No such file or directory"),
    ],
)
def test_a_file_that_ros_cannot_read_is_named_with_the_line(
    tmp_path: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "params.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(RuntimeError) as raised:
        rclpy.init(args=["gate", "--ros-args", "--params-file", str(file)], context=Context())
    shown = startup_error(str(raised.value))
    assert shown.startswith(str(file)) and message in shown and ".c:" not in shown
