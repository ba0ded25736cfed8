"""This package's source as a zip file: a device runs exactly the code that made the study."""

from __future__ import annotations

import io
import zipfile
from functools import lru_cache
from pathlib import Path

import edge_vision

_SAME_TIME = (1980, 1, 1, 0, 0, 0)


@lru_cache(maxsize=1)
def package_zip() -> bytes:
    """All modules of this package. The same source gives the same bytes."""
    root = Path(edge_vision.__file__).parent
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(root.rglob("*.py")):
            name = file.relative_to(root.parent).as_posix()
            archive.writestr(zipfile.ZipInfo(name, _SAME_TIME), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return stream.getvalue()
