"""The definitions of message types, as the schemas of a recording need them."""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path


def type_name(kind: type) -> str:
    """The name of a message class, as in std_msgs/msg/String."""
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"


@lru_cache
def definition_of(name: str) -> str:
    """The definition of a message type with those of the types in it, as in the schemas of rosbag2; "" if
    its package is installed without it."""
    texts: list[str] = []
    waiting, known = [name], {name}
    while waiting:
        package, _, kind = waiting.pop(0).split("/")
        text = _installed_definition(package, kind)
        texts.append(text if not texts else f"MSG: {package}/{kind}\n{text}")
        for used in _types_in(text, package):
            if used not in known:
                known.add(used)
                waiting.append(used)
    return ("=" * 80 + "\n").join(text if text.endswith("\n") else f"{text}\n" for text in texts)


def _installed_definition(package: str, kind: str) -> str:
    module = importlib.import_module(package).__file__ or ""
    for folder in Path(module).parents:
        if (file := folder / "share" / package / "msg" / f"{kind}.msg").is_file():
            return file.read_text("utf-8")
    return ""


def _types_in(text: str, package: str) -> list[str]:
    """The message types of the fields of a definition."""
    found = []
    for line in text.splitlines():
        field = line.partition("#")[0].split()
        kind = field[0].partition("[")[0].partition("<=")[0] if field else ""
        if "/" in kind:
            found.append("/msg/".join(kind.rsplit("/", 1)))
        elif kind[:1].isupper():
            found.append(f"{package}/msg/{kind}")
    return found
