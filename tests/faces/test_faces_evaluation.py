"""Principal components against scikit-free linear algebra, and distances that grow when faces get worse or alike."""

import json
import math

import measure_faces
import numpy as np
import pytest
import torch
from measure_digits import fingerprint
from PIL import Image
from small_faces import write_own, write_pictures
from torchvision.transforms.functional import gaussian_blur

from dlcv_diffusion import UserError
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.evaluation.encoder import PixelComponents
from dlcv_diffusion.faces.encoder import default_face_encoder
from dlcv_diffusion.faces.evaluation import FacesReport, evaluate_faces, radial_spectrum, sharpness, softened
from dlcv_diffusion.faces.grading import grade_faces
from dlcv_diffusion.faces.measured import measured_faces


def pictures(count, seed, *, spread=40.0, middle=128.0):
    """Smooth random pictures, uint8 (count, 1, 8, 8), with a few directions that are wider than the others."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(6, 64, generator=torch.Generator().manual_seed(99))
    weights = torch.randn(count, 6, generator=generator) * torch.tensor([3, 2, 1.5, 1, 0.7, 0.5])
    pixels = middle + spread / 4 * weights @ directions / 2 + 2 * torch.randn(count, 64, generator=generator)
    return pixels.clamp(0, 255).to(torch.uint8).view(count, 1, 8, 8)


def test_components_are_those_of_the_singular_value_decomposition():
    images = pictures(200, 0)
    components = PixelComponents.of(images, count=6)
    pixels = images.flatten(1).double().numpy() / 255
    _, _, rows = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    assert np.allclose(np.abs(rows[:6] @ components.basis.T.numpy()), np.eye(6), atol=1e-6)
    coordinates = components(images)
    assert coordinates.mean(0).abs().max() < 1e-6 and (coordinates.std(0).diff() < 0).all()
    assert coordinates.dtype == torch.float32  # as of every encoder


def test_of_few_large_images_they_are_the_same():
    """Where there are fewer images than pixels another matrix is solved."""
    few = pictures(40, 0)
    pixels = few.flatten(1).double().numpy() / 255
    _, _, rows = np.linalg.svd(pixels - pixels.mean(0), full_matrices=False)
    basis = PixelComponents.of(few, count=6).basis.numpy()
    assert np.allclose(np.abs(rows[:6] @ basis.T), np.eye(6), atol=1e-6)
    large = torch.randint(0, 256, (6, 3, 128, 128), dtype=torch.uint8)  # XᵀX would take 19 GB
    assert PixelComponents.of(large, count=5)(large).shape == (6, 5)


def test_soft_pictures_are_compared_with_pictures_made_as_soft():
    generator = torch.Generator().manual_seed(0)
    training, held_out, others = (
        torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8) for n in (300, 100, 100)
    )
    soft = softened(others, sharpness(others) / 9)
    assert sharpness(soft) == pytest.approx(sharpness(others) / 9, rel=0.05)
    report = evaluate_faces(soft, training, held_out, encoder=PixelComponents.of(training, count=10))
    assert report.sharpness == pytest.approx(1 / 9, rel=0.1)
    assert report.nearest.median < 0.9 * report.nearest.real_median  # nearer, and yet no copies:
    assert report.soft_median == pytest.approx(report.nearest.median, rel=0.02)
    assert torch.equal(softened(held_out, 1e9), held_out)


def test_real_ones_are_at_one_and_worse_ones_further_away():
    training, held_out = pictures(800, 1), pictures(200, 2)
    components = PixelComponents.of(training, count=10)

    def ratio(samples):
        return evaluate_faces(samples, training, held_out, encoder=components).frechet_ratio

    as_real, alike, darker = pictures(200, 3), pictures(200, 3, spread=20.0), pictures(200, 3, middle=90.0)
    assert 0.5 < ratio(as_real) < 2
    assert ratio(alike) > 5 * ratio(as_real)  # less varied
    found = evaluate_faces(alike, training, held_out, encoder=components)
    assert found.recall < 0.5 * found.recall_real  # and recall says that it is variety that is lost
    assert ratio(darker) > 5 * ratio(as_real)  # out of place


def test_copies_are_seen():
    training, held_out = pictures(300, 1), pictures(100, 2)
    components = PixelComponents.of(training, count=10)
    copied = evaluate_faces(training[:100].clone(), training, held_out, encoder=components)
    fresh = evaluate_faces(pictures(100, 5), training, held_out, encoder=components)
    assert copied.nearest.median == 0 and fresh.nearest.median > 0.5 * fresh.nearest.real_median
    assert "0.0 grey levels" in str(copied) and copied.as_dict()["frechet_ratio"] == copied.frechet_ratio
    assert isinstance(fresh, FacesReport) and fresh.count == 100


@pytest.mark.parametrize("count", [0, 64, 200])
def test_there_are_only_so_many_components(count):
    with pytest.raises(UserError, match="principal components"):
        PixelComponents.of(pictures(60, 0), count=count)


def test_other_images_are_refused():
    components = PixelComponents.of(pictures(60, 0), count=5)
    for wrong in (
        torch.zeros(2, 1, 8, 8),
        torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        torch.zeros(2, dtype=torch.uint8),
    ):
        with pytest.raises(UserError, match="images|uint8"):
            components(wrong)


# --- the course's grading ---------------------------------------------------------------------------------------------


def grey(level):
    return Image.new("RGB", (4, 4), (level,) * 3)


@pytest.fixture
def folders(tmp_path):
    for name in ("out", "gt"):
        (tmp_path / name).mkdir()
        for number in range(2):
            grey(100).save(tmp_path / name / f"{number:02d}.png")
    return tmp_path / "out", tmp_path / "gt"


@pytest.mark.parametrize("level, mse, passed", [(100, 0, True), (104, 16, True), (106, 36, False), (95, 25, False)])
def test_a_grade_knows_whether_it_passed(folders, level, mse, passed):
    out, gt = folders
    for number in range(2):
        grey(level).save(out / f"{number:02d}.png")
    grade = grade_faces(out, gt)
    assert grade.mean == mse and grade.passed is passed
    assert ("PASS" if passed else "FAIL") in str(grade)


def test_differences_do_not_wrap_around(folders):
    out, gt = folders
    grey(0).save(out / "00.png")
    grey(1).save(gt / "00.png")
    assert grade_faces(out, gt).mse == {"00.png": 1, "01.png": 0}


def test_what_systems_leave_in_folders_is_no_picture(folders):
    out, gt = folders
    for name in ("._00.png", ".DS_Store", "Thumbs.db", "desktop.ini", "readme.txt"):
        (gt / name).write_text("left behind")
    (gt / ".ipynb_checkpoints").mkdir()
    (out / "more.png").write_text("ignored")
    assert list(grade_faces(out, gt).mse) == ["00.png", "01.png"]


def test_pictures_that_cannot_be_compared(folders, tmp_path):
    out, gt = folders

    def refused(sentence):
        with pytest.raises(UserError, match=sentence) as raised:
            grade_faces(out, gt)
        assert "\n" not in str(raised.value)

    (out / "01.png").rename(tmp_path / "kept.png")
    refused("lacks '01.png'; there must be a picture for each of the 2")
    (out / "01.png").symlink_to(tmp_path / "gone.png")
    refused("01.png' is a link to what is not there")
    (out / "01.png").unlink()
    (out / "01.png").mkdir()
    refused("01.png' is a folder")
    (out / "01.png").rmdir()
    Image.new("RGB", (5, 4)).save(out / "01.png")
    refused("01.png' is 5×4, but '.*01.png' is 4×4")
    (out / "01.png").unlink()
    (out / "00.png").unlink()
    refused("lacks '00.png' and 1 more")
    for path in gt.iterdir():
        path.unlink()
    refused("holds no pictures")
    out.rmdir()
    refused("out' is not there; give the one that holds your images")


# --- what was measured ------------------------------------------------------------------------------------------------

ROW = {"sampler": "ddim", "steps": 20, "eta": 0.0, "frechet_ratio": 2.0}


def test_rows_that_do_not_name_their_spacing_are_of_uniform_timesteps(tmp_path):
    trailing = {**ROW, "spacing": "trailing", "frechet_ratio": 1.5}
    (tmp_path / "m.json").write_text(json.dumps([ROW, trailing]))
    uniform = {**ROW, "spacing": "uniform"}
    assert measured_faces(tmp_path / "m.json") == [uniform]
    assert measured_faces(tmp_path / "m.json", spacing="trailing") == [trailing]
    assert measured_faces(tmp_path / "m.json", spacing=None) == [uniform, trailing]


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"steps": "few"}, {"eta": 2}, {"eta": None}, {"frechet_ratio": math.nan}, {"frechet_ratio": []}]
    + [{"spacing": 3}, {"sampler": {}}],
)
def test_crafted_rows_are_told_in_a_sentence(tmp_path, change):
    (tmp_path / "m.json").write_text(json.dumps([{**ROW, **change}]))
    with pytest.raises(UserError, match="holds no measurements of tools/measure_faces.py: 0."):
        measured_faces(tmp_path / "m.json")


def test_the_shipped_faces_were_measured_with_the_weights_that_ship():
    rows = measured_faces()
    assert {row["weights"] for row in rows} == {fingerprint(load_denoiser("faces").model.state_dict())}
    assert {row["encoder_weights"] for row in rows} == {fingerprint(default_face_encoder().state_dict())}
    assert {row["count"] for row in rows} == {1000}
    by_encoder = {row["steps"]: row["encoder"]["frechet_ratio"] for row in rows if row["eta"] == 0}
    assert by_encoder[5] > by_encoder[10] > by_encoder[20] > by_encoder[50], "the encoder sees what few steps cost"
    ratios = {(row["steps"], row["eta"]): row["frechet_ratio"] for row in rows if row["sampler"] == "ddim"}
    assert set(ratios) >= {(steps, eta) for steps in (10, 20, 50) for eta in (0.0, 1.0)}
    assert all(ratio <= 5 for (steps, _), ratio in ratios.items() if steps >= 20), "faces became worse"
    # no copies: as far from the training faces as held-out ones that are as soft, within a fifth
    assert all(row["nearest"]["median"] > 0.8 * row["soft_median"] for row in rows)


def test_the_tool_measures_both_spacings_and_does_nothing_twice(tmp_path, monkeypatch, capsys):
    write_own(tmp_path / "model.safetensors")
    out = tmp_path / "rows.json"
    common = [
        "--data",
        str(write_pictures(tmp_path / "pictures", 120)),
        "--weights",
        str(tmp_path / "model.safetensors"),
    ]
    common += ["--count", "8", "--device", "cpu", "--threads", str(torch.get_num_threads()), "--out", str(out)]
    monkeypatch.setattr(measure_faces, "PixelComponents", Few)
    measure_faces.main([*common, "--rows", "ddim:uniform:0:5", "ddim:trailing:0:5"])
    both = [(5, 0.0, "uniform"), (5, 0.0, "trailing")]
    assert settings_of(measured_faces(out, spacing=None)) == both
    first, second = measured_faces(out, spacing=None)
    assert first["frechet"] != second["frechet"], "the same timesteps"
    more = ["ddim:uniform:0:2", "ddim:uniform:1:2", "dpm_solver:trailing:0:3", "ddim:trailing:0:5"]
    measure_faces.main([*common, "--rows", *more])  # the last is there already
    further = [(2, 0.0, "uniform"), (2, 1.0, "uniform"), (3, 0.0, "trailing")]
    assert settings_of(measured_faces(out, spacing=None)) == [*both, *further]
    assert measured_faces(out, spacing="trailing")[0] == second
    assert capsys.readouterr().out.count("| ddim | trailing | 0 | 5 |") == 2


@pytest.mark.parametrize("rows", ["ddim", "ddim:uniform:0:few", "heun:uniform:0:5", "dpm_solver:trailing:1:5"])
def test_the_tool_refuses_settings_that_it_does_not_know(rows):
    with pytest.raises(UserError, match=f"'{rows}'"):
        list(measure_faces.settings([rows]))


def test_the_spectrum_of_white_noise_is_flat_and_of_a_wave_is_one_peak():
    noise = (128 + 20 * torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))).to(torch.uint8)
    assert (radial_spectrum(noise) / 400 - 1).abs().max() < 0.1
    wave = (127.5 + 100 * torch.cos(2 * torch.pi * 5 * torch.arange(32) / 32)).round().to(torch.uint8)
    spectrum = radial_spectrum(wave.expand(1, 1, 32, 32))
    assert spectrum.argmax() == 4 and spectrum[4] > 100 * spectrum.sum().sub(spectrum[4])


def test_blurred_pictures_have_less_power_at_high_frequencies():
    images = torch.randint(0, 256, (16, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    ratio = radial_spectrum(gaussian_blur(images, [7, 7], [1.0, 1.0])) / radial_spectrum(images)
    assert ratio[0] > 0.8 and ratio[-1] < 0.1 and (ratio.diff() < 0.02).all()


class Few(PixelComponents):
    """Only as many components as a few pictures have."""

    @classmethod
    def of(cls, images, count=5):
        return super().of(images, count)


def settings_of(rows):
    return [(row["steps"], row["eta"], row["spacing"]) for row in rows]
