"""Installs the package, for colcon and for pip."""

import sys
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "edge_vision"
# What `ros2 run edge_vision NAME` offers. colcon and Debian packages call `setup.py install` or `develop`,
# which install scripts into lib/edge_vision. pip builds a wheel, whose scripts go into bin/ on the
# PATH, where names such as `top` would hide other programs: a wheel has `edge-vision` alone.
EXECUTABLES = (
    "source_node",
    "gate_node",
    "cascade_node",
    "detector_node",
    "diagnostics_node",
    "localizer_node",
    "updater_node",
    "recorder_node",
    "pipeline",
    "doctor",
    "top",
    "metrics",
    "web",
    "web_node",
    "optimize",
)
RUNTIME = ["numpy>=1.26", "opencv-python-headless>=4.6", "psutil>=5.9", "PyYAML>=6.0"]
FETCH = ["onnx>=1.16"]
OPTIMIZE = ["jinja2>=3.1", "matplotlib>=3.7", "onnx>=1.16", "onnxruntime>=1.18", "pycocotools>=2.0.7"]
TRAIN = [*OPTIMIZE, "torch>=2.4"]
EVALUATE = ["matplotlib>=3.7"]
TOP = ["rich>=13.0"]
METRICS = ["prometheus-client>=0.26"]
BAG = ["rosbags>=0.11", "mcap>=1.6"]
WEB = ["aiohttp>=3.9,<4"]
RAY = ["ray>=2.60"]
RECORD = ["mcap>=1.6"]
UPDATE = ["tuf>=7.0.1,<8", "cryptography>=42"]
TEST = [
    "hypothesis",
    "mcap-ros2-support",
    "mypy",
    "pillow",
    "pytest",
    "pytest-timeout",
    "pytest-xdist",
    "ruff",
    "types-psutil",
    "types-PyYAML",
]
SCRIPTS = [f"edge-vision = {NAME}.cli.main:main"]
if {"install", "develop"} & set(sys.argv):
    SCRIPTS += [f"{name} = {NAME}.nodes.cli:{name}" for name in EXECUTABLES]
VERSION = next(
    line.split('"')[1]
    for line in Path(NAME, "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

setup(
    name=NAME,
    version=VERSION,
    description="Object detection on camera topics for small computers, with every frame accounted for.",
    license="Apache-2.0",
    python_requires=">=3.10",
    # The builder of constructed sequences is a tool of this repository, as bench/ is.
    packages=find_packages(include=[NAME, f"{NAME}.*"], exclude=[f"{NAME}.evaluate.sequences"]),
    package_data={"": ["data/*", "templates/*", "static/*/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*"))),
    ],
    # With ROS, package.xml lists the rest, under names unknown to pip. Without ROS, use the extra `runtime`.
    install_requires=["setuptools"],
    extras_require={
        "runtime": RUNTIME,
        "onnxruntime": ["onnxruntime>=1.17"],
        "openvino": ["openvino>=2024.0"],
        "tensorrt": ["tensorrt-rtx-cu13>=1.4"],
        "litert": ["ai-edge-litert>=1.2"],
        "executorch": ["executorch>=1.0", "torch>=2.4"],
        "torchscript": ["torch>=2.4"],
        "nvidia": ["nvidia-ml-py>=12.535"],
        "fetch": FETCH,
        "optimize": OPTIMIZE,
        "train": TRAIN,
        "evaluate": EVALUATE,
        "top": TOP,
        "metrics": METRICS,
        "bag": BAG,
        "record": RECORD,
        "update": UPDATE,
        "web": WEB,
        "ray": RAY,
        "test": TEST + FETCH + TOP + METRICS + BAG + RECORD + UPDATE + WEB + RUNTIME,
    },
    entry_points={"console_scripts": SCRIPTS},
    zip_safe=False,
)
