"""Returns freed memory to the operating system."""

from __future__ import annotations

import contextlib
import ctypes


def trim_heap() -> None:
    """Call glibc's `malloc_trim`; no effect elsewhere. Takes some ms.

    After a model is loaded or closed, glibc retains half of its size again, and more with each model.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
