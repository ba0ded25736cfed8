"""bundle.yaml, format 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from edge_vision.bundles import schema
from edge_vision.bundles.schema import Section
from edge_vision.core.model_spec import MAX_DETECTIONS, HeadSpec, InputSpec, StageSpec, Thresholds, ValidFor
from edge_vision.errors import BundleError

MANIFEST_FILE = "bundle.yaml"
FORMAT = 1
NAME_PATTERN = r"[a-z0-9_]{1,64}"
TASKS = ("detect", "classify")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "mixed")
KEY_OF = {"labels_file": "labels"}
"""Field of Manifest -> key, where they differ."""
_FILE = "a file name inside the bundle's folder (letters, digits, '._+-/', no '..', not absolute)"


@dataclass(frozen=True, slots=True)
class GraphSpec:
    """One graph file. format: one of a backend's `formats`. sha256: of the file, in hex.

    weights, weights_sha256: a second file that the runtime reads, such as OpenVINO's .bin; "" for none.
    """

    file: str
    format: str
    precision: str
    sha256: str
    weights: str = ""
    weights_sha256: str = ""

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Each file with its sha256."""
        both = ((self.file, self.sha256), (self.weights, self.weights_sha256))
        return tuple(one for one in both if one[0])


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid bundle.yaml. figures: measurements in free form, not used at run time.

    stage: for a classifier that was fitted as a stage of a cascade, else None. valid_for: of a specialised
    detector, else None.
    """

    name: str
    version: str
    task: str
    description: str
    licence: str
    source: str
    input: InputSpec
    head: HeadSpec
    thresholds: Thresholds
    labels_file: str
    graphs: tuple[GraphSpec, ...]
    stage: StageSpec | None = None
    valid_for: ValidFor | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)


def parse_manifest(text: str, folder: Path) -> Manifest:
    """The manifest in the text of a bundle.yaml in `folder`.

    Its files must be inside the folder, but need not exist.
    Raises BundleError with the key path, what was expected and what was found.
    """
    where = str(folder / MANIFEST_FILE)
    keys = ("format", *(KEY_OF.get(name, name) for name in _names(Manifest)))
    top = Section(schema.load_yaml(text, where), where, "", keys)
    top.take("format", schema.one_of(FORMAT), f"{FORMAT} (the only format that this version reads)")
    manifest = Manifest(
        name=top.take("name", schema.matching(NAME_PATTERN), "1 to 64 of a-z, 0-9 and _"),
        version=top.take("version", schema.matching(r"\d{1,9}(\.\d{1,9}){2}"), "a version like '1.0.0'"),
        task=top.take("task", schema.one_of(*TASKS), " or ".join(TASKS)),
        description=top.take("description", schema.text, "a text", ""),
        licence=top.take("licence", schema.matching(r".+"), "the licence of the weights, on one line"),
        source=top.take("source", schema.text, "a text", ""),
        input=_input(top.section("input", _names(InputSpec))),
        head=_head(top.section("head", _names(HeadSpec))),
        thresholds=_thresholds(top.section("thresholds", _names(Thresholds), {})),
        labels_file=top.take("labels", schema.relative_file, _FILE),
        graphs=_graphs(top),
        figures=top.take("figures", schema.plain_mapping, "a mapping with text keys", {}),
        stage=_stage(top),
        valid_for=_valid_for(top),
    )
    for file in (manifest.labels_file, *(file for graph in manifest.graphs for file, _ in graph.files)):
        inside(folder, file)
    return manifest


def inside(folder: Path, file: str) -> Path:
    """The path of a bundle's file. Raises BundleError if a link leads out of the folder."""
    path = folder / file
    try:
        outside = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise BundleError(
            f"{path}: expected a file inside the bundle's folder, got an error: {error}"
        ) from None
    if outside:
        raise BundleError(
            f"{path}: expected a file inside the bundle's folder, got one outside it: {path.resolve()}; "
            "copy the file into the folder"
        )
    return path


def _names(spec: type) -> tuple[str, ...]:
    """The keys of a section are the fields of its spec."""
    return tuple(item.name for item in fields(spec))


def _input(section: Section) -> InputSpec:
    side = (schema.integer(1, 8192), "a whole number of pixels, 1 to 8192")
    color = section.take("color", schema.one_of("rgb", "bgr", "gray"), "rgb, bgr or gray", "rgb")
    channels = 1 if color == "gray" else 3
    per_channel = f"a list of {channels} numbers"
    return InputSpec(
        name=section.take("name", schema.matching(r".{1,256}"), "the name of the graph's input"),
        width_px=section.take("width_px", *side),
        height_px=section.take("height_px", *side),
        layout=section.take("layout", schema.one_of("nchw", "nhwc"), "nchw or nhwc", "nchw"),
        color=color,
        dtype=section.take(
            "dtype", schema.one_of("float32", "float16", "uint8"), "float32, float16 or uint8", "float32"
        ),
        mean=section.take("mean", schema.list_of(schema.number(), channels), per_channel, (0.0,) * channels),
        std=section.take(
            "std", schema.list_of(schema.number(1e-6), channels), per_channel + " above 0", (1.0,) * channels
        ),
        resize=section.take(
            "resize",
            schema.one_of("stretch", "letterbox", "center_crop"),
            "stretch, letterbox or center_crop",
            "stretch",
        ),
        pad_value=section.take("pad_value", schema.integer(0, 255), "a grey value, 0 to 255", 114),
    )


def _head(section: Section) -> HeadSpec:
    """Which heads there are, and what options each takes, is for `detect/heads.py` to say."""
    return HeadSpec(
        type=section.take("type", schema.matching(NAME_PATTERN), "the name of a head, such as 'ssd'"),
        outputs=section.take("outputs", schema.text_mapping, "a mapping of role to output name", {}),
        options=section.take("options", schema.plain_mapping, "a mapping with text keys", {}),
    )


def _thresholds(section: Section) -> Thresholds:
    share = (schema.number(0.0, 1.0), "a number, 0 to 1")
    count = (schema.integer(1, MAX_DETECTIONS), f"a whole number, 1 to {MAX_DETECTIONS}")
    default = Thresholds()
    return Thresholds(
        score_threshold=section.take("score_threshold", *share, default.score_threshold),
        iou_threshold=section.take("iou_threshold", *share, default.iou_threshold),
        max_detections=section.take("max_detections", *count, default.max_detections),
    )


def _graphs(top: Section) -> tuple[GraphSpec, ...]:
    def not_empty(value: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= 64:
            raise ValueError
        return value

    items = top.take("graphs", not_empty, "a list of 1 to 64 graphs")
    return tuple(
        _graph(Section(item, top.where, f"graphs[{i}]", _names(GraphSpec))) for i, item in enumerate(items)
    )


_HASH = (schema.matching(r"[0-9a-f]{64}"), "64 lower-case hex digits")


def _graph(section: Section) -> GraphSpec:
    file = section.take("file", schema.relative_file, _FILE)
    form = section.take("format", schema.matching(NAME_PATTERN), "a graph format, such as 'onnx'")
    weights, weights_sha256 = "", ""
    if form == "openvino":
        # The runtime takes the file of that name by itself: it must be a file that is verified.
        beside = str(PurePosixPath(file).with_suffix(".bin"))
        weights = section.take(
            "weights", schema.one_of(beside), f"{beside!r}, which OpenVINO reads beside {file}"
        )
        weights_sha256 = section.take("weights_sha256", *_HASH)
    return GraphSpec(
        file=file,
        format=form,
        precision=section.take("precision", schema.one_of(*PRECISIONS), ", ".join(PRECISIONS), "fp32"),
        sha256=section.take("sha256", *_HASH),
        weights=weights,
        weights_sha256=weights_sha256,
    )


def _stage(top: Section) -> StageSpec | None:
    if top.take("stage", _anything, "a mapping", None) is None:
        return None
    section, share = top.section("stage", _names(StageSpec)), (schema.number(0.0, 1.0), "a number, 0 to 1")
    top.take("task", schema.one_of("classify"), "classify, as it has a stage")
    stage = StageSpec(
        wanted=section.take("wanted", _words, "a list of 1 to 100 labels"),
        reject_below=section.take("reject_below", *share),
        accept_from=section.take("accept_from", *share),
        look_share=section.take("look_share", *share, 0.0),
    )
    if stage.reject_below > stage.accept_from:
        raise BundleError(
            f"{top.where}: stage: expected reject_below up to accept_from, got {stage.reject_below} above "
            f"{stage.accept_from}: exchange them"
        )
    return stage


def _valid_for(top: Section) -> ValidFor | None:
    if top.take("valid_for", _anything, "a mapping", None) is None:
        return None
    top.take("task", schema.one_of("detect"), "detect, as it has valid_for")
    section = top.section("valid_for", _names(ValidFor))
    return ValidFor(
        teacher=section.take("teacher", schema.matching(r".+"), "name or folder of a bundle"),
        classes=section.take("classes", _words, "a list of 1 to 100 labels"),
        agreement=section.take("agreement", schema.number(0.0, 1.0), "a number, 0 to 1", 0.7),
        scene=section.take("scene", schema.text, "a text", ""),
    )


def _anything(value: Any) -> Any:
    return value


def _words(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= 100:
        raise ValueError
    return tuple(schema.matching(r".+")(word) for word in value)
