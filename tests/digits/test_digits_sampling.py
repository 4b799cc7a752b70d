"""Problem 1 in three calls: images of the right seeds in the right files, and figures that say how they were made."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import (
    full_disk,
    names,
    one_thread,  # noqa: F401 – for every test here
    small_context_unet,
    small_unet,
    with_random_weights,
)

from dlcv_diffusion import NoiseSchedule, UserError, ddpm, dpm_solver, guided, last, seeded_noise
from dlcv_diffusion.denoiser import to_eps
from dlcv_diffusion.digits.figures import (
    FRAMES,
    grid_figure,
    half_name,
    overview_figure,
    strip_figure,
    write_digit_figures,
)
from dlcv_diffusion.digits.sampling import REPORT, SamplingConfig, hw2_labels, sample_digits, write_hw2_digits
from dlcv_diffusion.figures import read_facts
from dlcv_diffusion.images.pixels import to_uint8
from dlcv_diffusion.models.loading import own_denoiser

FEW = SamplingConfig(steps=3)
LEAK = {"classes": 10, "mean": [[0.6] * 3, [-0.6] * 3], "covariance": [(0.01 * np.eye(3)).tolist()] * 2}


@pytest.fixture
def model():
    """Random weights, T = 20: what it draws is no digit, and depends on the label as on the noise."""
    network = with_random_weights(small_unet(timesteps=20))
    with torch.no_grad():
        network.label_emb.weight.mul_(50)
    return own_denoiser(network, {})


def distance(images, others):
    return (images.int() - others.int()).abs().float()


# --- settings ---------------------------------------------------------------------------------------------------------


def test_the_report_s_settings():
    assert SamplingConfig(sampler="ddpm", steps=None, w=2.0, interval=None, signal_leak=False) == REPORT
    assert FRAMES == (349, 140, 84, 42, 14, 0)
    assert REPORT.steps is None and SamplingConfig("ddim").steps == SamplingConfig().steps == 15
    assert REPORT.spacing == "trailing" and not REPORT.fast


def test_facts_say_whatever_is_not_usual(model):
    facts = {"seeds": [1, 2], "sampler": "ddpm", "steps": "all", "w": 2.0, "weights": "UNet"}
    assert REPORT.facts(model, [1, 2]) == facts
    other = SamplingConfig("ddim", None, 1.5, (0.2, 3.0), spacing="uniform").facts(model, range(1))
    assert other == {
        "seeds": [0], "sampler": "ddim", "steps": 15, "w": 1.5, "guided where σ in": [0.2, 3.0], "spacing": "uniform",
        "weights": "UNet",
    }  # fmt: skip


@pytest.mark.parametrize(
    "setting, reason",
    [
        ({"sampler": "euler"}, "sampler is 'euler'; it should be 'dpm_solver', 'ddim' or 'ddpm'"),
        ({"steps": 0}, "steps is 0; it should be greater than or equal to 1"),
        ({"steps": -3}, "steps is -3"),
        ({"w": float("nan")}, "w is nan; it should be"),
        ({"w": float("inf")}, "w is inf"),
        ({"w": 1e39}, r"w is 1e\+39; it should be less than or equal to 1000"),
        ({"interval": (-1.0, 2.0)}, "interval.0 is -1.0"),
        ({"spacing": "linspace"}, "spacing is 'linspace'"),
        ({"w": "two"}, "w is 'two'"),
    ],
)
def test_settings_that_are_none_are_told(setting, reason):
    with pytest.raises(UserError, match=reason):
        SamplingConfig(**setting)


@pytest.mark.parametrize("setting", [{"steps": 21}, {"interval": (5.0, 6.0)}, {"interval": (3.0, 0.2)}])
def test_settings_that_the_schedule_has_not_are_told(model, setting):
    with pytest.raises(UserError):
        sample_digits(model, [3], [0], SamplingConfig(**setting))


def test_what_is_saved_with_a_network_is_what_its_denoiser_knows():
    network = small_unet(timesteps=20)
    plain = own_denoiser(network, {})
    assert (plain.schedule, plain.prediction, plain.shape, plain.null) == (
        NoiseSchedule.linear(20), "eps", (3, 28, 28), 20,
    )  # fmt: skip
    facts = {"schedule": NoiseSchedule.cosine(20).config, "shape": [3, 8, 8], "train": {"prediction": "v"}}
    known = own_denoiser(network, facts)
    assert (known.schedule, known.prediction, known.shape) == (NoiseSchedule.cosine(20), "v", (3, 8, 8))
    assert own_denoiser(small_context_unet(in_channels=1, height=12, width=8), {}).shape == (1, 12, 8)


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SamplingConfig("ddpm", 7, w=1.0), SamplingConfig("dpm_solver", 5, w=2.0)])
def test_it_is_the_sampler_on_seeded_noise(model, config, monkeypatch):
    monkeypatch.setattr("dlcv_diffusion.device.has_fast_bf16", lambda device: False)
    labels, seeds, schedule = [3, 13, 20], [5, 6, 7], NoiseSchedule.linear(20)
    x_T, denoise = seeded_noise((3, 3, 28, 28), seeds), guided(model, labels, config.w)
    steps = (
        ddpm(denoise, x_T, schedule, steps=7, seeds=seeds)
        if config.sampler == "ddpm"
        else dpm_solver(denoise, x_T, schedule, steps=5)
    )
    expected = to_uint8(last(steps).x)
    assert distance(sample_digits(model, labels, seeds, config), expected).max() <= 1


@pytest.mark.parametrize("config", [SamplingConfig("ddpm", 4), FEW])
@pytest.mark.parametrize("leak", [None, LEAK])
def test_an_image_depends_on_its_label_and_seed_alone(model, config, leak):
    model.facts = {"signal_leak": leak} if leak else {}
    labels, seeds = list(range(20)), [7 * label for label in range(20)]
    images = sample_digits(model, labels, seeds, config)
    assert images.shape == (20, 3, 28, 28) and images.dtype == torch.uint8
    for batch_size in (1, 7, 64):
        again = sample_digits(model, labels, seeds, config, batch_size=batch_size)
        assert distance(again, images).max() <= 2 and distance(again, images).mean() < 0.01
    backwards = sample_digits(model, labels[::-1], seeds[::-1], config)
    assert distance(backwards.flip(0), images).max() <= 2
    assert torch.equal(sample_digits(model, torch.tensor(labels), seeds, config), images)
    other_seeds = sample_digits(model, labels, range(100, 120), config)
    assert (distance(other_seeds, images).mean((1, 2, 3)) > 1).all()
    assert distance(images[:1], sample_digits(model, [10], seeds[:1], config)).max() > 5


def test_the_signal_leak_colours_the_halves(model):
    model.facts = {"signal_leak": LEAK}
    schedule = NoiseSchedule.linear(20)
    x_T = FEW.start(model, [3, 13], [0, 0])
    plain = SamplingConfig(signal_leak=False).start(model, [3, 13], [0, 0])
    assert torch.equal(plain, seeded_noise((2, 3, 28, 28), [0, 0]))
    trace = x_T - schedule.add_noise(torch.zeros_like(plain), plain, 19)
    colours = trace.mean((2, 3)) / schedule.alphas_bar[-1].sqrt()
    assert (colours[0] > 0.2).all() and (colours[1] < -0.2).all()


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_a_model_of_v_or_x0_is_sampled_as_one_of_eps(model, prediction, monkeypatch):
    """The same network, once asked for ε through `to_eps` by hand, and once known by the facts it was saved with."""
    monkeypatch.setattr("dlcv_diffusion.device.has_fast_bf16", lambda device: False)
    labels, seeds, schedule = [3, 13], [5, 6], NoiseSchedule.linear(20)

    def eps_of(x, t):
        c, u = (to_eps(model.model(x, t, torch.tensor(of)), x, t, schedule, prediction) for of in (labels, [20, 20]))
        return 3 * c - 2 * u

    with torch.no_grad():
        by_hand = to_uint8(last(dpm_solver(eps_of, seeded_noise((2, 3, 28, 28), seeds), schedule, steps=3)).x)
    taken_for_eps = sample_digits(model, labels, seeds, FEW)
    model.prediction = prediction
    known = sample_digits(model.train(), labels, seeds, FEW)
    assert distance(known, by_hand).max() <= 1 and distance(known, taken_for_eps).max() > 5
    assert model.training


def test_labels_and_seeds_that_do_not_go_together_are_told(model):
    with pytest.raises(UserError, match="2 labels for 3 seeds"):
        sample_digits(model, [1, 2], [1, 2, 3], FEW)
    with pytest.raises(UserError, match="seed -1 is out of range"):
        sample_digits(model, [1], [-1], FEW)
    model.model.forward = None  # out of range is found out before the first step
    with pytest.raises(UserError, match="label 21 is out of range; labels run from 0 to 19"):
        sample_digits(model, [0] * 300 + [21], range(301), FEW)
    with pytest.raises(UserError, match="takes no condition"):
        sample_digits(own_denoiser(small_unet(num_classes=0), {"shape": (3, 28, 28)}), [1], [1], FEW)


@pytest.mark.parametrize("network", [small_unet, small_context_unet])
def test_mode_gradients_and_generators_are_left_alone(network, capsys):
    size = {"height": 28, "width": 28} if network is small_context_unet else {}
    model = own_denoiser(with_random_weights(network(timesteps=20, **size)), {}).train()
    layout = [parameter.stride() for parameter in model.parameters()]
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    sample_digits(model, [1, 2], [0, 1], FEW, progress=True)
    assert [parameter.stride() for parameter in model.parameters()] == layout
    assert model.training and all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert capsys.readouterr() == ("", "")  # no bar where there is no terminal


def test_the_bar_counts_images(model, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    sample_digits(model, [1] * 5, range(5), FEW, batch_size=2, progress=True)
    assert "5/5" in capsys.readouterr().err
    sample_digits(model, [1] * 5, range(5), FEW, batch_size=2)
    assert capsys.readouterr().err == ""


def test_rounding_is_to_the_nearest_level():
    levels = torch.arange(256, dtype=torch.uint8)
    x = levels.float() / 127.5 - 1
    assert torch.equal(to_uint8(x), levels) and torch.equal(to_uint8(x + 0.0039), levels)
    assert to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


# --- the course's folder ----------------------------------------------------------------------------------------------


def read(path):
    with Image.open(path) as image:
        assert image.size == (28, 28) and image.mode == "RGB"
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def test_the_course_s_folder(model, tmp_path):
    assert write_hw2_digits(tmp_path / "out", model, FEW, count=2, seed=100) == tmp_path / "out"
    files = [f"{digit}_{k:03d}.png" for digit in range(10) for k in (1, 2)]
    assert names(tmp_path / "out" / "mnistm") == names(tmp_path / "out" / "svhn") == files
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mnistm", "svhn"]
    assert hw2_labels(2)[:5] == [0, 0, 1, 1, 2] and len(hw2_labels()) == 1000
    for half, name, label, k in (("mnistm", "0_001", 0, 0), ("mnistm", "7_002", 7, 1), ("svhn", "9_001", 19, 0)):
        expected = sample_digits(model, [label], [100 + 20 * k + label], FEW)[0]
        assert distance(read(tmp_path / "out" / half / f"{name}.png"), expected).max() <= 2


def test_the_first_images_do_not_depend_on_how_many_follow(model, tmp_path):
    for count in (1, 3):
        write_hw2_digits(tmp_path / str(count), model, FEW, count=count)
    for path in (tmp_path / "1").rglob("*.png"):
        assert distance(read(path), read(tmp_path / "3" / path.relative_to(tmp_path / "1"))).max() <= 2


def test_other_files_stay_and_old_ones_are_replaced(model, tmp_path):
    (tmp_path / "svhn").mkdir()
    (tmp_path / "svhn" / "notes.txt").write_text("mine")
    (tmp_path / "svhn" / "0_001.png").write_text("old")
    write_hw2_digits(tmp_path, model, FEW, count=1)
    assert (tmp_path / "svhn" / "notes.txt").read_text() == "mine"
    read(tmp_path / "svhn" / "0_001.png")


@pytest.mark.parametrize("in_the_way", ["out", "out/svhn"])
def test_what_is_in_the_way_is_told_before_the_sampling(model, tmp_path, in_the_way):
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("a file")
    model.model.forward = None
    with pytest.raises(UserError, match="cannot write"):
        write_hw2_digits(tmp_path / "out", model, FEW, count=1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / in_the_way]


@pytest.mark.parametrize("count", [0, 1000, 10**9])
def test_more_images_than_their_names_can_count_are_told(model, tmp_path, count):
    with pytest.raises(UserError, match=f"cannot write {count} images of each class; .* 1 to 999"):
        write_hw2_digits(tmp_path / "out", model, FEW, count=count)
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_nothing_behind(model, tmp_path):
    with full_disk(500), pytest.raises(UserError, match="cannot write .*free space"):
        write_hw2_digits(tmp_path / "new" / "out", model, FEW, count=1)
    with pytest.raises(UserError, match="draw images .3, 8, 8., the course asks for .3, 28, 28"):
        write_hw2_digits(tmp_path / "new" / "out", own_denoiser(small_context_unet(), {}), FEW, count=1)
    with pytest.raises(UserError, match="out of range; labels run from 0 to 9"):
        write_hw2_digits(tmp_path / "new" / "out", own_denoiser(small_unet(num_classes=10, timesteps=20), {}), FEW)
    assert names(tmp_path) == []


# --- the report's figures ---------------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """What the figures are given, by the name of the function that draws them."""
    given = {}
    for name in ("digit_grid", "image_grid", "reverse_strip"):

        def draw(shown, *arguments, name=name, **options):
            given[name] = (shown, *arguments, options)

        monkeypatch.setattr(f"dlcv_diffusion.digits.figures.{name}", draw)
    return given


def test_a_grid_has_a_digit_a_row_and_a_noise_a_column(model, drawn):
    model.name, model.facts = "mine", {"second_half": "SVHN", "signal_leak": LEAK}
    grid_figure(model, 1, FEW, seeds=[4, 5, 6])
    images, options = drawn["digit_grid"]
    assert images.shape == (30, 3, 28, 28) and options["noises"] == [4, 5, 6] and options["title"] == "SVHN"
    assert options["facts"] == {
        "seeds": [4, 5, 6], "sampler": "dpm_solver", "steps": 3, "w": 2.0, "signal leak": True, "weights": "mine"
    }  # fmt: skip
    row, column = 7, 2
    expected = sample_digits(model, [10 + row], [4 + column], FEW)
    assert distance(images[3 * row + column], expected[0]).max() <= 2
    with pytest.raises(UserError, match="label 21 is out of range"):
        grid_figure(model, 2, FEW, seeds=[0])


def test_the_overview_goes_from_noise_to_all_classes(model, drawn):
    config = SamplingConfig("ddim", 5, signal_leak=False)
    overview_figure(model, config, seeds=range(20), rows=4)
    shown, names_of_rows, names_of_columns, title, options = drawn["image_grid"]
    assert title == "MNIST-M 0–9, then second half 0–9"
    assert shown.shape == (4, 20, 3, 28, 28) and torch.equal(shown[0], seeded_noise((20, 3, 28, 28), range(20)))
    assert (
        names_of_rows == ["noise", "$x_0$ at t = 19", "$x_0$ at t = 11", "result"]
        and names_of_columns == [*"0123456789"] * 2
    )
    finished = sample_digits(model, range(20), range(20), config)
    assert distance(to_uint8(shown[-1]), finished).max() <= 2
    assert options["facts"]["seeds"] == list(range(20))


def test_halves_have_the_names_of_their_data(model):
    assert [half_name(model, half) for half in (0, 1)] == ["MNIST-M", "second half"]  # weights that do not say
    model.facts = {"second_half": "SVHN"}
    assert half_name(model, 1) == "SVHN"


def test_a_strip_shows_what_the_network_was_given(model, drawn):
    config = SamplingConfig("ddpm", None, w=1.0, signal_leak=False)
    strip_figure(model, [4, 14], config, seeds=[1, 2], at=[19, 18, 10, 0])
    shown, options = drawn["reverse_strip"]
    assert [step.t for step in shown] == [19, 18, 10, 0]
    steps = {step.t: step for step in config.run(model, [4, 14], [1, 2])}
    assert torch.equal(shown[0].x, seeded_noise((2, 3, 28, 28), [1, 2]))  # pure noise
    torch.testing.assert_close(shown[1].x, steps[19].x, atol=1e-4, rtol=1e-4)  # what the step at 19 left
    torch.testing.assert_close(shown[2].x, steps[11].x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shown[3].x, steps[0].x, atol=1e-4, rtol=1e-4)  # the finished image
    for step in shown:
        torch.testing.assert_close(step.x0, steps[step.t].x0, atol=1e-4, rtol=1e-4)
    assert options["names"] == ["MNIST-M, 4", "second half, 4"] and list(options["images"]) == [0, 1]
    assert options["facts"] == {"seeds": [1, 2], "sampler": "ddpm", "steps": "all", "w": 1.0, "weights": "UNet"}


def test_a_strip_of_few_steps_takes_the_nearest(model, drawn):
    strip_figure(model, [4], SamplingConfig("ddim", 4), seeds=[1], at=[19, 10, 0])
    shown, _ = drawn["reverse_strip"]
    assert [step.t for step in shown] == [19, 9, 4]


def test_all_figures_are_written_with_their_facts(model, tmp_path):
    paths = write_digit_figures(tmp_path / "figures", model, FEW, seed=3)
    written = [f"digits_{name}.png" for name in ("mnistm_grid", "overview", "reverse_strip", "second_half_grid")]
    assert names(tmp_path / "figures") == sorted(path.name for path in paths) == written
    facts = read_facts(paths[0])
    assert (facts["seeds"], facts["steps"], facts["sampler"]) == (list(range(3, 13)), 3, "dpm_solver")
    facts = read_facts(paths[3])
    assert (facts["seeds"], facts["steps"], facts["sampler"], facts["w"]) == ([3, 13], "all", "ddpm", 2.0)


def test_figures_that_cannot_be_written_are_told_before_they_are_drawn(model, tmp_path):
    (tmp_path / "file").write_text("")
    model.model.forward = None
    with pytest.raises(UserError, match="cannot write"):
        write_digit_figures(tmp_path / "file", model, FEW)
    assert names(tmp_path) == ["file"]


def test_a_grid_of_svhn_is_called_so(model, tmp_path):
    model.facts = {"second_half": "SVHN"}
    names_of = [path.name for path in write_digit_figures(tmp_path, model, FEW)]
    assert "digits_svhn_grid.png" in names_of and "digits_street_grid.png" not in names_of


def test_images_that_are_not_finite_replace_nothing(model, tmp_path):
    write_hw2_digits(tmp_path, model, FEW, count=1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match="not finite"):
        write_hw2_digits(tmp_path, model, FEW, count=2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before
