"""Targets of `make fuzz` that need neither ROS nor a runtime: manifests, compressed images and parameters."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from mutator import TEXTS, VALUES, mutate_bytes, mutate_json

from edge_vision.bundles.manifest import MANIFEST_FILE, parse_manifest
from edge_vision.bundles.store import load_bundle
from edge_vision.core.compressed import compressed_frame
from edge_vision.core.image_headers import read_header
from edge_vision.errors import BundleError, ImageError
from edge_vision.nodes.interface.specs import NODES
from edge_vision.offline.manifest_writer import dump_manifest

CORPUS = Path(__file__).parent / "corpus"


class Target:
    """One kind of input. Subclasses say which errors document a refusal; any other one is a failure.

    needs: modules without which the target is skipped. share: of the time of a run. timed: whether a mutant
    that takes too long is a failure.
    """

    name = ""
    refusals: tuple[type[Exception], ...] = ()
    needs: tuple[str, ...] = ()
    share = 1
    timed = False
    tokens: Sequence[bytes] = ()

    def __init__(self, folder: Path) -> None:
        """folder: for files that a check needs."""
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.seeds = [file.read_bytes() for file in sorted((CORPUS / self.name).iterdir())]

    def mutant(self, random: Random) -> bytes:
        """The next mutant."""
        return mutate_bytes(random, self.seeds, self.tokens)

    def check(self, data: bytes) -> None:
        """Pass a mutant to the code under test. Raises one of `refusals`, or anything else for a failure."""
        raise NotImplementedError

    def close(self) -> None:
        """End what the target has started."""


class JsonTarget(Target):
    """Mutants are JSON documents."""

    def mutant(self, random: Random) -> bytes:
        return mutate_json(random, json.loads(random.choice(self.seeds)))


class Manifests(Target):
    """bundle.yaml in a folder that has the other files. A valid one keeps its text when written again."""

    name = "manifests"
    refusals = (BundleError,)
    tokens = tuple(
        text.encode()
        for text in (
            *(
                "!!python/object:os.system ",
                "&a ",
                "*a",
                "<<: ",
                "? ",
                "| ",
                "> ",
                "\t",
                "---\n",
                "~",
                "1:1:1",
            ),
            *(
                "0x7f",
                "0o7",
                "1_000",
                ".inf",
                "-.inf",
                ".nan",
                "1e400",
                "2001-01-01",
                "- " * 300,
                "'",
                '"',
                "#",
            ),
            *(
                "name: a\n",
                "graphs: []\n",
                "!!binary aa==",
                "!!set {a}",
                "!!timestamp 1",
                "yes",
                "null",
                *TEXTS,
            ),
        )
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "labels.txt").write_text("person\ncar\n")
        (folder / "model.onnx").write_bytes(b"graph")

    def mutant(self, random: Random) -> bytes:
        """Half of the mutants are values of a manifest as JSON, which is YAML: these are valid more often."""
        if random.random() < 0.5:
            return super().mutant(random)
        return mutate_json(random, yaml.safe_load(random.choice(self.seeds)))

    def check(self, data: bytes) -> None:
        (self.folder / MANIFEST_FILE).write_bytes(data)
        text = dump_manifest(load_bundle(str(self.folder)).manifest)
        assert dump_manifest(parse_manifest(text, self.folder)) == text, "the manifest reads back differently"


class Images(Target):
    """Compressed images of all formats: header, then every way to read the pixels."""

    name = "images"
    refusals = (ImageError,)
    _declared = (
        *(
            "jpeg",
            "",
            "rgb8; jpeg compressed bgr8",
            "rgb8; jpeg compressed rgb8",
            "bayer_rggb8; png compressed ",
        ),
        *("bayer_grbg16; png compressed ", "16UC1; compressedDepth", "mono8; tiff compressed "),
    )
    max_pixels = 1e6

    def check(self, data: bytes) -> None:
        header = read_header(np.frombuffer(data, np.uint8))
        assert min(header.width_px, header.height_px) >= 0, header
        declared = self._declared[zlib.crc32(data) % len(self._declared)]
        frame = compressed_frame(data, declared, 0, "camera", max_pixels=self.max_pixels)
        assert frame.small_gray(8).ndim == 2
        size = frame.height_px, frame.width_px
        assert frame.bgr().shape == (*size, 3) and frame.gray().shape == size


class Parameters(JsonTarget):
    """[node, parameter, value] as its spec checks it; an accepted value is of the type and stays accepted."""

    name = "parameters"
    refusals = (ValueError,)

    def mutant(self, random: Random) -> bytes:
        node = random.choice(NODES)
        param = random.choice(node.params)
        if random.random() < 0.5:
            return mutate_json(random, [node.name, param.name, param.default])
        return json.dumps([node.name, param.name, random.choice((*VALUES, *TEXTS))]).encode()

    def check(self, data: bytes) -> None:
        document = json.loads(data)
        found = find_param(document)
        if found is None:
            return
        checked = found.check(document[2])
        assert found.type_name == "string[]" or type(checked) is type(found.default), checked
        assert found.check(checked) == checked


def find_param(document: Any) -> Any:
    """The parameter that a [node, parameter, value] names; None if its names were mutated."""
    if not isinstance(document, list) or len(document) < 3:
        return None
    return next(
        (p for n in NODES for p in n.params if n.name == document[0] and p.name == document[1]),
        None,
    )


TARGETS = (
    "targets:Manifests",
    "graph_targets:Graphs",
    "graph_targets:TfliteGraphs",
    "graph_targets:OpenVinoGraphs",
    "targets:Images",
    "targets:Parameters",
    "message_targets:FrameEvents",
    "message_targets:DetectionMessages",
    "message_targets:LocalizerInputs",
    "node_target:NodeParameters",
    "live_target:LivePipeline",
)


def target_class(path: str) -> type[Target]:
    """The class at "module:Class"."""
    module, _, name = path.partition(":")
    found: type[Target] = getattr(import_module(module), name)
    return found
