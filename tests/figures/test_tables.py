import pytest

from dlcv_diffusion import UserError
from dlcv_diffusion.figures import text_table


def test_words_stand_to_the_left_and_numbers_to_the_right():
    table = text_table({"name": ["a", "long name"], "n": [5, 1000], "share": ["0.5", "–"]})
    assert table.splitlines() == ["name          n  share", "a             5    0.5", "long name  1000      –"]


def test_a_table_without_rows_is_its_head():
    assert text_table({"a": [], "b": []}) == "a  b"


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(UserError, match="equally long"):
        text_table({"a": [1], "b": [1, 2]})
