"""Listings: what is shown beside an equation is the code that computes it, and nothing else."""

import pytest

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.listing import listing

SOURCE = '''
    def f(x):
        """One.

        Two.
        """
        y = x + 1
        if y:
            y = 2
        return y
'''


def test_the_docstring_is_left_out_and_the_margin_is_on_the_left():
    assert listing(SOURCE) == "def f(x):\n    y = x + 1\n    if y:\n        y = 2\n    return y"


def test_first_and_last_choose_the_lines():
    assert listing(SOURCE, "if y", "y = 2") == "if y:\n    y = 2"
    assert listing(SOURCE, first="return") == "return y"
    assert listing(SOURCE, last="y = x") == "def f(x):\n    y = x + 1"


def test_words_that_are_not_there_are_an_error():
    with pytest.raises(UserError, match="'gone'"):
        listing(SOURCE, "gone")
    with pytest.raises(UserError, match="'def f'"):
        listing(SOURCE, "return", "def f")


def test_source_without_a_docstring_stays_whole():
    assert listing("a = 1\nb = 2") == "a = 1\nb = 2"


def test_a_method_of_the_library():
    shown = listing(NoiseSchedule.add_noise)
    assert shown.startswith("def add_noise(") and '"""' not in shown and "signal * x0 + noise * eps" in shown
