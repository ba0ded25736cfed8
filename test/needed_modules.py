"""Modules that some test files import and not every machine has. Without one, the file is one skipped test.

A skip raised during the import is no substitute: plug-ins that import test modules, such as launch_testing's,
take it for the end of the whole collection.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROS = {
    "rclpy": "source ROS 2, or run `make setup`",
    "vision_msgs": "install ros-$ROS_DISTRO-vision-msgs, or run `make setup`",
}
LAUNCH = dict.fromkeys(("ament_index_python", "launch_ros"), "source ROS 2")
RICH = {"rich": "run `make setup-test`"}
BAGS = {"rosbags": "run `make setup-test`"}
RECORD = dict.fromkeys(("mcap", "mcap_ros2", "rosbags"), "run `make setup-test`")
PROMETHEUS = {"prometheus_client": "run `make setup-test`"}
WEB = {"aiohttp": "run `make setup-test`"}
UPDATES = dict.fromkeys(("tuf", "cryptography"), "run `make setup-test`")
TORCH = {"torch": "run `make setup-train`"}
REPORT = dict.fromkeys(("jinja2", "matplotlib"), "run `make setup-test`")
TF = {"tf2_msgs": "install ros-$ROS_DISTRO-tf2-msgs, or run `make setup`"}
COCO = {"pycocotools": "run `make setup-test`"}
NEEDED: dict[str, dict[str, str]] = {
    "nodes": ROS,
    "e2e": ROS,
    "e2e/test_top_live.py": RICH,
    "e2e/test_metrics_live.py": PROMETHEUS,
    "e2e/test_prometheus_live.py": PROMETHEUS,
    "e2e/test_recorder_live.py": RECORD,
    "e2e/test_web_browser.py": WEB,
    "e2e/test_dataset_browser.py": WEB,
    "e2e/test_web_live.py": WEB,
    "launch": {**ROS, **LAUNCH},
    "nodes/test_bag_source.py": {**ROS, **BAGS},
    "nodes/test_localizer.py": {**ROS, **TF},
    "nodes/test_recorder_node.py": {**ROS, **RECORD},
    "nodes/test_types.py": {**ROS, **TF},
    "nodes/test_updater.py": {**ROS, **UPDATES},
    "nodes/test_updater_parameters.py": {**ROS, **UPDATES},
    "nodes/test_updater_shadow.py": {**ROS, **UPDATES},
    "unit/test_accuracy_chain.py": COCO,
    "unit/test_accuracy_scores.py": COCO,
    "unit/test_bag.py": BAGS,
    "unit/test_dataset_review.py": WEB,
    "unit/test_metrics.py": PROMETHEUS,
    "unit/test_train_labels.py": COCO,
    "unit/test_optimize_ground_truth.py": {**COCO, **REPORT},
    "unit/test_optimize_report.py": REPORT,
    "unit/test_optimize_run.py": REPORT,
    "unit/test_optimize_study.py": REPORT,
    "unit/test_parameter_files.py": ROS,
    "unit/test_record_files.py": RECORD,
    "unit/test_recorder.py": RECORD,
    "unit/test_run_bag.py": RECORD,
    "unit/test_top.py": RICH,
    "unit/test_updates_client.py": UPDATES,
    "unit/test_updates_repository.py": UPDATES,
    "unit/test_train_auto.py": {**TORCH, **REPORT},
    "unit/test_train_features.py": TORCH,
    "unit/test_train_graph.py": TORCH,
    "unit/test_updates_slots.py": UPDATES,
    "unit/test_web_live.py": WEB,
    "unit/test_web_server.py": WEB,
    "unit/test_train_prune.py": TORCH,
    "unit/test_train_qat.py": TORCH,
    "unit/test_train_search.py": TORCH,
    "unit/test_train_state.py": {**TORCH, **REPORT},
    "unit/test_train_student.py": TORCH,
}
"""File or folder below test/ -> module -> how to install it."""


def missing(file: Path) -> str:
    """Why a test file cannot be imported and the remedy; "" if it can."""
    path = file.relative_to(HERE)
    for known in (path, *path.parents):
        for module, remedy in NEEDED.get(known.as_posix(), {}).items():
            if not _installed(module):
                return f"the module {module} is not installed: {remedy}"
    return ""


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # Being imported, or blocked.
        return False


class Unavailable(pytest.File):
    """Replaces a test file that cannot be imported."""

    def collect(self) -> Iterator[pytest.Item]:
        yield Skipped.from_parent(self, name="requirements")


class Skipped(pytest.Item):
    def runtest(self) -> None:
        pytest.skip(missing(self.path))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.name
