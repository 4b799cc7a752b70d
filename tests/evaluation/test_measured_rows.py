"""Files of measurements: what is read, and the sentence for everything else."""

import json

import pytest
from typing_extensions import TypedDict

from dlcv_diffusion import UserError
from dlcv_diffusion.evaluation.measured import read_rows


class Row(TypedDict):
    w: float
    steps: int


def test_a_missing_file_names_the_tool(tmp_path):
    with pytest.raises(UserError, match=r"no measurements at '.*none.json'; make them with `tools/a.py --out .*none"):
        read_rows(tmp_path / "none.json", Row, "tools/a.py")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[1]", '[{"w": 1}]', "null", "[" * 100_000, '[{"w": "x", "steps": 1}]', '[{"w": [], "steps": 1}]']
    + ['[{"w": 1, "steps": 1.5}]', "[null]", '"text"', '[{"w": 1, "steps": ' + "9" * 5000 + "}]", "\x00"],
)
def test_other_files_are_told_in_a_sentence(tmp_path, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(UserError, match="holds no measurements of tools/a.py") as raised:
        read_rows(tmp_path / "m.json", Row, "tools/a.py")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400 + len(str(tmp_path))


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "m.json").write_bytes(b"\xff\xfe\x00[")
    with pytest.raises(UserError, match="holds no measurements"):
        read_rows(tmp_path / "m.json", Row, "tools/a.py")


def test_rows_come_back(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps([{"w": 1.5, "steps": 3}]))
    assert read_rows(tmp_path / "m.json", Row, "tools/a.py") == [{"w": 1.5, "steps": 3}]
