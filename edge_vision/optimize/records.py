"""Dataclasses from JSON. `dataclasses.asdict` is the opposite direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from itertools import repeat
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_PLAIN: dict[Any, tuple[type, ...]] = {str: (str,), bool: (bool,), int: (int,), float: (int, float)}


def decoded(kind: Any, value: Any, strict: bool = False) -> Any:
    """A JSON value as a dataclass, tuple or mapping of these, optional or not; anything else unchanged.

    strict: check texts and numbers, too. Unknown keys are ignored. Raises TypeError, KeyError or
    AttributeError for a value of another structure.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        types = get_type_hints(kind)
        return kind(
            **{name: decoded(types[name], item, strict) for name, item in value.items() if name in types}
        )  # type: ignore[operator]
    if origin in (Union, UnionType):
        present = next(one for one in arguments if one is not NoneType)
        return None if value is None else decoded(present, value, strict)
    if origin is tuple:
        kinds = repeat(arguments[0]) if arguments[-1] is ... else arguments
        if strict and not isinstance(value, (list, tuple)):
            raise TypeError(f"expected a list, got {value!r:.60}")
        return tuple(decoded(one, item, strict) for one, item in zip(kinds, value, strict=False))
    if origin is Mapping:
        return {key: decoded(arguments[1], item, strict) for key, item in value.items()}
    if strict and type(value) not in _PLAIN.get(kind, (type(value),)):
        raise TypeError(f"expected {kind.__name__}, got {value!r:.60}")
    return value
