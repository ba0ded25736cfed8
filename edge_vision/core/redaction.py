"""Masks secrets in addresses: user info, query values, and name=value pairs in paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

# Bounded: the search for a scheme of any length takes time that is quadratic in the length of a word.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://")
_IN_TEXT = re.compile(rf"({_SCHEME.pattern})(\S+)")
# Quotes, brackets and punctuation after an address belong to the sentence.
_CLOSING = "]'\"`)}>,.;:!"
# The properties that carry credentials in a GStreamer pipeline.
_PROPERTY = re.compile(r"\b((?:user|proxy)-(?:id|pw)\s*=\s*)(?:\"[^\"]*\"|'[^']*'|\S+)")
# An authority without '@' is host or host:port; anything else is user info without a host.
_HOST = re.compile(r"(?:\[[^]]*\]|[^:]*)(?::\d*)?\Z")


def redact_url(uri: str) -> str:
    """The address without secrets; a path, a device or a masked address is unchanged.

    The whole text is one address: its user info ends at the last '@', because a password may contain one.
    """
    found = _SCHEME.search(uri)
    if found:
        return _properties(uri[: found.start()]) + found[0] + _masked(uri[found.end() :])
    colon = uri.partition("/")[0].find(":")
    if colon >= 0 and "@" in uri[colon:]:  # The scheme was forgotten.
        return _masked(uri)
    return _properties(uri)


def redact_text(text: str) -> str:
    """The text with the secrets of its addresses masked. An address ends at white space."""
    return _IN_TEXT.sub(_in_sentence, _properties(text)) if "=" in text or "://" in text else text


def redact_values(value: Any) -> Any:
    """As `redact_text`, for all texts in mappings, lists and tuples."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact_values(one) for key, one in value.items()}
    return [redact_values(one) for one in value] if isinstance(value, (list, tuple)) else value


def redact_error(error: object, uri: str) -> str:
    """Message of a library's error about the source `uri`, without its secrets."""
    return redact_text(str(error).replace(uri, redact_url(uri)) if uri else str(error))


def _in_sentence(found: re.Match[str]) -> str:
    end = len(found[2].rstrip(_CLOSING))
    return found[1] + _masked(found[2][:end]) + found[2][end:]


def _masked(rest: str) -> str:
    """The address after its scheme, masked."""
    at = rest.rfind("@")
    if at >= 0:
        return f"{MASK}@{_masked_tail(rest[at + 1 :])}"
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host = authority if _HOST.match(authority) else MASK
    return host + _masked_tail(rest[len(authority) :])


def _masked_tail(tail: str) -> str:
    """Host, path, query and fragment; of the query only parameter names remain."""
    path, mark, query = _split_tail(tail)
    path = re.sub(r"=[^/&;]+", f"={MASK}", path)
    if mark == "#":
        return f"{path}#{MASK}"
    return path + mark + "&".join(map(_masked_pair, query.split("&")))


def _split_tail(tail: str) -> tuple[str, str, str]:
    mark = re.search(r"[?#]", tail)
    return (tail[: mark.start()], mark[0], tail[mark.end() :]) if mark else (tail, "", "")


def _masked_pair(pair: str) -> str:
    name, sign, _ = pair.partition("=")
    return f"{name}={MASK}" if sign else MASK * bool(pair)


def _properties(text: str) -> str:
    return _PROPERTY.sub(rf"\g<1>{MASK}", text)
