"""A draft of a bundle: the manifest, and a table of the guesses and their reasons."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edge_vision.backends.base import TensorSpec
from edge_vision.bundles import schema
from edge_vision.bundles.manifest import MANIFEST_FILE, GraphSpec, Manifest, parse_manifest
from edge_vision.bundles.store import sha256_of
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.detect.heads import HEADS
from edge_vision.errors import BundleError
from edge_vision.importer.head_evidence import HeadEvidence, HeadGuess, format_shape
from edge_vision.importer.head_rules import recognise_head
from edge_vision.importer.labels import Labels, known_labels, labels_for, numbered, why_unused
from edge_vision.importer.model import (
    ImageTensor,
    Model,
    ModelSource,
    batch_remedy,
    find_image_tensor,
    size_constants,
)
from edge_vision.importer.preprocessing import FAMILIES, FAMILY_OF_HEAD, input_spec
from edge_vision.importer.probe import Probe, probe_graph
from edge_vision.importer.shape_rules import SUFFIX_OF_TASK
from edge_vision.offline.manifest_writer import dump_manifest

LABELS_FILE = "labels.txt"
NOT_GIVEN = "not given"
# Graphs that take any size are often exported with an image of a few pixels.
_TINY_PX = 64
_TASKS = ("detect", "classify", *SUFFIX_OF_TASK)
_SETTABLE = ("description", "licence", "source", "version", "input", "head", "thresholds", "figures")

Ask = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the user. size: width and height in pixels. settings: KEY=VALUE of the manifest."""

    head: str | None = None
    labels: Path | None = None
    size: tuple[int, int] | None = None
    name: str | None = None
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. why: the reason for the value. option: what changes it."""

    what: str
    value: str
    why: str
    option: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A bundle that is not written yet.

    graph: the graph file's bytes. unknown: what could not be guessed.
    """

    manifest: Manifest
    labels: tuple[str, ...]
    graph: bytes
    outputs: tuple[TensorSpec, ...]
    rows: tuple[Row, ...]
    unknown: tuple[Row, ...]


def make_draft(source: ModelSource, options: Options, workspace: Path, ask: Ask | None = None) -> Draft:
    """Guess everything that the options leave open.

    workspace: an empty folder for the graph. ask: asks the user a question; None without a terminal. Raises
    BundleError if something is missing that cannot be guessed.
    """
    model = source.model
    _check_task(model)
    image_tensor = find_image_tensor(model)
    size, size_why = _size(model, image_tensor, options, ask)
    known = known_labels(model, options.labels)
    n_labels = len(known[0]) if known else None
    file = workspace / f"model.{model.format}"
    with batch_remedy(model, image_tensor):
        graph = source.fixed(image_tensor.name, image_tensor.shape(*size), size_constants(model, *size))
        file.write_bytes(graph)
        probe = probe_graph(file, model.format, model.outputs, model.path)
        declared = model.metadata.get("task", ""), _keypoints(model)
        evidence = HeadEvidence(model.format, *size, probe.outputs, probe.values, n_labels, *declared)
        guess = _head(model, evidence, options)
    found = _labels(model, guess, known, options, ask)
    labels = found[0] if found else numbered(guess.n_classes or 0)
    family = FAMILIES[_family(model, guess, image_tensor)]
    spec, numbers_why = input_spec(image_tensor, *size, family, model)
    graph_spec = GraphSpec(file.name, model.format, model.precision, sha256_of(file))
    manifest = _manifest(model, guess, spec, options, graph_spec, family.thresholds)
    rows = _rows(model, manifest, guess, probe, size_why, numbers_why, family.label)
    unknown: list[Row] = []
    if found:
        rows.append(Row("labels", _few(labels), found[1], "--labels"))
    else:
        unknown.append(Row("labels", _few(labels), why_unused(model, known), "--labels FILE"))
    if manifest.licence == NOT_GIVEN:
        unknown.append(Row("licence", NOT_GIVEN, "", "--set licence=NAME"))
    return Draft(manifest, labels, graph, probe.outputs, tuple(rows), tuple(unknown))


def with_settings(manifest: Manifest, settings: tuple[str, ...]) -> Manifest:
    """The manifest with KEY=VALUE settings, as in input.resize=letterbox. Raises BundleError."""
    document: dict[str, Any] = schema.load_yaml(dump_manifest(manifest), MANIFEST_FILE)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise BundleError(f"--set {setting}: expected KEY=VALUE, as in input.resize=letterbox")
        _put(document, key, text)
    return parse_manifest(yaml.safe_dump(document, sort_keys=False), Path())


def _put(document: dict[str, Any], key: str, text: str) -> None:
    *path, last = key.split(".")
    section: Any = document
    for part in path:
        section = section.get(part) if isinstance(section, dict) else None
    if (path or [last])[0] not in _SETTABLE or not isinstance(section, dict):
        raise BundleError(
            f"--set {key}: expected a key below {', '.join(_SETTABLE)} of bundle.yaml, got '{key}'"
        )
    section[last] = schema.load_yaml(text, f"--set {key}")


def _check_task(model: Model) -> None:
    """Raise BundleError for another task: the outputs of such a model resemble a detector's."""
    task = model.metadata.get("task", "detect")
    if "names" in model.metadata and task not in _TASKS:
        raise BundleError(
            f"{model.path}: expected a model for one of the tasks {', '.join(_TASKS)}, got one for the task "
            f"'{task:.40}'; edge_vision has no head for it"
        )


def _keypoints(model: Model) -> tuple[int, int] | None:
    """kpt_shape in Ultralytics' metadata, such as [17, 3]. Raises BundleError if it is another value."""
    text = model.metadata.get("kpt_shape")
    if text is None:
        return None
    numbers = re.fullmatch(r"[\[(] *([1-9]\d{0,2}), *([23]) *[\])]", text)
    if not numbers:
        raise BundleError(
            f"{model.path}: expected kpt_shape in the file's metadata as [17, 3], got {text!r:.40}"
        )
    return int(numbers[1]), int(numbers[2])


def _size(
    model: Model, image_tensor: ImageTensor, options: Options, ask: Ask | None
) -> tuple[tuple[int, int], str]:
    """Width and height in pixels, and why."""
    if options.size:
        return options.size, "as given"
    if image_tensor.width_px and image_tensor.height_px:
        small = max(image_tensor.width_px, image_tensor.height_px) < _TINY_PX
        hint = ", and very small: is it the size to run at?" if small else ""
        return (image_tensor.width_px, image_tensor.height_px), f"the graph's own{hint}"
    numbers = re.fullmatch(r"\[?([1-9]\d{0,3}),? *([1-9]\d{0,3})?\]?", model.metadata.get("imgsz", ""))
    if numbers:
        height = int(numbers[1])
        return (int(numbers[2] or height), height), "imgsz in the file's metadata"
    accepted = f"{image_tensor.width_px or 'any'}x{image_tensor.height_px or 'any'}"
    if ask is None:
        raise BundleError(
            f"{model.path}: expected an input of one size, the graph takes {accepted}; give the "
            f"size that it was trained for: --input-size 640x640"
        )
    answer = ask(f"the graph takes images of {accepted}; size that it was trained for, as 640x640: ")
    return parse_size(answer), "as answered"


def parse_size(text: str) -> tuple[int, int]:
    """ "640x480" or "640" -> width and height in pixels. Raises BundleError."""
    numbers = re.fullmatch(r"\s*(\d{1,4})(?:\s*x\s*(\d{1,4}))?\s*", text)
    width, height = (int(numbers[1]), int(numbers[2] or numbers[1])) if numbers else (0, 0)
    if not (1 <= width <= 8192 and 1 <= height <= 8192):
        raise BundleError(f"expected a size as WIDTHxHEIGHT in pixels, 1 to 8192, got {text!r:.40}")
    return width, height


def _head(model: Model, evidence: HeadEvidence, options: Options) -> HeadGuess:
    if options.head and options.head not in HEADS:
        raise BundleError(f"expected a head out of {', '.join(HEADS)}, got '{options.head}'")
    if options.head and any(setting.startswith("head.outputs") for setting in options.settings):
        # The head checks its outputs itself when the bundle is tried.
        return HeadGuess(FAMILY_OF_HEAD[options.head], HeadSpec(options.head), None, "as given")
    guess = recognise_head(evidence, options.head)
    if guess:
        return guess
    found = "; ".join(f"'{one.name}' {format_shape(one.shape)} {one.dtype}" for one in evidence.outputs)
    wanted = f"outputs for the head '{options.head}'" if options.head else "outputs that a head reads"
    raise BundleError(
        f"{model.path}: expected {wanted}, got {found} at {evidence.width_px}x{evidence.height_px}; "
        f"docs/models.md lists what each head reads. If one fits: --head NAME --set "
        f"'head.outputs={{ROLE: OUTPUT}}' --labels FILE"
    )


def _labels(
    model: Model, guess: HeadGuess, known: Labels | None, options: Options, ask: Ask | None
) -> Labels | None:
    """The labels; None if the classes are numbered. Raises BundleError if even their number is unknown."""
    found = labels_for(model, known, guess.n_classes, guess.family, options.labels is not None)
    if found or guess.n_classes is not None:
        return found
    if ask is None:
        raise BundleError(
            f"{model.path}: expected labels, the file has neither names nor their number; give one per line: "
            f"--labels FILE"
        )
    path = Path(ask("file with the labels, one per line: ").strip()).expanduser()
    return known_labels(model, path)


def _family(model: Model, guess: HeadGuess, image_tensor: ImageTensor) -> str:
    """The family. All classifiers have the same outputs, so the metadata and the layout decide."""
    if guess.family == "classifier" and "names" in model.metadata:
        return "ultralytics_classifier"
    if guess.family == "classifier" and image_tensor.layout == "nhwc":
        return "tf_classifier"
    return guess.family


def _manifest(
    model: Model,
    guess: HeadGuess,
    spec: InputSpec,
    options: Options,
    graph: GraphSpec,
    thresholds: Thresholds,
) -> Manifest:
    description = " ".join(model.metadata.get("description", "").split())
    manifest = Manifest(
        name=options.name or bundle_name(model.path),
        version="1.0.0",
        task="classify" if guess.spec.type == "classifier" else "detect",
        description=description[:200] or f"{model.path.name}, {spec.width_px}x{spec.height_px}",
        licence=" ".join(model.metadata.get("license", "").split())[:200] or NOT_GIVEN,
        source=f"{model.path.name}, sha256 {model.sha256}",
        input=spec,
        head=guess.spec,
        thresholds=thresholds,
        labels_file=LABELS_FILE,
        graphs=(graph,),
    )
    return with_settings(manifest, options.settings)


def bundle_name(path: Path) -> str:
    """The name of a bundle from that of a file."""
    return re.sub(r"[^a-z0-9]+", "_", path.stem.lower()).strip("_")[:64] or "model"


def _rows(
    model: Model,
    manifest: Manifest,
    guess: HeadGuess,
    probe: Probe,
    size_why: str,
    numbers_why: str,
    label: str,
) -> list[Row]:
    spec = manifest.input
    ran = (
        f"run once on noise by {probe.backend}"
        if probe.backend
        else f"not run: no installed backend reads {model.format}"
    )
    made_by = f", made by {model.producer}" if model.producer else ""
    numbers = f"mean {_numbers(spec.mean)}, std {_numbers(spec.std)}"
    return [
        Row("model", f"{model.format} {model.precision}, {model.size_bytes / 1e6:.1f} MB{made_by}", ran, ""),
        Row("name", manifest.name, "", "--name"),
        Row("head", manifest.head.type, guess.why, "--head"),
        Row("options", _numbers(manifest.head.options) or "none", "", "--set head.options.KEY="),
        Row("size", f"{spec.width_px}x{spec.height_px}", size_why, "--input-size"),
        Row("input", f"{spec.name}, {spec.layout}, {spec.dtype}", "the graph's own", ""),
        Row("color", spec.color, f"as {label}", "--set input.color="),
        Row("numbers", numbers, numbers_why, "--set input.mean=, .std="),
        Row("resize", spec.resize, f"as {label}", "--set input.resize="),
        Row(
            "thresholds",
            f"score {manifest.thresholds.score_threshold:g}, iou {manifest.thresholds.iou_threshold:g}",
            f"as {label}",
            "--set thresholds.KEY=",
        ),
    ]


def _numbers(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(f'{number:g}' for number in value)}]"
    return ", ".join(f"{key}: {one}" for key, one in value.items())


def _few(labels: tuple[str, ...]) -> str:
    names = labels if len(labels) <= 4 else (*labels[:2], "...", labels[-1])
    return f"{len(labels)}: {', '.join(names)}"
