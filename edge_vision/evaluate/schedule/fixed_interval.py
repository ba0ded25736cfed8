"""The pipeline with a gate that passes every N-th frame and analyses none.

`python -m edge_vision.evaluate.schedule.fixed_interval N [arguments of the executable pipeline]`
"""

from __future__ import annotations

import sys

from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.geometry.homography import IDENTITY
from edge_vision.gate.frame_gate import GateDecision
from edge_vision.nodes import run
from edge_vision.nodes.gate_node import GateNode
from edge_vision.nodes.pipeline import PIPELINE


class FixedIntervalNode(GateNode):
    """A gate node without evidence. interval: in frames."""

    interval = 1
    _decided = 0

    def _decide(self, frame: Frame) -> GateDecision:
        passed = self._decided % self.interval == 0
        self._decided += 1
        return GateDecision(passed, "interval" if passed else "predicted", NO_REGIONS, IDENTITY)


def main() -> int:
    """Run the pipeline. Returns the exit status."""
    FixedIntervalNode.interval = int(sys.argv[1])
    kinds = [FixedIntervalNode if kind is GateNode else kind for kind in PIPELINE]
    return run.main(kinds, "pipeline", sys.argv[2:])


if __name__ == "__main__":
    raise SystemExit(main())
