"""What is wrong with parameter files: syntax, and sections that match no node, which ROS ignores silently."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from edge_vision.nodes.interface.specs import NODES

PARAMETERS_KEY = "ros__parameters"


def unmatched_sections(ros_args: Sequence[str], nodes: Mapping[str, Collection[str]]) -> list[str]:
    """A warning for each section of a `--params-file` that was probably meant for a node but matches none,
    and for each such `-p NODE:NAME:=VALUE`, which reaches only nodes without a namespace.

    That is a section whose node name resembles the node's, or one in another namespace if no section of that
    name matches the node. Also for parameters that only another node than that of the section has. ros_args:
    the command line. nodes: fully qualified names of this process's nodes, with their parameters.
    """
    names = [_name(node) for node in nodes]
    files = [value for flag, value in pairwise(ros_args) if flag == "--params-file"]
    given = [(file, *section) for file in files for section in _sections_of(file)]
    sections = [(file, section) for file, section, _ in given]
    unmatched = [one for one in sections if not any(_matches(one[1], node) for node in nodes)]
    matched = {_name(one) for _, one in sections if any(_matches(one, node) for node in nodes)}
    warnings = []
    for flag, rule in pairwise(ros_args):
        target, is_node, _ = rule.partition(":=")[0].partition(":")
        close = difflib.get_close_matches(target, names, 1, 0.75) if flag in ("-p", "--param") else []
        if is_node and close and f"/{target}" not in nodes:
            warnings.append(f"-p {rule}: no node is '/{target}': use '/**/{close[0]}' in a parameter file")
    for file, section in unmatched:
        close = difflib.get_close_matches(_name(section), names, 1, 0.75)
        if close and not (close[0] == _name(section) and close[0] in matched):
            warnings.append(f"{file}: section '{section}' matches no node, did you mean '/**/{close[0]}'?")
    return list(dict.fromkeys([*warnings, *_misplaced(given, nodes)]))


def _misplaced(
    sections: Sequence[tuple[str, str, list[str]]], nodes: Mapping[str, Collection[str]]
) -> Iterator[str]:
    """A warning for each parameter in the section of one node that only other nodes have."""
    of_one = [(node, *one) for one in sections if "*" not in _name(one[1]) for node in nodes]
    for node, file, section, names in of_one:
        for name in names if _matches(section, node) else ():
            owners = [spec.name for spec in NODES if any(name == param.name for param in spec.params)]
            if owners and name not in nodes[node]:
                yield f"{file}: section '{section}': '{name}' is a parameter of {', '.join(owners)}"


def startup_error(text: str) -> str:
    """The message of rclpy for a wrong command line, without rcl's own source lines. For a parameter file:
    its name, the line and the remedy."""
    text = re.sub(r", at \S+:\d+", "", text)
    found = re.search(r"--params-file (.+?)'\. Error: (.+)", text, re.DOTALL)
    if not found:
        return text
    file, problem = found.groups()
    try:
        yaml.safe_load(Path(file).read_text("utf-8"))
    except OSError as error:
        return f"{file}: {error.strerror}"
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        advice = "Indent with spaces, close brackets and quotes"
        return f"{file}, line {line}: invalid YAML: {error.problem}. {advice}"
    except (ValueError, yaml.YAMLError) as error:
        return f"{file}: invalid YAML: {error}"
    expected = f"`/**/NODE: {{{PARAMETERS_KEY}: {{NAME: VALUE}}}}`, as in config/pipeline.yaml"
    return f"{file}: {problem}. Expected {expected}"


def _sections_of(file: str) -> list[tuple[str, list[str]]]:
    try:
        return list(_sections(yaml.safe_load(Path(file).read_text("utf-8"))))
    except (OSError, ValueError, yaml.YAMLError):  # rclpy reports what it cannot read.
        return []


def _sections(content: Any, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """The node names of a parsed parameter file, which may be nested by namespace, and their parameters."""
    for key, value in content.items() if isinstance(content, dict) else ():
        name = f"{prefix}/{str(key).strip('/')}"
        if isinstance(value, dict) and PARAMETERS_KEY in value:
            yield name, list(value[PARAMETERS_KEY] or ())
        else:
            yield from _sections(value, name)


def _matches(section: str, node: str) -> bool:
    """Whether a section applies to a node: `*` stands for one token, `**` for any number of them."""
    pattern = re.escape(section).replace(r"/\*\*", r"(/\w+)*").replace(r"/\*", r"/\w+")
    return re.fullmatch(pattern, node) is not None


def _name(path: str) -> str:
    return path.rpartition("/")[2]
