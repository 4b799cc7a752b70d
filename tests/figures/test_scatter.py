"""The scatter plot."""

import pytest

from dlcv_diffusion import UserError
from dlcv_diffusion.figures.scatter import scatter_plot


def test_a_panel_for_each_name_says_how_the_two_go_together():
    fig = scatter_plot({"up": ([0, 1, 2], [0, 2, 4]), "down": ([0, 1, 2], [4, 2, 0])}, "before", "after")
    assert [axes.get_title(loc="left") for axes in fig.axes] == ["up: r = 1.00", "down: r = -1.00"]
    assert fig.axes[0].get_ylim() == fig.axes[1].get_ylim()


@pytest.mark.parametrize("points", [([0, 1], [0]), ([1], [1]), ([], [])])
def test_lists_that_do_not_fit_are_an_error(points):
    with pytest.raises(UserError, match="'a' has"):
        scatter_plot({"a": points}, "before", "after")
