"""Validation of strict YAML. Errors name the file, the key path, the expected and the actual value."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any, NoReturn, TypeVar, cast

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from edge_vision.errors import BundleError

MAX_YAML_BYTES = 1 << 17
"""PyYAML reads 50 to 100 kB a second."""
REQUIRED: Any = object()
T = TypeVar("T")


class _StrictLoader(yaml.SafeLoader):
    """safe_load that refuses duplicate keys, and aliases (a few lines of them expand to gigabytes).

    Whole numbers are decimal, of at most 100 digits, and no number is in base 60: PyYAML takes time that is
    quadratic in the length of those.
    """

    yaml_implicit_resolvers = {
        first: [pair for pair in pairs if pair[0] not in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be a scalar", key_node.start_mark)
            if key_node.value in seen:
                text = f"key {key_node.value!r} is given twice"
                raise ConstructorError(None, None, text, key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_INT = r"[-+]?(?:0|[1-9][0-9]{0,99})"
_FLOAT = r"""(?:[-+]?[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+][0-9]{1,4})?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN)"""
for _tag, _number in (("int", _INT), ("float", _FLOAT)):
    # PyYAML matches only from the start. Its dumper treats all of these as numbers, too.
    _whole = re.compile(rf"(?:{_number})\Z", re.VERBOSE)
    _StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, list("-+0123456789."))


def load_yaml(text: str, where: str) -> Any:
    """Parse YAML without tags, aliases or duplicate keys. Raises BundleError."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_YAML_BYTES:
        raise BundleError(f"{where}: expected at most {MAX_YAML_BYTES} bytes of YAML, got {size}")
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except RecursionError:
        raise BundleError(f"{where}: expected plain YAML, got one nested too deeply") from None
    except (
        Exception
    ) as error:  # PyYAML raises KeyError, IndexError, ValueError and others for invalid scalars
        detail = " ".join(str(error).split()) or type(error).__name__
        raise BundleError(f"{where}: expected plain YAML, got an error: {detail}") from None


def shown(value: Any) -> str:
    """A value and its type, short enough for one line of a log."""
    text = repr(value)
    if len(text) > 80:
        text = text[:77] + "..."
    return f"{text} ({type(value).__name__})"


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class Section:
    """A mapping of the document with a fixed set of keys. Any other key is refused."""

    def __init__(self, value: Any, where: str, path: str, keys: Sequence[str]) -> None:
        self.where = where
        self.path = path
        if not isinstance(value, dict):
            self._refuse("", "a mapping", value)
        self._values = value
        for key in value:
            if key not in keys:
                raise BundleError(
                    f"{self._at(key)}: expected one of {', '.join(keys)}, got the unknown key {key!r:.80}"
                    f"{nearest(str(key), keys)}"
                )

    def take(self, key: str, check: Callable[[Any], T], expected: str, default: Any = REQUIRED) -> T:
        """The checked value of a key. `check` raises ValueError or TypeError for an invalid value."""
        if key not in self._values:
            if default is REQUIRED:
                raise BundleError(f"{self._at(key)}: expected {expected}, got no such key; add it")
            return cast(T, default)
        value = self._values[key]
        try:
            return check(value)
        except (ValueError, TypeError, OverflowError):
            self._refuse(key, expected, value)

    def section(self, key: str, keys: Sequence[str], default: Any = REQUIRED) -> Section:
        """A nested mapping."""
        value = self.take(key, _anything, "a mapping", default)
        return Section(value, self.where, self._join(key), keys)

    def _join(self, key: Any) -> str:
        return ".".join(part for part in (self.path, str(key)[:80]) if part)

    def _at(self, key: Any) -> str:
        path = self._join(key)
        return f"{self.where}: {path}" if path else self.where

    def _refuse(self, key: str, expected: str, value: Any) -> NoReturn:
        raise BundleError(f"{self._at(key)}: expected {expected}, got {shown(value)}")


def _anything(value: Any) -> Any:
    return value


def text(value: Any) -> str:
    """A string, perhaps empty."""
    if not isinstance(value, str):
        raise TypeError
    return value


def matching(pattern: str) -> Callable[[Any], str]:
    """A string that matches the whole pattern."""

    def check(value: Any) -> str:
        if re.fullmatch(pattern, text(value)) is None:
            raise ValueError
        return str(value)

    return check


def one_of(*choices: Any) -> Callable[[Any], Any]:
    """One of these values, of the same type (True is not 1)."""

    def check(value: Any) -> Any:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise ValueError
        return value

    return check


def integer(low: int, high: int) -> Callable[[Any], int]:
    """A whole number in low..high."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], float]:
    """A finite number in low..high."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return float(value)

    return check


def list_of(check_item: Callable[[Any], T], length: int) -> Callable[[Any], tuple[T, ...]]:
    """A list of this length."""

    def check(value: Any) -> tuple[T, ...]:
        if not isinstance(value, list) or len(value) != length:
            raise ValueError
        return tuple(check_item(item) for item in value)

    return check


def plain_mapping(value: Any) -> dict[str, Any]:
    """A mapping with string keys and any values."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise TypeError
    return dict(value)


def text_mapping(value: Any) -> dict[str, str]:
    """A mapping of strings to non-empty strings."""
    if not all(isinstance(item, str) and item for item in plain_mapping(value).values()):
        raise TypeError
    return dict(value)


def relative_file(value: Any) -> str:
    """A file name below the bundle's folder, by its spelling; `manifest.inside` checks links."""
    path = PurePosixPath(text(value))
    plain = re.fullmatch(r"[A-Za-z0-9._/+-]+", value) is not None
    if not plain or path.is_absolute() or ".." in path.parts or not path.name or str(path) != value:
        raise ValueError
    return str(value)
