"""The loss of quantized models against the fp32 one on the same tensors, in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from edge_vision.backends.base import TensorSpec
from edge_vision.backends.selection.parity import sqnr_db
from edge_vision.bundles.store import Bundle
from edge_vision.core.detections import Detections
from edge_vision.detect.heads import DetectionHead, Head, make_head
from edge_vision.offline.progress import Count, no_count
from edge_vision.optimize.agreement import classifier_agreement, detector_agreement
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session
from edge_vision.optimize.quantization.decoding_tail import tail_inputs
from edge_vision.optimize.quantization.graph_edit import dequantized, with_outputs

THRESHOLD_OFFSETS = tuple(round(0.05 * i, 2) for i in range(-4, 5))
"""Added to the detector's own score threshold."""
LAYER_IMAGES = 6
"""Images for the loss of a single layer, with detections and evenly over the clip."""

_LEAST_DB = -99.0
"""SQNR of tensors that are not finite or have another shape."""

Outputs = dict[str, np.ndarray]


class QuantizationLoss:
    """bundle: with the fp32 graph. folded: that graph, folded. tensors: inputs to compare on. corrected:
    number and outputs of a tensor -> the outputs whose boxes are expected. show: receives the number of
    tensors that are done whenever all of them are compared."""

    def __init__(
        self,
        bundle: Bundle,
        folded: Any,
        tensors: Sequence[np.ndarray],
        corrected: Callable[[int, Outputs], Outputs] = lambda number, outputs: outputs,
        show: Count = no_count,
    ) -> None:
        """Raises OptimizeError if the fp32 model detects nothing."""
        manifest, self._show = bundle.manifest, show
        self._input, self._tensors, self._thresholds = manifest.input.name, tensors, manifest.thresholds
        self._side_px = manifest.input.width_px, manifest.input.height_px
        own = self._thresholds.score_threshold
        self._scores = sorted({min(0.95, max(0.05, own + offset)) for offset in THRESHOLD_OFFSETS})
        # The outputs mix roles and may be sorted. What the head ignores, as a classifier's features, is
        # irrelevant.
        self._compared = tail_inputs(folded, manifest.head.outputs.values())
        session = graph_session.session(folded)
        outputs = session.get_outputs()
        specs = [TensorSpec(o.name, tuple(_side(s) for s in o.shape), "float32") for o in outputs]
        self._head: Head = make_head(manifest.head, manifest.input, specs, len(bundle.labels))
        running = graph_session.session(with_outputs(folded, self._compared))
        self._reference = self._all(running, tensors)
        self._expected = [self._decode(corrected(i, one)) for i, one in enumerate(self._reference)]
        self._order = self._informative_first()

    @property
    def found_classes(self) -> frozenset[int]:
        """Ids of the classes that a detector is expected to find on the images."""
        score = self._thresholds.score_threshold
        return frozenset(int(i) for one in self._expected for i in _above(one, score).class_ids)

    def of(self, model: Any, images: int = 0) -> tuple[float, float]:
        """Agreement, and mean SQNR in dB of what the decoding tail reads.

        images: number to compare, those with detections first; 0 = all.
        """
        compared = {name: dequantized(model).get(name, name) for name in self._compared}
        session = graph_session.session(with_outputs(model, list(compared.values())))
        chosen = self._order[: images or None]
        outputs = self._all(session, [self._tensors[i] for i in chosen], quiet=bool(images))
        noise = [
            sqnr_db(
                {name: self._reference[i][name] for name in compared},
                {name: output[read] for name, read in compared.items()},
            )
            for i, output in zip(chosen, outputs, strict=True)
        ]
        return self._agreement([self._decode(output) for output in outputs], chosen), float(
            np.mean(np.maximum(noise, _LEAST_DB))
        )

    def of_other_size(self, model: Any, native: QuantizationLoss, images: int = 0) -> float:
        """Agreement of a model of this input size with the reference of another one on the same images; boxes
        are scaled. images: number to compare; 0 = all."""
        session = graph_session.session(with_outputs(model, self._compared))
        chosen = native._order[: images or None]
        tensors = [self._tensors[i] for i in chosen]
        found = [self._decode(one) for one in self._all(session, tensors, quiet=bool(images))]
        if isinstance(self._head, DetectionHead):
            ratio = [native._side_px[i] / self._side_px[i] for i in (0, 1)]
            scale = np.array([*ratio, *ratio], np.float32)
            found = [replace(one, xyxy_px=one.xyxy_px * scale) for one in found]
        return native._agreement(found, chosen)

    def of_moved(self, model: Any, tensors: Sequence[np.ndarray], moved_px: float) -> float:
        """Agreement of a model on the same pictures, moved to the right, of which the boxes are moved back:
        the noise of the reference itself. moved_px: in pixels of the input tensor."""
        session = graph_session.session(with_outputs(model, self._compared))
        found = [self._decode(one) for one in self._all(session, tensors)]
        back = np.array([moved_px, 0, moved_px, 0], np.float32)
        boxes = [replace(one, xyxy_px=one.xyxy_px - back) for one in found]
        return self._agreement(boxes, list(range(len(tensors))))

    def _informative_first(self) -> list[int]:
        """Indices of the tensors; for a detector, some with detections first, evenly over the clip."""
        everything = list(range(len(self._tensors)))
        if not isinstance(self._head, DetectionHead):
            return everything
        with_boxes = [i for i, found in enumerate(self._expected) if len(found)]
        if not with_boxes:
            raise OptimizeError(
                "expected objects in the clip, got no detection of the fp32 model; use a clip "
                "that contains its classes"
            )
        first = with_boxes[:: max(1, len(with_boxes) // LAYER_IMAGES)][:LAYER_IMAGES]
        return first + [i for i in everything if i not in first]

    def _all(self, session: Any, tensors: Sequence[np.ndarray], quiet: bool = False) -> list[Outputs]:
        """The outputs of each tensor."""
        found = []
        for number, tensor in enumerate(tensors, 1):
            found.append(self._run(session, tensor))
            if not quiet:
                self._show(number, len(tensors))
        return found

    def _run(self, session: Any, tensor: np.ndarray) -> Outputs:
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, {self._input: tensor}), strict=True))

    def _decode(self, outputs: Outputs) -> Any:
        """Class scores, or the boxes at the lowest threshold, which include those at higher ones."""
        if isinstance(self._head, DetectionHead):
            lowest = replace(self._thresholds, score_threshold=min(self._scores))
            boxes = self._head.decode(outputs, lowest)
            return Detections(boxes.xyxy_model, boxes.scores, boxes.class_ids)
        return self._head.decode(outputs)

    def _agreement(self, found: list[Any], chosen: Sequence[int]) -> float:
        expected = [self._expected[i] for i in chosen]
        if not isinstance(self._head, DetectionHead):
            return classifier_agreement(np.stack(found), np.stack(expected)).value
        values = []
        for score in self._scores:
            ours, reference = ([_above(one, score) for one in side] for side in (found, expected))
            if any(map(len, reference)):
                values.append(detector_agreement(ours, reference).value)
        return float(np.mean(values))


def _above(found: Detections, score: float) -> Detections:
    keep = found.scores >= score
    return Detections(found.xyxy_px[keep], found.scores[keep], found.class_ids[keep])


def _side(side: Any) -> int | None:
    return side if isinstance(side, int) else None
