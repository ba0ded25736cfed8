"""Deterministic mutations of bytes, text and JSON documents: the same generator makes the same mutant."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any

MAX_BYTES = 1 << 17
MAX_JSON_BYTES = 1 << 19
_SIZES = (1, 2, 4, 8)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_NUMBERS = (b"0", b"-1", b"1e400", b"nan", b"9" * 19, b"9" * 400, b"4294967296", b"1.7976931348623157e308")
TEXTS = (
    "",
    "\0",
    "\x1b[2J",
    "\ufeff",
    "\u2028",
    "\ud7ff\U0010ffff",
    "²",
    "../" * 20,
    "[" * 5000,
    '{"a":' * 2000,
    "x" * 100_000,
    "%s%n{0}",
    "9" * 400,
    "NaN",
    "rtsp://user:secret@host/1",
)
VALUES: tuple[Any, ...] = (
    *(0, 1, -1, 2**31 - 1, 2**31, 2**63 - 1, -(2**63), 2**64, 10**400, True, False, None),
    *(0.0, -0.0, 5e-324, 1e308, float("inf"), float("-inf"), float("nan"), 0.1),
    *([], {}, [[]], ["a", 1], [None], [1.5], {"a": 1}),
)


def mutate_bytes(random: Random, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """A seed after one to six mutations, at most MAX_BYTES long. tokens: of the format, inserted anywhere."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        random.choice(_MUTATIONS)(random, data, seeds, tokens)
        del data[MAX_BYTES:]
    return bytes(data)


def mutate_text(random: Random, text: str, tokens: Sequence[str] = TEXTS) -> str:
    """A text of valid Unicode: one of `tokens`, or a mutation of the given one."""
    if random.random() < 0.3:
        return random.choice(tokens)
    encoded = [token.encode() for token in tokens]
    return mutate_bytes(random, [text.encode("utf-8", "replace")], encoded).decode("utf-8", "replace")


def mutate_json(random: Random, document: Any) -> bytes:
    """The JSON of a document in which one to four values are replaced, removed or repeated."""
    changed = [copy.deepcopy(document)]
    for _ in range(random.choice((1, 1, 2, 4))):
        holder, key = random.choice(list(_places(changed)))
        holder[key] = _other(random, holder[key])
        if isinstance(holder, list) and holder is not changed and random.random() < 0.1:
            times = 1 if isinstance(holder[key], str) else random.choice((1, 16, 300))
            holder[key:key] = [holder[key]] * times
    data = json.dumps(changed[0]).encode()
    return data if len(data) <= MAX_JSON_BYTES else mutate_json(random, document)


def _places(holder: Any) -> Any:
    """Each container and key of a document."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], (list, dict)):
            yield from _places(holder[key])


def _other(random: Random, value: Any) -> Any:
    if isinstance(value, list) and value and random.random() < 0.5:
        return random.sample(value, random.randrange(len(value)))
    if isinstance(value, str):
        return mutate_text(random, value)
    if isinstance(value, (int, float)) and random.random() < 0.3:
        return random.uniform(-1, 1) * 10 ** random.randrange(12)
    return copy.deepcopy(random.choice((*VALUES, *TEXTS))) if random.random() < 0.7 else value


def _flip(random: Random, data: bytearray, *_: Any) -> None:
    for _ in range(random.choice((1, 1, 2, 8)) if data else 0):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _truncate(random: Random, data: bytearray, *_: Any) -> None:
    del data[random.randrange(len(data) + 1) :]


def _remove(random: Random, data: bytearray, *_: Any) -> None:
    at = random.randrange(len(data) + 1)
    del data[at : at + random.randrange(1, 64)]


def _repeat(random: Random, data: bytearray, *_: Any) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = data[at : at + random.randrange(1, 64)] * random.choice((1, 2, 16, 1000))


def _insert(random: Random, data: bytearray, *_: Any) -> None:
    at = random.randrange(len(data) + 1)
    data[at:at] = random.randbytes(random.randrange(1, 32))


def _splice(random: Random, data: bytearray, seeds: Sequence[bytes], _: Sequence[bytes]) -> None:
    other, at = random.choice(seeds), random.randrange(len(data) + 1)
    data[at:] = other[random.randrange(len(other) + 1) :]


def _integer(random: Random, data: bytearray, *_: Any) -> None:
    """Overwrite a field, such as a length, with a number at the edge of its range."""
    size = random.choice(_SIZES)
    edge = random.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1))
    at = random.randrange(len(data) + 1)
    data[at : at + size] = edge.to_bytes(size, random.choice(("big", "little")))


def _number(random: Random, data: bytearray, *_: Any) -> None:
    """Replace a number in text."""
    if found := list(_NUMBER.finditer(data[:4096])):
        start, end = random.choice(found).span()
        data[start:end] = random.choice(_NUMBERS)


def _token(random: Random, data: bytearray, _: Sequence[bytes], tokens: Sequence[bytes]) -> None:
    if tokens:
        at = random.randrange(len(data) + 1)
        data[at : at + random.choice((0, 0, 8))] = random.choice(tokens)


_MUTATIONS = (
    _flip,
    _flip,
    _truncate,
    _remove,
    _repeat,
    _insert,
    _splice,
    _integer,
    _integer,
    _number,
    _token,
)
