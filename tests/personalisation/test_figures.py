"""Figures of attention and of best and worst show what they were given."""

import pytest
import torch

from dlcv_diffusion import UserError
from dlcv_diffusion.personalisation import figures


@pytest.fixture
def grids(monkeypatch):
    """What is handed to `image_grid`."""
    seen = []
    monkeypatch.setattr(figures, "image_grid", lambda *args, **kwargs: seen.append((args, kwargs)))
    return seen


def test_attention_is_brightest_where_it_is_largest(grids):
    images = torch.full((2, 3, 16, 16), 100, dtype=torch.uint8)
    maps = torch.full((2, 4, 4, 4), 0.01)
    maps[0, 2, 0, 0] = maps[1, 3, 3, 3] = 0.9
    figures.attention_figure(images, maps, {"fox": 2, "pizza": 3}, caption="…")
    (rows, _, heads, *_), _ = grids[0]
    assert rows.shape == (2, 3, 3, 16, 16) and heads == ["", "fox", "pizza"]
    assert torch.equal(rows[:, 0], images)
    light = rows[:, 1:].float().mean(2)
    assert light[0, 0, 0, 0] == light[0].max() > light[0, 1].max()
    assert light[1, 1, -1, -1] == light[1].max() > light[1, 0].max()


def test_best_and_worst_by_score(grids):
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 8, 8)
    scores = [3, 9, 1, 7, 0, 2, 8, 5, 6, 4]
    found = {"a": [place == 6 for place in range(10)]}
    figures.best_and_worst({"a": (images, scores)}, truth=images, found=found, count=2)
    (rows, labels, heads, *_), _ = grids[0]
    assert rows[1, :, 0, 4, 4].tolist() == [1, 6, 2, 4] and labels == ["true pictures", "a"]
    assert heads == ["best", "", "worst", ""]
    edges = rows[1, :, :, 1, 4].tolist()
    assert edges[1] == list(figures.GREEN) and edges[0] == [1, 1, 1], "a frame where it was found, and nowhere else"


def test_what_does_not_fit():
    images, maps = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, 4, 4, 4)
    for change, said in (({"words": {}}, "no word"), ({"words": {"fox": 4}}, "0 … 3"), ({"maps": maps[:1]}, "as many")):
        with pytest.raises(UserError, match=said):
            figures.attention_figure(**{"images": images, "maps": maps, "words": {"fox": 1}, **change})
    with pytest.raises(UserError, match="'a' has 2 pictures and 3 scores"):
        figures.best_and_worst({"a": (images, [1, 2, 3])}, count=1)
    with pytest.raises(UserError, match="do not fill a row"):
        figures.best_and_worst({}, truth=images, count=2)


def test_they_are_drawn():
    images = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    for figure in (
        figures.attention_figure(images, torch.rand(4, 5, 8, 8), {"fox": 2}),
        figures.best_and_worst({"a": (images, [1, 2, 3, 4])}, count=2, caption="four"),
    ):
        assert "image/png" in figure._repr_mimebundle_()[0]
