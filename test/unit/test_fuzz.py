"""A short form of `make fuzz`, and what it reports. The targets with messages are in test/nodes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).resolve().parents[1] / "fuzz"
sys.path.insert(0, str(FUZZ))

import fuzz  # noqa: E402
from campaign import run_target  # noqa: E402
from targets import CORPUS, Manifests, Parameters  # noqa: E402

from edge_vision.nodes.interface.specs import NODES  # noqa: E402

HARMFUL = """
import os
from collections import Counter
from targets import Target

class Harmful(Target):
    refusals = (ValueError,)

    def __init__(self, folder):
        self.counts, self.seeds = Counter(), [b"seed"]

    def check(self, data):
        if data != b"seed":
            self.harm()

class Raises(Harmful):
    name = "raises"

    def harm(self):
        raise KeyError("undocumented")

class Talks(Harmful):
    name = "talks"

    def harm(self):
        raise ValueError("x" * 5000)

class Dies(Harmful):
    name = "dies"

    def harm(self):
        os.abort()

class Eats(Harmful):
    name = "eats"

    def harm(self):
        bytearray(b"x") * (300 << 20)

class Lacks(Harmful):
    name = "lacks"
    needs = ("no_such_module",)
"""


@pytest.fixture
def harmful(tmp_path, monkeypatch):
    """A module with harmful targets, which the child process imports, too."""
    (tmp_path / "harmful_targets.py").write_text(HARMFUL)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("path", "mutants"),
    [
        ("targets:Manifests", 250),
        ("graph_targets:Graphs", 60),
        ("graph_targets:TfliteGraphs", 60),
        ("graph_targets:OpenVinoGraphs", 60),
        ("targets:Images", 6000),
        ("targets:Parameters", 10_000),
    ],
)
def test_mutants_are_accepted_or_refused(tmp_path, path, mutants):
    result = run_target(path, tmp_path, seed=0, mutants=mutants)
    if result["skipped"]:
        pytest.skip(result["skipped"])
    assert result["failures"] == [] and result["failed"] == 0
    assert result["mutants"] == mutants and 0 < result["accepted"] < mutants, "the mutants are all alike"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("Raises", "KeyError: 'undocumented'"),
        ("Talks", "an error of 5000 characters"),
        ("Dies", "the process was killed by SIGABRT"),
        ("Eats", "the peak memory grew by "),
    ],
)
def test_a_failure_is_reported_with_its_mutant(harmful, name, error):
    result = run_target(f"harmful_targets:{name}", harmful, seed=0, mutants=3)
    assert error in result["failures"][0]["error"]
    mutant = Path(result["failures"][0]["reproducer"]).read_bytes()
    assert mutant and mutant != b"seed"
    assert "FAIL" in fuzz.line(result) and error in fuzz.line(result)


def test_a_target_without_its_module_is_skipped(harmful):
    result = run_target("harmful_targets:Lacks", harmful, seed=0, mutants=3)
    assert "the module no_such_module is not installed" in fuzz.line(result)


def test_the_command_writes_a_report_and_fails_with_a_failure(harmful, monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "TARGETS", ("harmful_targets:Raises", "harmful_targets:Lacks"))
    assert fuzz.main(["--minutes", "0.001", "--out", str(harmful)]) == 1
    report = json.loads((harmful / "report.json").read_text())
    raises, lacks = report["results"]
    assert raises["target"] == "raises" and raises["failed"] >= 1 and lacks["skipped"]
    mutant = raises["failures"][0]["reproducer"]
    assert fuzz.main(["--replay", mutant, "--targets", "raises"]) == 1
    assert "KeyError" in capsys.readouterr().err


def test_a_count_ends_the_run(harmful, monkeypatch):
    monkeypatch.setattr(fuzz, "TARGETS", ("harmful_targets:Raises",))
    assert fuzz.main(["--count", "7", "--out", str(harmful)]) == 1
    assert json.loads((harmful / "report.json").read_text())["results"][0]["mutants"] == 7


def test_the_help_has_examples():
    environment = {**os.environ, "COLUMNS": "100"}
    command = [sys.executable, str(FUZZ / "fuzz.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout.count("python test/fuzz/fuzz.py") == 3


@pytest.mark.parametrize("kind", [Manifests, Parameters])
def test_a_seed_makes_the_same_mutants_again(tmp_path, kind):
    target = kind(tmp_path)
    first, again = ([target.mutant(Random(f"{n}")) for n in range(50)] for _ in range(2))
    assert first == again and len(set(first)) > 25


def test_the_corpus_is_small():
    assert sum(file.stat().st_size for file in CORPUS.rglob("*") if file.is_file()) < 200_000


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4),
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([param for node in NODES for param in node.params]), _VALUES)
def test_a_parameter_has_its_type_or_is_a_value_error(param, value):
    try:
        checked = param.check(value)
    except ValueError:
        return
    assert type(checked) is (list if param.type_name == "string[]" else type(param.default))
