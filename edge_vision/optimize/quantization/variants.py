"""The graphs of a study: where each lies, and the job that makes it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edge_vision.bundles.store import Bundle
from edge_vision.optimize.candidate import Candidate, Size
from edge_vision.optimize.quantization import int8_recipe
from edge_vision.optimize.settings import build_only_backends, onnx_backends
from edge_vision.optimize.trial import Trial, TrialOutcome

NAIVE = "int8_default"
"""A precision that is only there to be compared with."""


class Graphs:
    """source: the fp32 bundle. tflite: one with a TFLite graph as it came, or None. pictures: hashes of the
    study's. flags: of the processor. run: does a job."""

    def __init__(
        self,
        source: Bundle,
        tflite: Bundle | None,
        pictures: Mapping[str, str],
        flags: Collection[str],
        run: Callable[[Trial], TrialOutcome],
    ) -> None:
        self._source, self._tflite, self._pictures = source, tflite, pictures
        self._flags, self._run = flags, run

    def folder_of(self, candidate: Candidate) -> str:
        """Within the study's folder. Runtimes and thread counts share a graph."""
        given = self._given(candidate)
        if given is not None:
            return given.folder.name
        # What TensorRT reads is another int8.
        kind = "tensorrt-" if candidate.backend in build_only_backends() and self._recipe(candidate) else ""
        return f"graphs/{kind}{candidate.graph_precision}-{candidate.size}"

    def made(self, candidate: Candidate, kept: Sequence[str]) -> TrialOutcome:
        """bytes, sha256, and for int8 what came out, see `graph`. kept: nodes that mixed leaves in fp32."""
        graph, given = self._source.manifest.graphs[0], self._given(candidate)
        if given is not None:
            own = given.manifest.graphs[0]
            size = (given.folder / own.file).stat().st_size
            return TrialOutcome("done", result={"bytes": size, "sha256": own.sha256})
        folder, recipe = self.folder_of(candidate), self._recipe(candidate)
        args: dict[str, Any] = {
            "source": "source",
            "out": folder,
            "precision": candidate.graph_precision,
            "size": [candidate.size.width_px, candidate.size.height_px],
            "recipe": asdict(recipe) if recipe else None,
            "hashes": [graph.sha256],
        }
        if recipe:
            args.update(calibration="pictures/calibration", ranges=f"ranges/{candidate.size}.json")
            args["kept"] = list(kept) if candidate.precision == "mixed" else []
            args["hashes"] = [graph.sha256, self._pictures["calibration"]]
        return self._run(Trial("graph", folder.replace("graphs/", "graph-"), args))

    def _given(self, candidate: Candidate) -> Bundle | None:
        """The bundle whose graph it runs as it came, if any."""
        if candidate.backend not in onnx_backends() and candidate.backend not in build_only_backends():
            return self._tflite
        native = candidate.size == Size.of(self._source.manifest.input)
        return self._source if native and candidate.graph_precision == "fp32" else None

    def _recipe(self, candidate: Candidate) -> int8_recipe.Int8Recipe | None:
        if candidate.precision == NAIVE:
            return int8_recipe.LIBRARY_DEFAULT
        if candidate.precision in ("int8", "mixed"):
            return int8_recipe.int8_recipe(candidate.backend, self._flags)
        return None
