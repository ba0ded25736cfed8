"""The parameter file of a release: what the updater may set on running nodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from update_cases import GROUP, PROVENANCE, Operator, make_bundle

from edge_vision.cli.updates import main
from edge_vision.errors import BundleError
from edge_vision.nodes.interface.live_parameters import parse_live_parameters


def section(node: str, text: str) -> str:
    return f"/**/{node}: {{ros__parameters: {{{text}}}}}"


def test_values_have_the_types_of_their_parameters() -> None:
    text = (
        section("gate", "max_delay_ms: 700") + "\n" + section("detector", "zones: ['exclude a 0,0 1,0 1,1']")
    )
    values = parse_live_parameters(text, "x.yaml")
    assert values == {"gate": {"max_delay_ms": 700.0}, "detector": {"zones": ["exclude a 0,0 1,0 1,1"]}}
    assert isinstance(values["gate"]["max_delay_ms"], float)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected a mapping"),
        ("[1]", "expected a mapping"),
        ("/**/gate: {}", "got no such key; add it"),
        ("/**: {ros__parameters: {enabled: false}}", "unknown key '/\\*\\*'"),
        (section("updater", "repository_url: http://x"), "unknown key '/\\*\\*/updater'"),
        (section("gate", "max_delay: 1"), "did you mean 'max_delay_ms'"),
        (section("gate", "max_delay_ms: -1"), "gate: max_delay_ms: expected"),
        (section("gate", "max_delay_ms: .nan"), "gate: max_delay_ms: expected"),
        (section("gate", "json_log: /x"), "expected parameters that apply live, got 'json_log'"),
        (section("detector", "model: /x"), "expected parameters that apply live, got 'model'"),
        (section("detector", "zones: [nonsense]"), "detector: zones: "),
        (section("gate", "1: 2"), "expected a mapping"),
        ("/**/gate: &a {ros__parameters: {}}\n/**/detector: *a", "aliases"),
        ("/**/gate: {ros__parameters: {}, more: 1}", "unknown key 'more'"),
        (section("gate", "enabled: !!python/object:os.system x"), "expected plain YAML"),
    ],
)
def test_other_parameters_are_refused(text: str, why: str) -> None:
    with pytest.raises(BundleError, match=rf"^x\.yaml: .*{why}"):
        parse_live_parameters(text, "x.yaml")


def test_publish_checks_the_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    operator, bundle, file = Operator(tmp_path), make_bundle(tmp_path / "mine"), tmp_path / "yard.yaml"
    (bundle.folder / "provenance.json").write_text(json.dumps(PROVENANCE))
    publish = ["publish", str(operator.folder), str(bundle.folder), "--group", GROUP, "--keys"]
    publish += [str(operator.keys), "--parameters", str(file)]
    for text, why in (
        (None, "expected a ROS parameter file"),
        (b"\xff", "expected a ROS parameter file"),
        (section("gate", "max_delay: 1").encode(), "did you mean 'max_delay_ms'"),
    ):
        if text is not None:
            file.write_bytes(text)
        assert main(publish) == 1 and why in capsys.readouterr().err
    file.write_text(section("gate", "max_delay_ms: 700"))
    assert main(publish) == 0
    assert "parameters.yaml" in operator.repository.release(GROUP, "stable").files
