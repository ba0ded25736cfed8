"""A detector cut to some classes and feature maps: a pure edit of the graph, with the same boxes for what is
kept.

The last layers lose the outputs of the other classes; shapes and splits behind them are changed to fit. The
edited graph is run beside the original, and refused where its outputs differ.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.model_spec import ValidFor
from edge_vision.offline.bundle_folder import write_folder
from edge_vision.offline.onnx_writer import import_onnx
from edge_vision.offline.output_folder import remove_path
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session
from edge_vision.optimize.quantization.decoding_tail import tail_inputs, tail_nodes
from edge_vision.optimize.quantization.graph_edit import with_outputs
from edge_vision.optimize.quantization.make_variant import name_without_variant

CLASS_ROLES = {"ssd": "scores", "nanodet": "rows"}
"""Head -> role of the output whose last axis has the classes, first or after the background."""
_NAMED_CLASSES = 8
_NO_LOGIT = -20.0
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class ClassColumns:
    """Columns of the output that has the classes. output: its name. first: of the first class. rest: columns
    behind the classes."""

    output: str
    first: int
    classes: int
    rest: int

    @property
    def width(self) -> int:
        """All columns."""
        return self.first + self.classes + self.rest

    def kept(self, class_ids: Sequence[int]) -> list[int]:
        """The columns that remain with these classes."""
        wanted = {self.first + i for i in class_ids}
        classes = range(self.first, self.first + self.classes)
        return [column for column in range(self.width) if column not in classes or column in wanted]


def class_columns(bundle: Bundle) -> ClassColumns:
    """Where a bundle's graph has the classes. Raises OptimizeError for heads that cannot be cut."""
    head = bundle.manifest.head
    if head.type not in CLASS_ROLES:
        raise OptimizeError(
            f"{bundle.name}: expected a detector with a head of {' or '.join(CLASS_ROLES)}, got {head.type}"
        )
    first = int(head.type == "ssd" and bool(head.options.get("background", True)))
    reg_max = head.options.get("reg_max", 7)
    rest = 4 * (int(reg_max) + 1) if head.type == "nanodet" else 0
    return ClassColumns(head.outputs[CLASS_ROLES[head.type]], first, len(bundle.labels), rest)


def wanted_ids(labels: Sequence[str], classes: Sequence[str]) -> list[int]:
    """The ids of these labels in the graph's order. Raises OptimizeError for unknown ones."""
    unknown = [name for name in classes if name not in labels]
    if unknown or not classes:
        close = [near for name in unknown for near in difflib.get_close_matches(name, labels, 1)]
        meant = f"; did you mean {', '.join(close)}?" if close else ""
        raise OptimizeError(
            f"--classes: expected labels of the model ({', '.join(labels[:12])}, ...), got "
            f"{', '.join(unknown) or 'none'}{meant}"
        )
    return [i for i, label in enumerate(labels) if label in classes]


def cut_bundle(
    parent: Bundle, folder: Path, classes: Sequence[str], levels: int = 0, valid_for: ValidFor | None = None
) -> Bundle:
    """A bundle's fp32 graph with some of its labels, in a new folder; see `cut`. Raises OptimizeError."""
    columns, class_ids = class_columns(parent), wanted_ids(parent.labels, classes)
    model = graph_session.folded(parent.verify(parent.manifest.graphs[0]))
    data = cut(model, columns, class_ids, levels).SerializeToString(deterministic=True)
    graph = replace(parent.manifest.graphs[0], sha256=hashlib.sha256(data).hexdigest())
    labels = "".join(f"{parent.labels[i]}\n" for i in class_ids).encode()
    kept = ", ".join(parent.labels[i] for i in class_ids)
    if len(class_ids) > _NAMED_CLASSES:
        kept = f"{len(class_ids)} classes"
    manifest = replace(
        parent.manifest,
        description=f"Detects {kept}; student of {name_without_variant(parent.name)}",
        graphs=(graph,),
        figures={},
        labels_file="labels.txt",
        valid_for=valid_for,
    )
    files = {graph.file: data, "labels.txt": labels}
    licence = parent.folder / "LICENSE"
    if licence.is_file():
        files["LICENSE"] = licence.read_bytes()
    remove_path(folder)
    write_folder(folder, manifest, files)
    return load_bundle(f"{folder}{os.sep}")


def cut(model: Any, columns: ClassColumns, class_ids: Sequence[int], levels: int = 0) -> Any:
    """A copy of a folded model with these classes only, and the finest so many feature maps; 0 = all.

    Boxes of other maps have no score. Raises OptimizeError if the graph has another structure.
    """
    kept = columns.kept(class_ids)
    edited = copy.deepcopy(model)
    makers = {name: node for node in edited.graph.node for name in node.output}
    for name in tail_inputs(edited, [columns.output]):
        _cut_layer(edited, makers.get(name), columns.width, kept)
    _cut_shapes(edited, columns, len(class_ids), len(kept))
    for value in edited.graph.output:
        if value.name == columns.output:
            value.type.tensor_type.shape.dim[-1].dim_value = len(kept)
    del edited.graph.value_info[:]
    _check_same(model, edited, columns.output, kept)
    return _without_levels(edited, levels, columns.rest == 0) if levels else edited


def _constants(model: Any) -> dict[str, Any]:
    return {one.name: one for one in model.graph.initializer}


def _cut_layer(model: Any, layer: Any, width: int, kept: Sequence[int]) -> None:
    """Keep the output channels of these columns; a channel's column is its number modulo the width."""
    numpy_helper, constants = import_onnx().numpy_helper, _constants(model)
    if layer is None or layer.op_type != "Conv" or not all(one in constants for one in layer.input[1:]):
        raise OptimizeError(
            "expected convolutions as last layers of the classes, got another layer: use prune"
        )
    arrays = [numpy_helper.to_array(constants[name]) for name in layer.input[1:]]
    channels = np.flatnonzero(np.isin(np.arange(len(arrays[0])) % width, kept))
    for name, array in zip(layer.input[1:], arrays, strict=True):
        constants[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array[channels]), name))


def _cut_shapes(model: Any, columns: ClassColumns, classes: int, width: int) -> None:
    numpy_helper, constants = import_onnx().numpy_helper, _constants(model)
    sizes = {columns.width: width, columns.width - columns.rest: columns.first + classes}
    wanted = {columns.output}
    for node in reversed(model.graph.node):
        if wanted.isdisjoint(node.output) or node.name not in {one.name for one in tail_nodes(model)}:
            continue
        wanted.update(node.input)
        if node.op_type in ("Reshape", "Split") and len(node.input) > 1:
            constant = constants[node.input[1]]
            changed = [sizes.get(size, size) for size in numpy_helper.to_array(constant).tolist()]
            name = f"{node.input[1]}_of_{width}"
            if name not in constants:
                added = numpy_helper.from_array(np.array(changed, np.int64), name)
                model.graph.initializer.append(added)
                constants[name] = added
            node.input[1] = name


def _check_same(model: Any, edited: Any, output: str, kept: Sequence[int]) -> None:
    """Raise OptimizeError unless the outputs are those of the original."""
    sessions = [graph_session.session(one) for one in (model, edited)]
    given = sessions[0].get_inputs()[0]
    tensor = np.random.default_rng(0).normal(0, 1, given.shape).astype(np.float32)
    before, after = (_outputs(session, {given.name: tensor}) for session in sessions)
    before[output] = before[output][..., kept]
    same = all(
        before[name].shape == after[name].shape
        and np.allclose(before[name], after[name], _TOLERANCE, _TOLERANCE)
        for name in before
    )
    if not same:
        raise OptimizeError("expected a graph whose classes can be cut, got other outputs: use prune")


def _outputs(session: Any, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [one.name for one in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def _without_levels(model: Any, levels: int, logits: bool) -> Any:
    """The outputs of further feature maps become constants without an object; what only they need goes."""
    numpy_helper = import_onnx().numpy_helper
    tail = {node.name for node in tail_nodes(model)}
    joined = [n for n in model.graph.node if n.op_type == "Concat" and n.name in tail and len(n.input) > 2]
    count = max((len(node.input) for node in joined), default=0)
    if not 0 < levels <= count:
        raise OptimizeError(
            f"--levels: expected at most {count}, the model's feature maps that can go, got {levels}"
        )
    names = [name for node in joined for name in node.input[levels:]]
    if not names:
        return model
    session = graph_session.session(with_outputs(model, names))
    given = session.get_inputs()[0]
    found = dict(zip(names, session.run(names, {given.name: np.zeros(given.shape, np.float32)}), strict=True))
    makers = {name: node for node in model.graph.node for name in node.output}
    for name, values in found.items():
        model.graph.node.remove(makers[name])
        is_class = logits and values.shape[-1] != 4
        constant = np.full(values.shape, _NO_LOGIT if is_class else 0.0, np.float32)
        model.graph.initializer.append(numpy_helper.from_array(constant, name))
    remove_unused(model)
    return model


def remove_unused(model: Any) -> None:
    wanted = {value.name for value in model.graph.output}
    for node in reversed(list(model.graph.node)):
        if wanted.isdisjoint(node.output):
            model.graph.node.remove(node)
        else:
            wanted.update(node.input)
    unused = [one for one in model.graph.initializer if one.name not in wanted]
    for one in unused:
        model.graph.initializer.remove(one)
