"""`python -m edge_vision.doctor`: see --help. A Ctrl-C ends it without a traceback, also while it imports."""

from __future__ import annotations

import os
import signal
from typing import Any


def _leave(number: int, frame: Any) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    # Nothing runs yet that could be left behind.
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, _leave)
    from edge_vision.doctor.app import main

    raise SystemExit(main())
