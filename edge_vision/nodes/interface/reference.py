"""Writes what users read about the nodes from `specs.py`: the tables of README.md, and config/pipeline.yaml.

    python -m edge_vision.nodes.interface.reference --write    write both
    python -m edge_vision.nodes.interface.reference --check    show what is stale as a diff, exit 1 if any

Imports no ROS. Works in a source tree: an installed package has no README to write.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edge_vision.nodes.interface.specs import NODES, NodeSpec, Param

ROOT = Path(__file__).resolve().parents[3]
COMMENT_WIDTH = 104
YAML_HEAD = """\
# Every parameter of every node, at its default. Made by `make docs`: copy this file,
# keep the lines that you change, and give it as params_file:=/path/to/yours.yaml.
#
# "/**/gate" is the gate in any namespace; "/front/gate" would be the one in /front alone.
# In brackets: when a change acts (live = at once, configure = when the node is configured next, start = when
# it starts), and what is allowed.
"""
ACTS = {"live": "at once", "configure": "configure", "start": "start"}


def pipeline_yaml() -> str:
    """config/pipeline.yaml: all defaults, with what each parameter means."""
    return YAML_HEAD + "".join("\n" + "\n".join(_yaml_node(node)) + "\n" for node in NODES)


def _yaml_node(node: NodeSpec) -> Iterator[str]:
    yield f"# {node.summary}"
    yield f"/**/{node.name}:"
    yield "  ros__parameters:"
    for param in node.params:
        yield from (f"    # {line}" for line in textwrap.wrap(_comment(param), COMMENT_WIDTH - 6))
        # ROS gives an empty list no type and refuses it, so the default of a list stays commented out.
        off = "# " if param.default == [] else ""
        yield f"    {off}{param.name}: {json.dumps(param.default)}"


def _comment(param: Param) -> str:
    return f"{param.description} [{', '.join(filter(None, (param.applies, _range(param))))}]"


def parameter_tables() -> str:
    """One table of parameters per node."""
    return "\n".join(f"**{node.name}**: {node.summary}\n\n{_parameter_table(node)}" for node in NODES)


def _parameter_table(node: NodeSpec) -> str:
    rows = [
        (f"`{p.name}`", p.type_name, f"`{json.dumps(p.default)}`", _range(p), ACTS[p.applies], p.description)
        for p in node.params
    ]
    return _table(("parameter", "type", "default", "range", "acts", "what it does"), rows)


def _range(param: Param) -> str:
    unit = "" if param.unit in ("", "0..1") else f" {param.unit}"
    return f"{param.constraints}{unit}".strip()


def topic_table() -> str:
    """The topics of all nodes."""
    rows = [
        (node.name, f"`{topic.name}`", topic.direction, f"`{topic.type}`", topic.description)
        for node in NODES
        for topic in node.topics
    ]
    return _table(("node", "topic", "", "type", "what it carries"), rows)


def service_table() -> str:
    """The services of all nodes."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for node in NODES:
        for service in node.services:
            found.setdefault(service, []).append(node.name)
    rows = [(f"`{name}`", f"`{kind}`", ", ".join(nodes), what) for (name, kind, what), nodes in found.items()]
    return _table(("service", "type", "nodes", "what it does"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(_cell(cell) for cell in line) + " |\n" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


SECTIONS: dict[str, Callable[[], str]] = {
    "topics": topic_table,
    "parameters": parameter_tables,
    "services": service_table,
}
_SECTION = re.compile(r"(<!-- reference: (\w+) -->\n).*?(<!-- end of reference -->)", re.DOTALL)


def filled(text: str) -> str:
    """A text with its sections written anew. Raises ValueError where one is unknown or missing."""
    found = [match[2] for match in _SECTION.finditer(text)]
    if sorted(found) != sorted(SECTIONS):
        raise ValueError(
            f"expected one each of the sections {', '.join(SECTIONS)}, got {', '.join(found) or 'none'}: "
            "a section is <!-- reference: NAME --> ... <!-- end of reference -->"
        )
    return _SECTION.sub(lambda match: f"{match[1]}{SECTIONS[match[2]]()}{match[3]}", text)


def wanted_files(root: Path) -> dict[Path, str]:
    """Each generated file with the text that it should have. Raises OSError, ValueError."""
    readme = root / "README.md"
    return {readme: filled(readme.read_text("utf-8")), root / "config" / "pipeline.yaml": pipeline_yaml()}


def stale(root: Path) -> str:
    """A diff of what is there to what should be; "" where all is up to date."""
    return "".join(_diff(path, text) for path, text in wanted_files(root).items())


def _diff(path: Path, wanted: str) -> str:
    present = path.read_text("utf-8") if path.exists() else ""
    lines = difflib.unified_diff(
        present.splitlines(True),
        wanted.splitlines(True),
        f"{path.name} (now)",
        f"{path.name} (from the code)",
    )
    return "".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="reference", description=__doc__.split("\n")[0] if __doc__ else "")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--write", action="store_true", help="write README.md's tables and config/pipeline.yaml"
    )
    what.add_argument("--check", action="store_true", help="only say what is stale")
    arguments = parser.parse_args(argv)
    try:
        difference = stale(ROOT)
        if arguments.write:
            for path, text in wanted_files(ROOT).items():
                path.write_text(text, "utf-8")
    except (OSError, ValueError) as error:
        print(f"reference: {error}", file=sys.stderr)
        return 1
    if arguments.check and difference:
        print(f"{difference}\nstale: run `python -m edge_vision.nodes.interface.reference --write`")
        return 1
    print("README.md and config/pipeline.yaml " + ("written" if difference else "are up to date"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
