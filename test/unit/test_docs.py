"""What the documents say is so: tables as in the code, links, commands and names that exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge_vision.backends import BACKENDS
from edge_vision.backends.litert import DELEGATES
from edge_vision.backends.onnxruntime_providers import PROVIDERS
from edge_vision.bundles.manifest import parse_manifest
from edge_vision.nodes import reference
from edge_vision.nodes.specs import NODES

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text("utf-8")
DOCUMENTS = sorted([*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")])


def test_tables_and_shipped_parameters_are_as_in_the_code() -> None:
    assert reference.stale(REPO) == "", "run: python -m edge_vision.nodes.reference --write"


def test_the_check_fails_with_a_diff_when_something_is_stale(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "pipeline.yaml").write_text(
        reference.pipeline_yaml().replace("pixel_threshold: 10", "pixel_threshold: 11")
    )
    (tmp_path / "README.md").write_text(README)
    assert "-    pixel_threshold: 11\n+    pixel_threshold: 10\n" in reference.stale(tmp_path)


def test_a_readme_without_a_section_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one each of the sections .*, got none"):
        reference.filled("# no tables")


def test_the_command_checks_this_tree() -> None:
    command = [sys.executable, "-m", "edge_vision.nodes.reference", "--check"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors(text), f"{document.name}: no heading for {target}"
        elif "://" not in target:
            assert (document.parent / target.split("#")[0]).exists(), (
                f"{document.name}: {target} is not there"
            )


def test_every_backend_and_its_devices_are_described() -> None:
    text = (REPO / "docs" / "backends.md").read_text("utf-8")
    for name in BACKENDS:
        assert f"| `{name}` |" in text, name
    for device in (*PROVIDERS, *DELEGATES):
        assert re.search(rf"[` ,]{device}[`,: ]", text), device


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(), flags=re.MULTILINE))
    named = {name for text in DOCUMENTS for name in re.findall(r"`?make ([a-z-]+)", text.read_text("utf-8"))}
    assert {name for name in named if name in targets or f"`make {name}" in README} <= targets


def test_every_launch_argument_is_in_the_readme() -> None:
    tree = ast.parse((REPO / "launch" / "pipeline.launch.py").read_text())
    arguments = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS"
    )
    assert isinstance(arguments, ast.Tuple)
    for entry in arguments.elts:
        assert isinstance(entry, ast.Tuple)
        name = ast.literal_eval(entry.elts[0])
        assert f"`{name}`" in README, f"launch argument {name} is not in README.md"


def test_every_file_that_the_readme_names_in_code_exists() -> None:
    for name in re.findall(
        r"`((?:config|examples|docs|launch|bench|edge_vision|interfaces|scripts)/[\w./]+)`", README
    ):
        assert (REPO / name).exists(), f"{name} is not there"


def test_the_bundle_in_the_readme_is_a_bundle(tmp_path: Path) -> None:
    """As a reader would copy it; only the hash is left for the reader to fill in."""
    block = re.search(r"```yaml\n(format: 1 .*?)```", README, flags=re.DOTALL)
    assert block is not None
    manifest = parse_manifest(block[1].replace("<sha256sum model.onnx>", "a" * 64), tmp_path)
    assert manifest.task == "detect"


def test_every_parameter_in_the_readmes_yaml_exists() -> None:
    nodes = {node.name: {param.name for param in node.params} for node in NODES}
    blocks = re.findall(r"```yaml\n(/\*\*.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        for pattern, content in yaml.safe_load(block).items():
            assert set(content["ros__parameters"]) <= nodes[pattern.rpartition("/")[2]]


def test_the_picture_is_small() -> None:
    assert (REPO / "docs" / "images" / "annotated.png").stat().st_size < 300_000
    assert (REPO / "docs" / "images" / "top.svg").stat().st_size < 200_000


def test_the_example_in_the_readme_is_the_example() -> None:
    assert (REPO / "examples" / "subscriber.py").read_text().strip() in README
