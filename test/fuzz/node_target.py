"""Parameters that a peer sets on real nodes. rclpy is imported when the target is made."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

from message_targets import ROS
from mutator import TEXTS, VALUES, mutate_json
from targets import Target, find_param

from edge_vision.nodes.interface.specs import NODES

KEPT = ("autostart", "model")
"""Read-only, and a bundle that the cache of the run lacks."""


class NodeParameters(Target):
    """One to three parameters of a node: set, or refused with a short reason. The status goes on, and the
    defaults can be set again."""

    name = "node_parameters"
    refusals = (ValueError,)
    needs = ROS

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        os.environ["ROS_LOG_DIR"] = str(folder)
        import rclpy
        from rclpy.parameter import Parameter

        from edge_vision.nodes.cascade_node import CascadeNode
        from edge_vision.nodes.collector_node import CollectorNode
        from edge_vision.nodes.detector_node import DetectorNode
        from edge_vision.nodes.diagnostics_node import DiagnosticsNode
        from edge_vision.nodes.gate_node import GateNode
        from edge_vision.nodes.localizer_node import LocalizerNode
        from edge_vision.nodes.recorder_node import RecorderNode
        from edge_vision.nodes.source_node import SourceNode

        rclpy.init(args=["fuzz"])
        stages = (SourceNode, GateNode, CascadeNode, DetectorNode, DiagnosticsNode)
        kinds = (*stages, LocalizerNode, RecorderNode, CollectorNode)
        self._nodes = {kind.spec.name: kind(overrides={"autostart": False}) for kind in kinds}
        self._parameter = Parameter

    def mutant(self, random: Random) -> bytes:
        return parameters_mutant(random)

    def check(self, data: bytes) -> None:
        given = [one for one in json.loads(data) if find_param(one)]
        if not given:
            return
        node = self._nodes[given[0][0]]
        defaults = [[name, key, find_param([name, key, None]).default] for name, key, _ in given]
        reason = self._set(node, given)
        try:
            node.publish_status()
            for key, value in node.params.values().items():
                assert node.spec.param(key).check(value) == value, f"{key} became {value!r:.80}"
        finally:
            changed = [one for one in defaults if node.params[one[1]] != one[2]]
            back = self._set(node, [one for one in changed if one[1] not in KEPT])
        assert not back, f"the default was refused: {back}"
        if reason:
            raise ValueError(reason)

    def _set(self, node: Any, values: list[Any]) -> str:
        """Set the parameters together, as the node's service does. Returns the reason of a refusal."""
        parameters = [self._parameter(name, value=deliverable(value)) for _, name, value in values]
        if not parameters:
            return ""
        result = node.set_parameters_atomically(parameters)
        return "" if result.successful else result.reason or "no reason was given"


PIPELINE = [node for node in NODES if node.name not in ("updater", "collector")]
"""The nodes that run here; the updater and the collector are no part of the pipeline."""


def parameters_mutant(random: Random) -> bytes:
    """[[node, parameter, value], ...] with one node."""
    node = random.choice(PIPELINE)
    chosen = random.sample(node.params, random.choice((1, 1, 2, 3)) if len(node.params) > 2 else 1)
    return json.dumps([[node.name, one.name, _value(random, one)] for one in chosen]).encode()


def _value(random: Random, param: Any) -> Any:
    if random.random() < 0.3:
        return random.choice((*VALUES, *TEXTS))
    if random.random() < 0.5 and param.range:
        low, high = param.range.low, param.range.high
        return type(param.default)(random.choice((low, high, random.uniform(low, high))))
    return json.loads(mutate_json(random, param.default))


def deliverable(value: Any) -> Any:
    """The value, or its text where ROS has no type for it."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    kinds = {type(item) for item in items}
    if len(kinds) > 1 or not kinds <= {bool, int, float, str}:
        return str(value)[:1000]
    if kinds == {int} and not all(-(2**63) <= item < 2**63 for item in items):
        return str(value)[:1000]
    return items if isinstance(value, (list, tuple)) else value
