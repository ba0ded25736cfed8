"""Documents agree with the code: generated tables, links, commands, names, and their size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edge_vision.backends import BACKENDS
from edge_vision.backends.runtimes.litert import DELEGATES
from edge_vision.backends.runtimes.onnxruntime_providers import PROVIDERS
from edge_vision.bundles.manifest import parse_manifest
from edge_vision.nodes.interface.specs import NODES, PIPELINE

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts"))

import reference  # noqa: E402

README = (REPO / "README.md").read_text("utf-8")
FOLDERS_WITH_DOCUMENTS = ("bench", "docs", "interfaces")
FOLDERS_WITH_MESSAGES = ("edge_vision", "scripts", "bench", "launch")
DOCUMENTS = sorted(
    [*REPO.glob("*.md"), *(f for one in FOLDERS_WITH_DOCUMENTS for f in (REPO / one).rglob("*.md"))]
)
SOURCES = sorted(file for one in FOLDERS_WITH_MESSAGES for file in (REPO / one).rglob("*.py"))
TARGETS = set(re.findall(r"^([a-z-]+):(?!=)", (REPO / "Makefile").read_text(), flags=re.MULTILINE))
PAGES = sorted(page for page in (REPO / "docs").glob("*.md") if page.stem != "index")
MAX_PAGE_BYTES = 15_000
FOLDERS = "bench|config|docs|edge_vision|examples|interfaces|launch|scripts"


def test_tables_and_shipped_parameters_are_as_in_the_code() -> None:
    assert reference.stale(REPO) == "", "run: python -m scripts.reference --write"


def test_the_check_shows_a_diff_of_a_stale_file(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "pipeline.yaml").write_text(
        reference.pipeline_yaml().replace("luma_width_px: 320", "luma_width_px: 321")
    )
    (tmp_path / "docs").mkdir()
    for name in reference.DOCUMENTS:
        (tmp_path / name).write_text((REPO / name).read_text("utf-8"))
    assert "-    luma_width_px: 321\n+    luma_width_px: 320\n" in reference.stale(tmp_path)


def test_a_document_without_its_sections_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected the sections topics, services, got none"):
        reference.with_sections("# no tables", ["topics", "services"])


def test_check_passes_on_this_tree() -> None:
    command = [sys.executable, "-m", "scripts.reference", "--check"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def broken_links(document: Path, text: str) -> list[str]:
    """Links of a document to missing files and headings. Links to other hosts are not checked."""
    prose, found = without_blocks(text), []
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", prose)
    targets += re.findall(r"^\[[^\]]+\]: (\S+)", prose, flags=re.MULTILINE)
    for target in (target for target in targets if not re.match(r"[a-z]+:", target)):
        name, _, anchor = target.partition("#")
        file = (document.parent / name).resolve() if name else document
        if name.startswith("/") or not file.is_relative_to(REPO) or not file.exists():
            found.append(target)
            continue
        there = text if file == document else file.read_text("utf-8") if anchor else ""
        if anchor and anchor not in anchors(there):
            found.append(target)
    return found


def without_blocks(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as code hosts generate them: repeated ones get a number."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", without_blocks(text), flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        numbered = (f"{name}-{n}" if n else name for n in range(len(found) + 1))
        found.add(next(one for one in numbered if one not in found))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPO).as_posix())
def test_every_link_has_a_target(document: Path) -> None:
    assert broken_links(document, document.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](docs/gate.md) [b](docs/gate.md#results) [c](https://nowhere.invalid/x#y)", []),
        ("# A `b` c\n# A b c\n[a](#a-b-c) [b](#a-b-c-1) [c](#a-b-c-2)", ["#a-b-c-2"]),
        ("[a](docs/gait.md)\n![b](docs/images/none.png)", ["docs/gait.md", "docs/images/none.png"]),
        ("[a](docs/gate.md#no-such-heading)", ["docs/gate.md#no-such-heading"]),
        ("[a][1]\n\n[1]: docs/gait.md", ["docs/gait.md"]),
        ("[a](/etc/passwd) [b](../somewhere)", ["/etc/passwd", "../somewhere"]),
        ('[a](docs/gait.md "a title")', ["docs/gait.md"]),
        ("```bash\n# make\n```\n[a](#make)", ["#make"]),
    ],
)
def test_a_broken_link_is_found(text: str, broken: list[str]) -> None:
    assert broken_links(REPO / "README.md", text) == broken


def test_every_backend_and_its_devices_are_described() -> None:
    text = (REPO / "docs" / "backends.md").read_text("utf-8")
    for name in BACKENDS:
        assert f"| `{name}` |" in text, name
    for device in (*PROVIDERS, *DELEGATES):
        assert re.search(rf"[` ,]{device}[`,: ]", text), device


def dead_targets(text: str) -> list[str]:
    """Targets of `make` in the code of a document or message that the Makefile lacks."""
    unquoted = re.sub(r"'[^'\n]*'", "''", text)  # ARGS='-k gate' names no target.
    lines = re.findall(r"(?:^|`|\$ |&& )make((?: [^\s`#]+)+)", unquoted, flags=re.MULTILINE)
    words = [word.rstrip(".,;:)\"'") for line in lines for word in line.split()]
    named = [word for word in words if re.fullmatch(r"[a-z][a-z-]*", word)]
    return sorted({word for word in named if word not in TARGETS})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPO).as_posix())
def test_every_make_target_in_a_document_exists(document: Path) -> None:
    text = document.read_text("utf-8")
    blocks = re.findall(r"^ *```.*?^ *```", text, flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`[^`]+`", without_blocks(text))
    assert dead_targets("\n".join([*blocks, *spans])) == []


def test_every_make_target_in_a_message_exists() -> None:
    spans = {file: re.findall(r"`make [^`]+`", file.read_text("utf-8")) for file in SOURCES}
    named = {str(file): dead_targets("\n".join(found)) for file, found in spans.items() if found}
    assert len(named) > 5 and {file: dead for file, dead in named.items() if dead} == {}


@pytest.mark.parametrize(
    ("text", "dead"),
    [
        ("`make test`, `make demo SOURCE=clip.mp4` and `make -j2 -O test-unit test-nodes`", []),
        ("make demo    # a comment\nmake help", []),
        ("make test ARGS='-k gate -x'", []),
        ("`make tests`", ["tests"]),
        ("make demos   # plays a clip", ["demos"]),
        ("cd edge_vision && make setup-everything", ["setup-everything"]),
        ("`make -j2 test-unit test-node`", ["test-node"]),
    ],
)
def test_a_dead_target_is_found(text: str, dead: list[str]) -> None:
    assert dead_targets(text) == dead


def test_every_launch_argument_is_documented() -> None:
    tree = ast.parse((REPO / "launch" / "pipeline.launch.py").read_text())
    arguments = next(
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ARGUMENTS"
    )
    assert isinstance(arguments, ast.Tuple)
    documented = (REPO / "docs" / "quickstart.md").read_text("utf-8")
    for entry in arguments.elts:
        assert isinstance(entry, ast.Tuple)
        name = ast.literal_eval(entry.elts[0])
        assert f"`{name}`" in documented, f"launch argument {name} is not in docs/quickstart.md"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(REPO).as_posix())
def test_every_path_in_a_document_exists(document: Path) -> None:
    names = re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", document.read_text("utf-8"))
    assert [name for name in names if not (REPO / name).exists()] == []


def test_the_documented_bundle_is_valid(tmp_path: Path) -> None:
    """As a reader would copy it, with the hash filled in."""
    document = (REPO / "docs" / "bundles.md").read_text("utf-8")
    block = re.search(r"```yaml\n(format: 1 .*?)```", document, flags=re.DOTALL)
    assert block is not None
    manifest = parse_manifest(block[1].replace("<sha256sum model.onnx>", "a" * 64), tmp_path)
    assert manifest.task == "detect"


def test_every_parameter_in_a_documented_parameter_file_exists() -> None:
    nodes = {node.name: {param.name for param in node.params} for node in (*NODES, PIPELINE)}
    common = set.intersection(*(nodes[node.name] for node in NODES))  # For "/**".
    texts = [document.read_text("utf-8") for document in DOCUMENTS]
    blocks = [
        block for text in texts for block in re.findall(r"```yaml\n(/\*\*.*?)```", text, flags=re.DOTALL)
    ]
    assert len(blocks) > 2
    for block in blocks:
        for pattern, content in yaml.safe_load(block).items():
            node = pattern.rpartition("/")[2]
            assert set(content["ros__parameters"]) <= nodes.get(node, common), pattern


def test_images_of_the_documents_are_small() -> None:
    assert (REPO / "docs" / "images" / "annotated.jpg").stat().st_size < 150_000
    assert (REPO / "docs" / "images" / "top.svg").stat().st_size < 200_000


def test_the_example_in_the_readme_is_the_example() -> None:
    assert (REPO / "examples" / "subscriber.py").read_text().strip() in README


def test_the_readme_stays_short() -> None:
    assert len(README.encode()) <= 9_000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_index_and_site_list_every_page(page: Path) -> None:
    assert f"]({page.name})" in (REPO / "docs" / "index.md").read_text("utf-8")
    assert f": {page.name}\n" in (REPO / "mkdocs.yml").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_stays_short(page: Path) -> None:
    assert len(page.read_bytes()) <= MAX_PAGE_BYTES
