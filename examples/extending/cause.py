#!/usr/bin/env python3
"""Adds a cause to those that /diagnostics names: the camera's lens is covered.

python examples/extending/cause.py                            apply it to a made-up report
python examples/extending/cause.py pipeline --source x.mp4    run the pipeline with it
"""

from __future__ import annotations

import sys

from edge_vision.diagnostics.causes import CUSTOM_CAUSES, WARN, Match, find_cause
from edge_vision.diagnostics.snapshot import NodeReport, PipelineSnapshot
from edge_vision.nodes import cli

DARK_GREY_LEVELS = 0.5


@CUSTOM_CAUSES.add("lens_covered", WARN, "Uncover the lens.")
def lens_covered(snapshot: PipelineSnapshot) -> Match | None:
    """The detector finds nothing and the image has no noise at all."""
    gate = snapshot.stage("gate")
    noise = gate.number("gate.noise_grey_levels") if gate else None
    if noise is None or noise > DARK_GREY_LEVELS or not snapshot.nothing_inferred:
        return None
    return Match(f"the image is uniform (noise {noise:.1f} grey levels): uncover the lens")


def main() -> int:
    if len(sys.argv) > 1:  # The nodes run in this process, and so use the cause.
        return cli.main()
    gate = NodeReport("gate", values={"gate.noise_grey_levels": "0.1"})
    detector = NodeReport("detector", increments={"ledger.received": 10, "ledger.inferred": 0})
    cause = find_cause(PipelineSnapshot((gate, detector)))
    assert cause is not None
    print(f"{cause.name}: {cause.text}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
