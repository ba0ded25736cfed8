"""Writes bundle.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml

from edge_vision.bundles.manifest import FORMAT, KEY_OF, Manifest


def dump_manifest(manifest: Manifest) -> str:
    """The YAML text that parse_manifest reads back as the same manifest. Same manifest, same bytes."""
    values = {KEY_OF.get(name, name): value for name, value in _plain(manifest).items() if value is not None}
    graphs = [{key: value for key, value in graph.items() if value} for graph in values["graphs"]]
    document = {"format": FORMAT, **values, "graphs": graphs}
    return yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=160
    )


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


class _Dumper(yaml.SafeDumper):
    """The reader refuses aliases, so a list that is used twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # Plain and single-quoted YAML fold odd line ends such as U+0085 into spaces; double-quoted escapes them.
    style = None if value.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _write_text)
