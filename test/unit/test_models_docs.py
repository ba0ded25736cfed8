"""docs/models.md says what is so: heads, options and their defaults, conventions, commands."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
from head_cases import INPUT

from edge_vision.core.model_spec import HeadSpec
from edge_vision.detect.heads import HEADS, make_head
from edge_vision.errors import HeadError
from edge_vision.importer import cli
from edge_vision.importer.preprocessing import FAMILIES

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text("utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its title."""
    lines = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0].split("\n")
    rows = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_every_head_has_a_row() -> None:
    assert [row[0].strip("`") for row in table("Heads")] == list(HEADS)


@pytest.mark.parametrize("row", table("Heads"), ids=lambda row: row[0].strip("`"))
def test_the_table_has_the_options_and_roles_of_each_head(row: list[str]) -> None:
    head = row[0].strip("`")
    documented = set(re.findall(r"`(\w+)`", row[3]))
    with pytest.raises(HeadError, match="knows the options") as error:
        make_head(HeadSpec(head, {}, {"?": 1}), INPUT, (), 3)
    known = str(error.value).split("the options ")[1].split(", got")[0]
    assert ("none" if not documented else set(known.split(", "))) == (documented or known)
    with pytest.raises(HeadError, match=r"needs head.outputs") as error:
        make_head(HeadSpec(head), INPUT, (), 3)
    named = re.search(r"outputs\.(\w+)", str(error.value))
    assert named is not None and (f"`{named[1]}` [" in row[2] or row[2] == "as `decoded`")


def test_the_table_of_preprocessing_is_that_of_the_code() -> None:
    rows = table("Images")
    order = (
        "ultralytics",
        "yolox",
        "nanodet",
        "nanodet_m",
        "centernet",
        "centerface",
        "rtdetr",
        "detr",
        "tf",
        "classifier",
        "ultralytics_classifier",
        "tf_classifier",
    )
    assert set(order) == set(FAMILIES) and len(rows) == len(order)
    for name, (_, color, mean, std, resize) in zip(order, rows, strict=True):
        family = FAMILIES[name]
        assert color == family.color
        for text, values in ((mean, family.mean), (std, family.std)):
            documented = [float(number) for number in text.split(",")]
            assert (documented * 3 if len(documented) == 1 else documented) == pytest.approx(list(values)), (
                name
            )
        assert resize.split(",")[0] == family.resize
        if "," in resize:
            assert int(resize.split(",")[1]) == family.pad_value


def test_every_import_command_parses() -> None:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    commands = re.findall(r"edge_vision models import ((?:.*\\\n)*.*)", TEXT)
    assert len(commands) >= 4
    for command in commands:
        parser.parse_args(shlex.split(command.replace("\\\n", " "), comments=True))
