"""A subscriber in a process of its own, as a robot's node would be. Ends with its input.

python bench/parts/pipeline/subscriber.py detections tracks
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import parts.common  # noqa: F401  (the path of this repository)
import rclpy
from vision_msgs.msg import Detection2DArray

from edge_vision.nodes.run import make_executor
from edge_vision.nodes.transport.qos import RESULTS


def main() -> int:
    rclpy.init()
    node = rclpy.create_node("bench_subscriber")
    for topic in sys.argv[1:]:
        node.create_subscription(Detection2DArray, topic, lambda message: None, RESULTS)
    executor = make_executor()
    executor.add_node(node)
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    print("ready", flush=True)
    while not ended.is_set():
        executor.spin_once(timeout_sec=0.2)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
