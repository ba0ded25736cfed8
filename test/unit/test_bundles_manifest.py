"""bundle.yaml: what is read, what is refused, and that nothing but BundleError comes out."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_vision.bundles.manifest import GraphSpec, Manifest, parse_manifest
from edge_vision.bundles.schema import load_yaml
from edge_vision.core.model_spec import MAX_DETECTIONS, HeadSpec, InputSpec, StageSpec, Thresholds
from edge_vision.errors import BundleError
from edge_vision.model_zoo.recipes import RECIPES
from edge_vision.offline.manifest_writer import dump_manifest

FOLDER = Path("/nonexistent/bundle")
GRAPH = GraphSpec("model.onnx", "onnx", "fp32", "0" * 64)
VALID = replace(
    RECIPES["ssdlite_mobilenet_v2_coco"].manifest, graphs=(GRAPH,), figures={"f1": 0.9, "by": [1, 2]}
)
DOCUMENT: dict[str, Any] = yaml.safe_load(dump_manifest(VALID))
REMOVE = object()


def changed(path: str, value: Any) -> str:
    """The valid document as YAML, with one place changed or removed."""
    document = copy.deepcopy(DOCUMENT)
    place: Any = document
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        place = place[part]
    if value is REMOVE:
        del place[last]
    else:
        place[last] = value
    return yaml.safe_dump(document)


def refused(text: str) -> str:
    with pytest.raises(BundleError) as caught:
        parse_manifest(text, FOLDER)
    assert str(caught.value).startswith(str(FOLDER / "bundle.yaml"))
    return str(caught.value)


def test_what_is_dumped_is_read_back_the_same() -> None:
    assert parse_manifest(dump_manifest(VALID), FOLDER) == VALID
    assert dump_manifest(VALID) == dump_manifest(copy.deepcopy(VALID))


@pytest.mark.parametrize(
    "text", ["\x85", "a\u2028b", "a\nb", " a ", "\ufeff", "\t", "1.0", "caf\u00e9", "\U0001f600", "\x07"]
)
def test_odd_text_survives_the_round_trip(text: str) -> None:
    manifest = replace(VALID, description=text)
    assert parse_manifest(dump_manifest(manifest), FOLDER) == manifest


def test_optional_keys_have_the_defaults_of_the_specs() -> None:
    document = copy.deepcopy(DOCUMENT)
    for key in ("description", "source", "thresholds", "figures"):
        del document[key]
    document["input"] = {"name": "x", "width_px": 4, "height_px": 8192}
    document["head"] = {"type": "an_unknown_head"}
    manifest = parse_manifest(yaml.safe_dump(document), FOLDER)
    assert manifest.input == InputSpec("x", 4, 8192)
    assert manifest.head == HeadSpec("an_unknown_head")
    assert manifest.thresholds == Thresholds()
    assert manifest.figures == {}


STAGE = {"wanted": ["person"], "reject_below": 0.1, "accept_from": 0.4, "look_share": 0.5}


def test_a_classifier_may_be_a_stage() -> None:
    document = {**copy.deepcopy(DOCUMENT), "task": "classify", "stage": STAGE}
    manifest = parse_manifest(yaml.safe_dump(document), FOLDER)
    assert manifest.stage == StageSpec(("person",), 0.1, 0.4, 0.5)
    assert "stage" not in dump_manifest(VALID)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"reject_below": 0.5}, "stage: expected reject_below up to accept_from, got 0.5 above 0.4"),
        ({"reject_below": -0.1}, "stage.reject_below: expected a number, 0 to 1, got -0.1"),
        ({"accept_from": "much"}, "stage.accept_from: expected a number, 0 to 1"),
        ({"look_share": 2}, "stage.look_share: expected a number, 0 to 1"),
        ({"wanted": []}, "stage.wanted: expected a list of 1 to 100 labels"),
        ({"wanted": "person"}, "stage.wanted: expected a list of 1 to 100 labels"),
        ({"threshold": 0.5}, "stage.threshold: expected one of wanted"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(change: dict[str, Any], words: str) -> None:
    document = {**copy.deepcopy(DOCUMENT), "task": "classify", "stage": {**STAGE, **change}}
    assert words in refused(yaml.safe_dump(document))


def test_a_detector_is_no_stage() -> None:
    assert "task: expected classify, as it has a stage" in refused(
        yaml.safe_dump({**copy.deepcopy(DOCUMENT), "stage": STAGE})
    )


def test_a_gray_input_has_one_mean() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["input"].update(color="gray", mean=[1], std=[2])
    assert parse_manifest(yaml.safe_dump(document), FOLDER).input.mean == (1.0,)


@pytest.mark.parametrize(
    "path", ["format", "name", "version", "task", "licence", "input", "head", "labels", "graphs"]
)
def test_a_missing_key_is_named(path: str) -> None:
    assert f": {path}: expected" in refused(changed(path, REMOVE))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("format", 2, "format: expected 1"),
        ("format", True, "got True (bool)"),
        ("name", "Has-Capitals", "name: expected 1 to 64 of a-z, 0-9 and _"),
        ("name", "../up", "name: expected"),
        ("name", "ok\n", "name: expected"),
        ("version", 1.0, "version: expected a version like '1.0.0', got 1.0 (float)"),
        ("task", "segment", "task: expected detect or classify, got 'segment' (str)"),
        ("description", 3, "description: expected a text"),
        ("licence", "", "licence: expected"),
        ("input", [], "input: expected a mapping, got [] (list)"),
        ("input.width_px", 0, "input.width_px: expected a whole number of pixels, 1 to 8192, got 0 (int)"),
        ("input.height_px", 8193, "input.height_px: expected"),
        ("input.width_px", 300.0, "input.width_px: expected"),
        ("input.width_px", True, "input.width_px: expected"),
        ("input.layout", "chw", "input.layout: expected nchw or nhwc"),
        ("input.color", "RGB", "input.color: expected rgb, bgr or gray"),
        ("input.dtype", "float64", "input.dtype: expected"),
        ("input.mean", [1, 2], "input.mean: expected a list of 3 numbers, got [1, 2] (list)"),
        ("input.mean", [1, 2, float("nan")], "input.mean: expected"),
        ("input.mean", [1, 2, 10**400], "input.mean: expected"),
        ("input.std", [1, 0, 1], "input.std: expected a list of 3 numbers above 0"),
        ("input.resize", "pad", "input.resize: expected"),
        ("input.pad_value", 256, "input.pad_value: expected"),
        ("head.type", "", "head.type: expected"),
        ("head.outputs", {"boxes": 1}, "head.outputs: expected"),
        ("head.options", [1], "head.options: expected"),
        (
            "thresholds.score_threshold",
            1.01,
            "thresholds.score_threshold: expected a number, 0 to 1, got 1.01",
        ),
        (
            "thresholds.iou_threshold",
            "0.5",
            "thresholds.iou_threshold: expected a number, 0 to 1, got '0.5' (str)",
        ),
        ("thresholds.max_detections", 0, "thresholds.max_detections: expected"),
        ("thresholds.max_detections", 10_000, "thresholds.max_detections: expected"),
        ("graphs", [], "graphs: expected a list of 1 to 64 graphs, got [] (list)"),
        ("graphs.0", "model.onnx", "graphs[0]: expected a mapping"),
        ("graphs.0.sha256", "F" * 64, "graphs[0].sha256: expected 64 lower-case hex digits"),
        ("graphs.0.precision", "fp31", "graphs[0].precision: expected"),
        ("graphs.0.format", "", "graphs[0].format: expected"),
        ("figures", None, "figures: expected"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(path: str, value: Any, words: str) -> None:
    assert words in refused(changed(path, value))


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("licens", "licence"),
        ("input.widht_px", "width_px"),
        ("head.option", "options"),
        ("thresholds.score_treshold", "score_threshold"),
        ("graphs.0.sha265", "sha256"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(path: str, near: str) -> None:
    message = refused(changed(path, 1))
    assert f"got the unknown key {path.split('.')[-1]!r}; did you mean {near!r}?" in message


def test_a_mistyped_required_key_is_called_mistyped_not_missing() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["input"]["widht_px"] = document["input"].pop("width_px")
    assert "did you mean 'width_px'?" in refused(yaml.safe_dump(document))


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "../model.onnx",
        "a/../../b",
        "a//b",
        "./a",
        ".",
        "..",
        "",
        "a\\b",
        "a\0b",
        "a/",
        "~/x",
        3,
    ],
)
@pytest.mark.parametrize("path", ["labels", "graphs.0.file"])
def test_no_file_name_leaves_the_folder(path: str, file: Any) -> None:
    assert "expected a file name inside the bundle's folder" in refused(changed(path, file))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a mapping, got None"),
        ("[1, 2]", "expected a mapping, got [1, 2]"),
        ("a: [", "expected plain YAML"),
        ("name: a\nname: b", "key 'name' is given twice"),
        ("input: {name: a, name: b}", "key 'name' is given twice"),
        ("a: &x [1]\nb: *x", "aliases (*name) are not allowed"),
        ("{[1]: 2}", "a key must be a scalar"),
        ("a: !!python/object/apply:os.system ['true']", "expected plain YAML"),
        ("a: !!bool maybe", "expected plain YAML"),
        ("a: !!float ''", "expected plain YAML"),
        ("a: !!timestamp x", "expected plain YAML"),
        ("[" * 100_000, "expected plain YAML"),
        ("a: \x00", "expected plain YAML"),
        ("# " + "x" * (1 << 20), "expected at most 131072 bytes of YAML"),
        ("1: 2", "got the unknown key 1"),
    ],
)
def test_what_is_no_plain_yaml_mapping_is_refused(text: str, words: str) -> None:
    assert words in refused(text)


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(max_size=4)
)
OBJECTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
PATHS = ["format", "name", "input", "head", "thresholds", "graphs", "labels", "input.mean", "input.width_px"]
PATHS += ["head.type", "head.outputs", "head.options", "graphs.0", "graphs.0.file", "figures", "unknown"]


def parses_or_refuses(text: str) -> None:
    try:
        parse_manifest(text, FOLDER)
    except BundleError as error:
        assert len(str(error)) < 1000


@given(OBJECTS)
@settings(deadline=None)
def test_any_yaml_is_read_or_refused(value: Any) -> None:
    parses_or_refuses(yaml.safe_dump(value, allow_unicode=True))


@given(st.sampled_from(PATHS), OBJECTS)
@settings(max_examples=200, deadline=None)
def test_any_value_in_any_place_is_read_or_refused(path: str, value: Any) -> None:
    parses_or_refuses(changed(path, value))


@given(st.text() | st.text(alphabet="{}[]:,&*!|>-'\"# \n\tab01.<?%@`"))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    parses_or_refuses(text)


FINITE = st.floats(-1e6, 1e6)
WORDS = st.from_regex(r"[a-z0-9_]{1,20}", fullmatch=True)
FREE = st.dictionaries(
    WORDS, st.recursive(st.none() | st.integers() | st.text() | FINITE, st.lists, max_leaves=5)
)
MANIFESTS = st.builds(
    Manifest,
    name=WORDS,
    version=st.just("1.2.3"),
    task=st.sampled_from(["detect", "classify"]),
    description=st.text(),
    licence=st.just("MIT"),
    source=st.text(),
    input=st.builds(
        InputSpec,
        name=WORDS,
        width_px=st.integers(1, 8192),
        height_px=st.integers(1, 8192),
        layout=st.sampled_from(["nchw", "nhwc"]),
        color=st.sampled_from(["rgb", "bgr"]),
        mean=st.tuples(FINITE, FINITE, FINITE),
        std=st.tuples(*[st.floats(1e-3, 1e6)] * 3),
    ),
    head=st.builds(HeadSpec, type=WORDS, outputs=st.dictionaries(WORDS, WORDS), options=FREE),
    thresholds=st.builds(Thresholds, st.floats(0, 1), st.floats(0, 1), st.integers(1, MAX_DETECTIONS)),
    labels_file=st.sampled_from(["labels.txt", "a/b.txt"]),
    graphs=st.lists(
        st.builds(GraphSpec, st.just("m.onnx"), WORDS, st.sampled_from(["fp32", "int8"]), st.just("a1" * 32)),
        min_size=1,
        max_size=3,
    ).map(tuple),
    figures=FREE,
)
STAGES = st.lists(st.floats(0, 1), min_size=2, max_size=2).map(
    lambda pair: StageSpec(("person", "a dog"), min(pair), max(pair))
)


@given(MANIFESTS, st.none() | STAGES)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_manifest_survives_the_round_trip(manifest: Manifest, stage: StageSpec | None) -> None:
    if manifest.task == "classify":
        manifest = replace(manifest, stage=stage)
    assert parse_manifest(dump_manifest(manifest), FOLDER) == manifest


@pytest.mark.parametrize(
    "number", ["1:30", "1:30.5", "0x1f", "0b11", "017", "1_000", "1" * 101, "1." + "1" * 50]
)
def test_a_number_is_decimal_and_short(number: str) -> None:
    """PyYAML takes time that is quadratic in the length of a number in base 60: 1 MB takes minutes."""
    assert load_yaml(f"a: {number}", "x") == {"a": number}


@pytest.mark.parametrize(
    "number", ["0", "-7", "+12", "9" * 100, "1.5", "-1.0e-06", ".5", "1.0e+300", ".inf", "-.inf"]
)
def test_a_decimal_number_is_a_number(number: str) -> None:
    assert load_yaml(f"a: {number}", "x") == yaml.safe_load(f"a: {number}") != {"a": number}


def test_a_manifest_has_a_bounded_size() -> None:
    assert "expected at most 131072 bytes of YAML" in refused("a: 1" + ":00" * 350_000)
    nested = "[" * 100_000
    assert "nested too deeply" in refused(nested)
