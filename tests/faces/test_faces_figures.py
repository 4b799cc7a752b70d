"""Problem 2's figures: made of the right faces, labelled, with their facts, written whole or not at all."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dlcv_diffusion import NoiseSchedule, UserError, ddim, last, seeded_noise
from dlcv_diffusion.denoiser import Denoiser
from dlcv_diffusion.faces.figures import (
    corner_figure,
    eta_figure,
    interpolation_figure,
    noises_of,
    norm_figure,
    write_face_figures,
)
from dlcv_diffusion.faces.noises import read_noises, write_noises
from dlcv_diffusion.faces.sampling import PRESETS, FaceSampling, draw, write_hw2_faces
from dlcv_diffusion.figures import read_facts
from dlcv_diffusion.interpolation import lerp, slerp


def halve(x, t):
    """Gives x̂0 = x_t / 2 whatever x_t is: quick, and different for every noise."""
    return x / 2


@pytest.fixture
def denoise():
    return Denoiser(halve, NoiseSchedule.linear(1000), "x0", shape=(1, 16, 16), name="a test's")


def words(fig):
    return [text.get_text() for text in fig.texts]


def mosaic(fig):
    return np.asarray(fig.axes[0].images[0].get_array())


def test_a_batch_is_drawn_in_parts_that_change_nothing(denoise):
    x_T = noises_of(denoise, range(20))
    assert torch.equal(x_T, seeded_noise((20, 1, 16, 16), range(20)))
    together = draw(denoise, x_T, steps=5, eta=1.0)
    alone = last(ddim(denoise, x_T[17:18], steps=5, spacing="uniform", eta=1.0, seeds=[17])).x
    assert torch.allclose(together[17:18], alone, atol=1e-6)


def test_eta_rows_share_their_noise_and_differ_by_eta_alone(denoise):
    fig = eta_figure(denoise, etas=(0.0, 0.0, 1.0), seeds=[3, 5], config=FaceSampling(5))
    assert sorted(words(fig)[1:]) == ["noise 03", "noise 05", "η = 0", "η = 0", "η = 1"]
    picture = mosaic(fig)
    step = (picture.shape[0] + 4) // 3  # a gap of 2 units, 2 pixels each, between two rows
    rows = [picture[i * step : i * step + step - 4] for i in range(3)]
    assert np.array_equal(rows[0], rows[1]) and not np.array_equal(rows[0], rows[2])
    assert fig.facts["seeds"] == [3, 5] and fig.facts["steps"] == 5 and fig.facts["weights"] == "a test's"


def test_the_rows_of_slerp_and_lerp_have_the_same_ends(denoise):
    rows = [mosaic(interpolation_figure(denoise, between, config=FaceSampling(3))) for between in (slerp, lerp)]
    side = rows[0].shape[0]
    assert np.array_equal(rows[0][:, :side], rows[1][:, :side])
    assert np.array_equal(rows[0][:, -side:], rows[1][:, -side:])
    assert not np.array_equal(rows[0], rows[1])
    assert words(interpolation_figure(denoise, lerp, config=FaceSampling(3)))[1:] == [f"{i / 10:g}" for i in range(11)]


def test_noises_from_files_are_named_by_their_files(denoise):
    noises = seeded_noise((2, 1, 16, 16), range(2))
    assert eta_figure(denoise, noises, config=FaceSampling(2)).facts["noises"] == ["00", "01"]
    fig = eta_figure(denoise, noises, names=["05", "07"], config=FaceSampling(2))
    assert fig.facts["noises"] == ["05", "07"] and "noise 07" in words(fig)
    assert fig.facts["seeds_of_z"] == [5, 7]  # of the fresh noise z, without which the grid could not be made again
    with pytest.raises(UserError, match="1 names for 2 noises"):
        eta_figure(denoise, noises, names=["05"], config=FaceSampling(2))
    with pytest.raises(UserError, match="the noises are 3×16×16"):
        eta_figure(denoise, seeded_noise((2, 3, 16, 16), range(2)), config=FaceSampling(2))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_cell_is_the_face_that_is_handed_in(denoise, tmp_path, preset):
    """The same conventions, and the same z for the same file, as `dlcv sample faces`."""
    write_noises(tmp_path / "noise", [5, 7], (1, 1, 16, 16))
    config = replace(preset, steps=4, eta=0.5)
    write_hw2_faces(tmp_path / "noise", tmp_path / "out", denoise, config, seed=100)
    noises, names = read_noises(tmp_path / "noise"), ["05", "07"]
    fig = eta_figure(denoise, noises, names=names, etas=(0.0, 0.5), seeds=[105, 107], config=config)
    side = (mosaic(fig).shape[0] - 4) // 2
    cell = mosaic(fig)[side + 4 :: side // 16, side + 4 :: side // 16, 0]
    with Image.open(tmp_path / "out" / "07.png") as face:
        assert np.array_equal(cell, np.asarray(face))
    assert fig.facts["seeds_of_z"] == [105, 107] and fig.facts["eta"] == [0.0, 0.5]
    assert ("clip_x0" in fig.facts) == (preset == PRESETS["course"])
    others = eta_figure(denoise, noises, names=names, etas=(0.0, 0.5), config=config)  # z after the files' names
    assert not np.array_equal(mosaic(others)[side + 4 :], mosaic(fig)[side + 4 :])
    assert np.array_equal(mosaic(others)[:side], mosaic(fig)[:side])


def test_figures_between_two_or_four_noises_take_no_other_number(denoise):
    for figure, count in ((interpolation_figure, 2), (norm_figure, 2), (corner_figure, 4)):
        with pytest.raises(UserError, match=f"between {count} noises, not 3"):
            figure(denoise, seeds=[0, 1, 2])
        with pytest.raises(UserError, match=f"between {count} noises, not 1"):
            figure(denoise, noises=noises_of(denoise, [0]))


def test_lengths_are_measured(denoise):
    fig = norm_figure(denoise)
    curves = {line.get_label(): line.get_ydata() for line in fig.axes[0].lines}
    assert curves["slerp"].min() > 0.9
    x = seeded_noise((2, 256), [0, 1])
    assert curves["lerp"][25] == pytest.approx(x.mean(0).norm().item() / 16, abs=1e-5)


def test_a_grid_between_four_has_the_faces_of_the_four_in_its_corners(denoise):
    picture = mosaic(corner_figure(denoise, rows=3, columns=4, config=FaceSampling(2)))
    four = mosaic(corner_figure(denoise, rows=2, columns=2, config=FaceSampling(2)))
    assert picture[0, 0, 0] == four[0, 0, 0] and picture[-1, -1, 0] == four[-1, -1, 0]
    assert picture.shape[1] > picture.shape[0]


def test_all_of_them_are_written_with_their_facts(denoise, tmp_path):
    paths = write_face_figures(tmp_path / "new", denoise, config=FaceSampling(2))
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "new").iterdir())
    assert len(paths) == 5
    for path in paths:
        assert read_facts(path)["weights"] == "a test's"
        assert Image.open(path).width > 300


def test_too_few_noises_or_no_size_are_told(denoise, tmp_path):
    with pytest.raises(UserError, match="need four noises, not 2"):
        write_face_figures(tmp_path, denoise, seeded_noise((2, 1, 16, 16), range(2)))
    with pytest.raises(UserError, match="any size"):
        noises_of(Denoiser(halve, NoiseSchedule.linear(1000), "x0"), [0])
    assert list(tmp_path.iterdir()) == []
