"""Memory that nobody uses any more goes back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def trim_heap() -> None:
    """Have the C library return what was freed: after a model was loaded or closed it keeps half as much
    again for itself, and more with each one. Takes some ms. Nothing where there is no `malloc_trim`."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
