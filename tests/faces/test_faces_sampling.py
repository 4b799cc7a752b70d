"""Problem 2: a denoiser from any weights, faces from noises, the course's folder, and its grading."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from small_faces import SIZE, small_unet2d, write_course, write_own
from small_runs import (
    contents,
    full_disk,
    names,
    one_thread,  # noqa: F401 – for every test here
    small_unet,
)
from torchvision.utils import save_image

from dlcv_diffusion import NoiseSchedule, UserError, ddim, last, seeded_noise
from dlcv_diffusion.denoiser import Denoiser, load_denoiser
from dlcv_diffusion.faces.grading import grade_faces
from dlcv_diffusion.faces.noises import write_noises
from dlcv_diffusion.faces.sampling import PRESETS, FaceSampling, sample_faces, write_hw2_faces
from dlcv_diffusion.images.own_photo import grace_hopper
from dlcv_diffusion.images.pixels import to_uint8
from dlcv_diffusion.models import read_model, save_model

QUICK = FaceSampling(steps=4)


@pytest.fixture
def denoise(tmp_path):
    return load_denoiser(write_own(tmp_path / "small.safetensors"), device="cpu")


def noises(count=5, channels=1):
    return seeded_noise((count, channels, SIZE, SIZE), range(count))


def pixels(path):
    return np.asarray(Image.open(path)).astype(int)


# --- a denoiser from any weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_our_own_weights_say_what_they_are(tmp_path, prediction):
    path = write_own(tmp_path / "run.safetensors", prediction=prediction)
    denoise = load_denoiser(path, device="cpu")
    assert (denoise.prediction, denoise.shape, denoise.name) == (prediction, (1, SIZE, SIZE), "small")
    model, x, t = read_model(path)[0], noises(2), torch.tensor([3, 900])
    with torch.no_grad():
        theirs = Denoiser(model, NoiseSchedule.linear(1000), prediction)(x, t)
        torch.testing.assert_close(denoise(x, t), theirs)


def test_the_shipped_weights_are_faces():
    denoise = load_denoiser("faces", device="cpu")
    assert denoise.shape == (1, 64, 64) and denoise.name
    faces = sample_faces(denoise, seeded_noise((2, 1, 64, 64), range(2)), QUICK)
    assert faces.float().std(dim=(1, 2, 3)).min() > 10 and not torch.equal(faces[0], faces[1])
    for face in faces.float():  # pixels beside each other are alike, as in no noise
        assert torch.corrcoef(torch.stack([face[..., 1:].flatten(), face[..., :-1].flatten()]))[0, 1] > 0.8


def test_the_shipped_weights_take_noise_off_a_face_they_never_saw():
    denoise, x0 = load_denoiser("faces", device="cpu"), grace_hopper()
    for t, most in ((100, 0.2), (200, 0.25), (300, 0.3)):  # the noise is σ = 0.34, 0.72, 1.24; she differs by 0.44
        x = denoise.schedule.add_noise(x0, seeded_noise(x0.shape, [0]), t)
        with torch.no_grad():
            seen = denoise.schedule.predict_x0(x, denoise(x, torch.tensor([t])), t)
        assert (seen - x0).square().mean().sqrt() < most


def test_the_course_s_weights_come_with_their_code(tmp_path):
    write_course(tmp_path)
    denoise = load_denoiser(tmp_path / "UNet.pt", unet_py=tmp_path / "UNet.py", device="cpu")
    assert denoise.shape == (3, 256, 256) and not denoise.model.training


def test_a_diffusers_folder_is_a_denoiser_too(tmp_path):
    small_unet2d().save_pretrained(tmp_path / "faces")
    denoise = load_denoiser(tmp_path / "faces", device="cpu")
    assert denoise.shape == (3, SIZE, SIZE)
    assert sample_faces(denoise, noises(2, 3), QUICK).shape == (2, 3, SIZE, SIZE)


@pytest.mark.parametrize(
    "weights, unet_py, said",
    [
        ("UNet.pt", None, "no weights at 'UNet.pt'"),
        ("small.safetensors", "UNet.py", r"unet_py \(--unet-py\) does nothing for the weights 'small.safetensors'"),
        ("face", None, "no weights at 'face'; give a .safetensors file or one of: digits, faces"),
        ("runs/faces.safetensors", None, "no weights at 'runs/faces.safetensors'"),
        ("folder/faces", None, "no weights at 'folder/faces'"),  # a path that was mistyped is not looked for on the hub
        ("folder", None, "'folder' holds no network of diffusers"),
        ("run", None, "'run' is a folder; give the weights in it, 'run/model.safetensors'"),
        ("owner/name", None, "no folder 'owner/name', and no UNet2DModel of that name could be fetched"),
    ],
)
def test_other_weights_are_one_sentence(tmp_path, monkeypatch, weights, unet_py, said):
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "run"):
        (tmp_path / folder).mkdir()
    write_own(tmp_path / "small.safetensors")
    write_own(tmp_path / "run" / "model.safetensors")
    with pytest.raises(UserError, match=said) as error:
        load_denoiser(weights, unet_py=unet_py, device="cpu")
    assert "\n" not in str(error.value)


def test_weights_of_digits_are_refused():
    with pytest.raises(UserError, match="draw classes by label; choose weights of faces"):
        sample_faces(load_denoiser("digits"), seeded_noise((1, 3, 28, 28), [0]), QUICK)


def test_weights_without_a_size_draw_any(tmp_path):
    save_model(small_unet(num_classes=0), tmp_path / "any.safetensors", {"schedule": NoiseSchedule.linear(20).config})
    denoise = load_denoiser(tmp_path / "any.safetensors", device="cpu")
    assert (denoise.shape, denoise.name) == (None, "any")
    assert sample_faces(denoise, seeded_noise((1, 3, 8, 24), [0]), QUICK).shape == (1, 3, 8, 24)


# --- sampling ---------------------------------------------------------------------------------------------------------


def reference(network, x, *, first, clip, final):
    """The loop that the course's solutions write: timesteps and those before them, in float64 from the betas."""
    alphas_cumprod = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    sequence = np.arange(0, 1000, 20) + first
    previous = np.append(0, sequence[:-1])
    for i in reversed(range(50)):
        alpha = alphas_cumprod[sequence[i]]
        alpha_prev = 1.0 if i == 0 and final == "one" else alphas_cumprod[previous[i]]
        with torch.no_grad():
            noise = network(x, torch.full((len(x),), int(sequence[i])))
        x0 = (x - np.sqrt(1 - alpha) * noise) / np.sqrt(alpha)
        if clip:
            x0 = x0.clamp(-1.0, 1.0)
        x = np.sqrt(alpha_prev) * x0 + np.sqrt(1 - alpha_prev) * noise
    return x


@pytest.mark.parametrize(
    "preset, said, normalised",
    [
        ("paper", {"first": 0, "clip": False, "final": "one"}, {"normalize": True, "value_range": (-1, 1)}),
        ("course", {"first": 1, "clip": True, "final": "first"}, {"normalize": True}),
    ],
)
def test_a_preset_is_the_loop_written_out_and_torchvision_s_saving(tmp_path, preset, said, normalised):
    network = write_course(tmp_path)
    denoise = load_denoiser(tmp_path / "UNet.pt", unet_py=tmp_path / "UNet.py", device="cpu")
    denoise.shape = (3, SIZE, SIZE)
    ours = sample_faces(denoise, noises(2, 3), PRESETS[preset])
    theirs = reference(network, noises(2, 3), **said)
    for face, x in zip(ours, theirs, strict=True):
        save_image(x, tmp_path / "theirs.png", **normalised)
        apart = abs(face.permute(1, 2, 0).numpy().astype(int) - pixels(tmp_path / "theirs.png"))
        assert apart.max() <= 1 and apart.mean() < 0.01


def test_every_choice_of_the_course_s_preset_makes_a_difference(denoise):
    course, x_T = PRESETS["course"], noises(2)
    for name, value in vars(PRESETS["paper"]).items():
        if value != getattr(course, name):
            other = replace(course, **{name: value}, steps=10)
            assert not torch.equal(
                sample_faces(denoise, x_T, other), sample_faces(denoise, x_T, replace(course, steps=10))
            ), name


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_face_depends_on_its_noise_and_seed_alone(denoise, eta):
    config, x_T, seeds = FaceSampling(steps=5, eta=eta), noises(5), [7, 8, 9, 10, 11]
    together = sample_faces(denoise, x_T, config, seeds=seeds)
    for batch_size in (1, 2, 3):
        faces = sample_faces(denoise, x_T, config, seeds=seeds, batch_size=batch_size)
        assert (faces.int() - together.int()).abs().max() <= 1  # a sum in another order, now and then
    order = [3, 0, 4]
    faces = sample_faces(denoise, x_T[order], config, seeds=[seeds[i] for i in order])
    assert (faces.int() - together[order].int()).abs().max() <= 1
    others = sample_faces(denoise, x_T, config, seeds=[1, 8, 9, 10, 11])
    assert torch.equal(others[1:], together[1:]) and torch.equal(others[0], together[0]) == (eta == 0)


def test_it_is_ddim(denoise):
    config = FaceSampling(6, 0.4, spacing="trailing", final_alpha="first", clip_x0=0.9, rederive_eps=True)
    seeds, schedule = [1, 2], denoise.schedule
    options = {"spacing": "trailing", "eta": 0.4, "final_alpha": "first", "clip_x0": 0.9, "rederive_eps": True}
    x = last(ddim(denoise, noises(2), schedule, steps=6, seeds=seeds, **options)).x
    assert torch.equal(sample_faces(denoise, noises(2), config, seeds=seeds), to_uint8(x))


def test_a_flat_face_can_be_stretched():
    flat = torch.full((2, 1, 4, 4), 0.3)
    flat[1, 0, 0, 0] = 0.4
    stretched = FaceSampling(save="min_max").pixels(flat)
    assert stretched[0].unique().tolist() == [0] and stretched[1].unique().tolist() == [0, 255]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"steps": 0}, "steps is 0"),
        ({"eta": 1.5}, "eta is 1.5"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"spacing": "quad"}, "spacing is 'quad'; it should be 'trailing' or 'uniform'"),
        ({"final_alpha": "two"}, "final_alpha is 'two'"),
        ({"save": "png"}, "save is 'png'; it should be 'clamp' or 'min_max'"),
        ({"clip_x0": 0.0}, "clip_x0 is 0.0"),
        ({"clip_x0": float("inf")}, "clip_x0 is inf"),
        ({"rederive_eps": True}, "rederive_eps does nothing"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        FaceSampling(**options)


def test_noises_and_seeds_must_fit(denoise):
    for x_T, said in [
        (noises(2, 3), "the noises are 3×16×16, but the weights 'small' draw 1×16×16"),
        (noises(2)[0], r"tensor \(N, C, H, W\), .* not \(1, 16, 16\)"),
        (noises(2)[:0], "N at least 1"),
        (noises(2).numpy(), "a torch tensor .* not ndarray"),
        (noises(2) * float("nan"), "not finite"),
    ]:
        with pytest.raises(UserError, match=said):
            sample_faces(denoise, x_T)
    with pytest.raises(UserError, match="2 noises for 3 seeds"):
        sample_faces(denoise, noises(2), seeds=[1, 2, 3])
    with pytest.raises(UserError, match="offset 1000 leaves the schedule with 50 uniform steps"):
        sample_faces(denoise, noises(2), FaceSampling(offset=1000, steps=50))


# --- the course's folder ----------------------------------------------------------------------------------------------


def test_a_face_for_each_noise_named_after_it(denoise, tmp_path):
    write_noises(tmp_path / "noise", range(3), (1, 1, SIZE, SIZE))
    paths = write_hw2_faces(tmp_path / "noise", tmp_path / "out", denoise, QUICK)
    assert names(tmp_path / "out") == ["00.png", "01.png", "02.png"]
    faces = sample_faces(denoise, noises(3), QUICK)
    for path, face in zip(paths, faces, strict=True):
        with Image.open(path) as image:
            assert (image.mode, image.format, image.size) == ("L", "PNG", (SIZE, SIZE))
            assert np.array_equal(np.asarray(image), face[0].numpy())


def test_with_eta_a_face_is_the_same_whatever_lies_beside_its_noise(denoise, tmp_path):
    config = FaceSampling(steps=4, eta=1.0)
    write_noises(tmp_path / "noise", range(3), (1, 1, SIZE, SIZE))
    write_noises(tmp_path / "one", [2], (1, 1, SIZE, SIZE))
    for folder in ("noise", "one"):
        write_hw2_faces(tmp_path / folder, tmp_path / f"{folder}_out", denoise, config, seed=5)
    pair = [pixels(tmp_path / folder / "02.png") for folder in ("noise_out", "one_out")]
    assert abs(pair[0] - pair[1]).max() <= 1
    write_hw2_faces(tmp_path / "one", tmp_path / "other", denoise, config, seed=6)
    assert abs(pixels(tmp_path / "other" / "02.png") - pair[1]).max() > 1

    (tmp_path / "one" / "02.pt").rename(tmp_path / "one" / "mine.pt")  # no number: its place, 0, instead
    write_hw2_faces(tmp_path / "one", tmp_path / "mine", denoise, config, seed=7)
    assert np.array_equal(pixels(tmp_path / "mine" / "mine.png"), pixels(tmp_path / "one_out" / "02.png"))


def test_what_cannot_be_written_is_found_out_before_the_sampling(denoise, tmp_path):
    write_noises(tmp_path / "noise", range(2), (1, 1, SIZE, SIZE))
    (tmp_path / "words.txt").write_text("words")
    before = contents(tmp_path)
    denoise.model.forward = lambda x, t: pytest.fail("it sampled")
    with pytest.raises(UserError, match="cannot write '.*words.txt"):
        write_hw2_faces(tmp_path / "noise", tmp_path / "words.txt", denoise, QUICK)
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_nothing(denoise, tmp_path):
    write_noises(tmp_path / "noise", range(2), (1, 1, SIZE, SIZE))
    before = names(tmp_path)
    with full_disk(100), pytest.raises(UserError, match="cannot write .*: File too large"):
        write_hw2_faces(tmp_path / "noise", tmp_path / "out", denoise, QUICK)
    assert names(tmp_path) == before


def test_pictures_have_one_or_three_channels(denoise, tmp_path):
    write_noises(tmp_path, [0], (1, 2, SIZE, SIZE))
    with pytest.raises(UserError, match="1 or 3 channels; the noises in '.*' have 2"):
        write_hw2_faces(tmp_path, tmp_path / "out", denoise, QUICK)


# --- grading ----------------------------------------------------------------------------------------------------------


def folder_of(path, values, size=(4, 3), mode="RGB"):
    path.mkdir()
    for number, value in enumerate(values):
        Image.new(mode, size, value if mode == "L" else (value,) * 3).save(path / f"{number:02d}.png")
    return path


def test_errors_are_squared_in_floating_point(tmp_path):
    out, gt = folder_of(tmp_path / "out", [0, 255, 10]), folder_of(tmp_path / "gt", [2, 254, 20])
    grade = grade_faces(out, gt)
    assert grade.mse == {"00.png": 4.0, "01.png": 1.0, "02.png": 100.0}  # in uint8, 0 − 2 would be 254
    assert grade.mean == 35.0 and not grade.passed
    assert str(grade).splitlines()[-1].split() == ["mean", "35.00", "FAIL:", "not", "below", "20"]
    assert [line.split() for line in str(grade).splitlines()[1:3]] == [["00.png", "4.00"], ["01.png", "1.00"]]


@pytest.mark.parametrize("apart, passed", [(4, True), (5, False)])
def test_below_20_passes(tmp_path, apart, passed):
    out, gt = folder_of(tmp_path / "out", [100, 100]), folder_of(tmp_path / "gt", [100 + apart, 100 + apart])
    assert grade_faces(out, gt).passed == passed
    assert grade_faces(gt, gt).mean == 0
    wider = folder_of(tmp_path / "exactly", [0] * 5), folder_of(tmp_path / "twenty", [10, 0, 0, 0, 0])
    assert grade_faces(*wider).mean == 20 and not grade_faces(*wider).passed


def test_grey_is_compared_as_rgb_and_other_files_are_left_alone(tmp_path):
    out, gt = folder_of(tmp_path / "out", [7], mode="L"), folder_of(tmp_path / "gt", [9])
    (out / "notes.txt").write_text("mine")
    (out / "77.png").write_bytes(b"not asked for")
    (gt / "._00.png").write_bytes(b"what macOS leaves")
    assert grade_faces(out, gt).mse == {"00.png": 4.0}


def test_what_cannot_be_graded_is_one_sentence(tmp_path):
    gt = folder_of(tmp_path / "gt", [1, 2, 3])
    short = folder_of(tmp_path / "short", [1])
    other = folder_of(tmp_path / "other", [1, 2, 3], size=(5, 3))
    broken = folder_of(tmp_path / "broken", [1, 2, 3])
    (broken / "01.png").write_bytes(b"no picture")
    (tmp_path / "empty").mkdir()
    for out, truth, said in [
        (tmp_path / "none", gt, "none' is not there; give the one that holds your images"),
        (gt, tmp_path / "none", "none' is not there; give the course's images"),
        (gt, tmp_path / "empty", "'.*empty' holds no pictures"),
        (short, gt, "'.*short' lacks '01.png' and 1 more; there must be a picture for each of the 3"),
        (other, gt, "'.*other/00.png' is 5×3, but '.*gt/00.png' is 4×3"),
        (broken, gt, "'.*broken/01.png' is not a picture that can be read"),
    ]:
        with pytest.raises(UserError, match=said):
            grade_faces(out, truth)
