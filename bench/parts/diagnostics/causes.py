"""One cause provoked with real nodes, and how long until it is named. Started by bench/diagnostics.py.

python bench/parts/diagnostics/causes.py no_publisher

The clock starts when the fault is there and all nodes are up; it stops when another context, as in another
process, has it on /diagnostics over DDS.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from parts.common import REPO

sys.path[:0] = [str(REPO / "test"), str(REPO / "test" / "unit")]

from cause_cases import PROVOKED, CauseScene, Output  # noqa: E402
from ros_cases import Robot, Running  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[one.__name__ for one in PROVOKED])
    parser.add_argument("--domain", type=int, required=True)
    options = parser.parse_args()
    print("RESULT " + json.dumps(provoke(options.name, options.domain)))
    return 0


def provoke(name: str, domain: int) -> dict[str, object]:
    """Seconds to the name, and the sentence."""
    work, cause = next((work, cause) for work, cause in PROVOKED.items() if work.__name__ == name)
    started: list[Running] = []

    def start(*args: object, **kwargs: object) -> Running:
        started.append(Running(domain, *args, **kwargs))  # type: ignore[arg-type]
        return started[-1]

    robot = Robot(domain)
    scene = CauseScene(robot, start)
    try:
        output = Output(robot)
        send = work(scene)
        begun_s = time.monotonic()
        status = output.named(cause, send)
        return {"cause": cause, "seconds": time.monotonic() - begun_s, "message": status.message}
    finally:
        scene.close()
        for running in started:
            running.end()
        robot.close()


if __name__ == "__main__":
    sys.exit(main())
