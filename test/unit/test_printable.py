"""Control characters from outside neither steer a terminal nor forge a line, in whatever a command prints."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optimize_cases import failed_result

from edge_vision.cli.models import main
from edge_vision.core.printable import printable, printable_error, printable_lines, printable_output
from edge_vision.optimize.report import terminal

BAD = "\x1b[31m\x9b2J\x7f\u202e\u2028\r"
STEERING = set("\x00\x07\x08\x1b\x7f\x9b\r\u061c\u200e\u200f\u2028\u202e\u2066\u2069")


@given(st.text())
def test_only_printable_characters_are_unchanged(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() or unicodedata.category(char) == "Zs" for char in shown)
    assert not set(shown) & (STEERING | {"\n"}) and printable(shown) == shown
    shown.encode("utf-8")  # Lone surrogates are escaped too.
    if text.isprintable():
        assert shown == text


@given(st.dictionaries(st.text(), st.text()))
def test_an_escaped_json_document_has_the_same_content(values: dict[str, str]) -> None:
    assert json.loads(printable(json.dumps(values, ensure_ascii=False))) == values
    assert json.loads(printable_lines(json.dumps(values, ensure_ascii=False, indent=1))) == values


def test_an_error_masks_and_indents_its_further_lines() -> None:
    assert printable_error(OSError(f"rtsp://u:p@h/1 {BAD}\nerror: x")) == (
        "rtsp://***@h/1 \\u001b[31m\\u009b2J\\u007f\\u202e\\u2028\\r\n  error: x"
    )


def test_all_output_of_a_command_is_escaped_and_then_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    streams = sys.stdout, sys.stderr
    with printable_output():
        print("a", f"{BAD}größe 検出", sep="\n")
        print(f"{BAD} rtsp://u:p@h/1", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == streams
    out, err = capsys.readouterr()
    assert out.startswith("a\n\\u001b[31m") and out.endswith("größe 検出\n") and "rtsp://***@h/1" in err
    assert not set(out + err) & STEERING


def test_a_file_name_in_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", f"{tmp_path}/a{BAD}\nerror: all is well/"]) == 1
    with pytest.raises(SystemExit):
        main(["verify", ".", BAD])
    err = capsys.readouterr().err
    assert not set(err) & STEERING and sum(line.startswith("error:") for line in err.splitlines()) == 1


def test_the_optimizers_table() -> None:
    table = terminal.table((failed_result("int8", f"no layer {BAD}\nchosen: int8"),))
    assert len(table.splitlines()) == 3 and not set(table) & STEERING
