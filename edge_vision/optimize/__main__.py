"""`python -m edge_vision.optimize`: see --help. A Ctrl-C while it imports ends it without a traceback."""

from __future__ import annotations

import os
import signal
from typing import Any


def _leave(number: int, frame: Any) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    # Nothing runs yet that could be left behind.
    signal.signal(signal.SIGINT, _leave)
    from edge_vision.optimize.app import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise SystemExit(main())
