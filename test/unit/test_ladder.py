"""ladder.yaml is read as the optimizer writes it, and anything else is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edge_vision.bundles.ladder import read_ladder
from edge_vision.errors import BundleError

FIRST = {"bundle": "bundle", "relative": 0.8, "backend": "openvino", "precision": "bf16", "threads": 2}
SECOND = {"bundle": "ladder/1_fast", "relative": 0.4}


def written(folder: Path, entries: object) -> Path:
    for name in ("bundle", "ladder/1_fast"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    path = folder / "ladder.yaml"
    path.write_text(entries if isinstance(entries, str) else yaml.safe_dump(entries), "utf-8")
    return path


def test_rungs_name_folders_and_parameters(tmp_path: Path) -> None:
    first, second = read_ladder(written(tmp_path, [FIRST, SECOND]))
    assert first.parameters == {
        "model": str(tmp_path / "bundle"),
        "backend": "openvino",
        "precision": "bf16",
        "threads": 2,
    }
    assert second.model == str(tmp_path / "ladder" / "1_fast") and second.relative == 0.4
    assert second.parameters["precision"] == "auto" and second.parameters["threads"] == 0


def test_int8_need_not_be_requested_from_the_runtime(tmp_path: Path) -> None:
    (rung,) = read_ladder(written(tmp_path, [{**FIRST, "precision": "int8"}]))
    assert rung.parameters["precision"] == "auto"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "expected a list of 1 to 32 bundles"),
        ({"bundle": "bundle"}, "expected a list of 1 to 32 bundles"),
        ("[1, 2", "expected plain YAML"),
        ([1], "expected a mapping"),
        ([{"relative": 1.0}], "0.bundle: expected a folder"),
        ([{"bundle": "bundle"}], "0.relative: expected a time"),
        ([{**FIRST, "relative": 0.0}], "0.relative: expected a time"),
        ([{**FIRST, "threads": 1000}], "0.threads: expected 0..256"),
        ([{**FIRST, "speed": 1.0}], "unknown key 'speed'"),
        ([FIRST, {**SECOND, "bundle": "gone"}], "gone"),
        ([SECOND, FIRST], "expected a faster bundle than the one before (0.4), got 0.8"),
    ],
)
def test_what_is_no_ladder_is_refused(tmp_path: Path, entries: object, expected: str) -> None:
    with pytest.raises(BundleError) as refused:
        read_ladder(written(tmp_path, entries))
    assert expected in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"ladder.yaml of the optimizer, got .*No such file"):
        read_ladder(tmp_path / "ladder.yaml")
