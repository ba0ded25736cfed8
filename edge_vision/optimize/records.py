"""Dataclasses from JSON. `dataclasses.asdict` is the opposite direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from itertools import repeat
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


def decoded(kind: Any, value: Any) -> Any:
    """A JSON value as a dataclass, tuple or mapping of these, optional or not; anything else unchanged.

    Unknown keys are ignored. Raises TypeError, KeyError or AttributeError for a value of another structure.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(**{name: decoded(types[name], item) for name, item in value.items() if name in types})  # type: ignore[operator]
    if origin in (Union, UnionType):
        present = next(one for one in arguments if one is not NoneType)
        return None if value is None else decoded(present, value)
    if origin is tuple:
        kinds = repeat(arguments[0]) if arguments[-1] is ... else arguments
        return tuple(decoded(one, item) for one, item in zip(kinds, value, strict=False))
    if origin is Mapping:
        return {key: decoded(arguments[1], item) for key, item in value.items()}
    return value
