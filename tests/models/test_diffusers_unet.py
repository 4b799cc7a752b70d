"""diffusers' networks: the same ε and the same pictures as diffusers makes of them, from any of their folders."""

import json
import shutil

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, EDMEulerScheduler
from small_faces import SIZE, small_unet2d
from small_runs import one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import NoiseSchedule, UserError, ddim, last, seeded_noise
from dlcv_diffusion.models.diffusers_unet import diffusers_unet, schedule_from

PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
EDM = {**EDMEulerScheduler().config, "_class_name": "EDMEulerScheduler"}  # as it is saved
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")


@pytest.fixture(scope="module")
def unet():
    return small_unet2d()


@pytest.fixture(scope="module")
def bare(unet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    unet.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(bare, tmp_path):
    """A copy of the bare folder, to be spoilt."""
    return shutil.copytree(bare, tmp_path / "copy")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def ours_and_theirs(denoise, unet, scheduler, t=700):
    """ε of both, where theirs comes from diffusers' own x̂0."""
    x = seeded_noise((2, 3, SIZE, SIZE), [0, 1])
    times = torch.full((2,), t)
    with torch.no_grad():
        x0 = scheduler.step(unet(x, times).sample, t, x).pred_original_sample
        abar = scheduler.alphas_cumprod[t]
        return denoise(x, times), (x - abar.sqrt() * x0) / (1 - abar).sqrt()


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("betas", BETAS)
def test_a_pipeline_s_folder(unet, tmp_path, betas, prediction):
    options = {"beta_schedule": betas, "prediction_type": prediction, "clip_sample": False}
    DDPMPipeline(unet, DDPMScheduler(**options)).save_pretrained(tmp_path / "celeba")
    denoise = diffusers_unet(tmp_path / "celeba")
    assert (denoise.shape, denoise.name) == ((3, SIZE, SIZE), "celeba")
    assert denoise.prediction == PREDICTIONS[prediction]
    torch.testing.assert_close(*ours_and_theirs(denoise, unet, DDPMScheduler(**options)), rtol=1e-4, atol=1e-5)

    seeds = [3, 4]
    pipeline = DDIMPipeline(unet, DDIMScheduler(**options))
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    theirs = pipeline(2, generators, num_inference_steps=10, output_type="pt").images
    x = last(ddim(denoise, seeded_noise((2, 3, SIZE, SIZE), seeds), steps=10, spacing="uniform")).x
    torch.testing.assert_close((x / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-4)


def test_clipping_is_the_caller_s_choice(unet, tmp_path):
    """diffusers' schedulers clip by themselves; the docstring says what gives the same pictures here."""
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    denoise = diffusers_unet(tmp_path)
    pipeline = DDIMPipeline.from_pretrained(tmp_path)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.clip_sample
    theirs = pipeline(1, [torch.Generator().manual_seed(3)], num_inference_steps=10, output_type="pt").images
    x_T = seeded_noise((1, 3, SIZE, SIZE), [3])
    ours, plain = (
        (last(ddim(denoise, x_T, steps=10, spacing="uniform", clip_x0=clip)).x / 2 + 0.5).clamp(0, 1)
        for clip in (1.0, None)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert (plain - theirs).abs().max() > 0.01  # so that the choice makes a difference here


@pytest.mark.parametrize("betas", BETAS)
def test_the_betas_are_theirs(betas):
    """Theirs are computed in float32, ours in float64."""
    scheduler = DDPMScheduler(num_train_timesteps=800, beta_start=2e-4, beta_end=3e-2, beta_schedule=betas)
    schedule, _ = schedule_from(scheduler.config)
    torch.testing.assert_close(schedule.betas.float(), scheduler.betas, rtol=1e-6, atol=0)
    torch.testing.assert_close(schedule.alphas_bar.float(), scheduler.alphas_cumprod, rtol=2e-5, atol=0)
    cosine = schedule_from({"beta_schedule": "squaredcos_cap_v2"})[0]
    assert torch.equal(cosine.betas.float(), DDPMScheduler(beta_schedule="squaredcos_cap_v2").betas)


def test_trained_betas_are_taken_as_they_are():
    betas = [0.1, 0.2, 0.3]
    scheduler = DDPMScheduler(num_train_timesteps=3, trained_betas=betas)
    assert schedule_from(scheduler.config) == (NoiseSchedule(betas), "eps")


def test_a_folder_of_the_network_alone(unet, bare, copied):
    denoise = diffusers_unet(bare)
    assert denoise.schedule == NoiseSchedule.linear(1000) and denoise.prediction == "eps"
    torch.testing.assert_close(*ours_and_theirs(denoise, unet, DDPMScheduler(clip_sample=False)), rtol=1e-4, atol=1e-5)

    DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="sample").save_pretrained(copied)
    denoise = diffusers_unet(copied)
    assert denoise.schedule == NoiseSchedule.cosine(1000) and denoise.prediction == "x0"


def test_all_files_beside_each_other(bare, copied):
    """As the hub's google/ddpm-celebahq-256 lies."""
    DDPMScheduler(num_train_timesteps=500).save_pretrained(copied)
    index = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"]}
    (copied / "model_index.json").write_text(json.dumps({**index, "unet": ["diffusers", "UNet2DModel"]}))
    assert diffusers_unet(copied).schedule == NoiseSchedule.linear(500)


def test_a_bin_file_is_read_where_there_is_no_other(unet, tmp_path, caplog):
    unet.save_pretrained(tmp_path, safe_serialization=False)
    x, t = seeded_noise((1, 3, SIZE, SIZE), [0]), torch.tensor([10])
    with torch.no_grad():
        torch.testing.assert_close(diffusers_unet(tmp_path)(x, t), unet(x, t).sample, rtol=1e-4, atol=1e-5)
    assert not caplog.records


class Code:
    def __reduce__(self):
        return (print, ("run",))


def test_code_in_a_bin_file_does_not_run(copied, capsys):
    (copied / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(Code(), copied / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="no weights that can be read"):
        diffusers_unet(copied)
    assert capsys.readouterr().out == ""


def test_variances_are_left_out(tmp_path):
    unet = small_unet2d(out_channels=6)
    unet.save_pretrained(tmp_path)
    x, t = seeded_noise((1, 3, SIZE, SIZE), [0]), torch.tensor([10])
    with torch.no_grad():
        torch.testing.assert_close(diffusers_unet(tmp_path)(x, t), unet(x, t).sample[:, :3], rtol=1e-4, atol=1e-5)


def test_sides_may_differ_and_half_precision_becomes_single(tmp_path):
    small_unet2d(sample_size=(SIZE, 2 * SIZE), in_channels=1, out_channels=1).half().save_pretrained(tmp_path)
    denoise = diffusers_unet(tmp_path)
    assert denoise.shape == (1, SIZE, 2 * SIZE)
    assert {parameter.dtype for parameter in denoise.model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "config, said",
    [
        ({"_class_name": "UNet2DConditionModel"}, "holds a UNet2DConditionModel; give one with a UNet2DModel"),
        ({"block_out_channels": [16, 16]}, "has no weights that can be read|not those of its config"),
        ({"num_class_embeds": 10}, "not those of its config|draws by label"),
        ({"out_channels": 5}, "has no weights that can be read|takes 3 channels and gives 5"),
        ({"layers_per_block": 2}, "not those of its config|has no weights that can be read"),
    ],
)
def test_another_network_is_one_sentence(copied, config, said):
    edit(copied / "config.json", **config)
    with pytest.raises(UserError, match=said) as error:
        diffusers_unet(copied)
    assert "\n" not in str(error.value)


ABSURD = [
    {"layers_per_block": 10_000_000},
    {"layers_per_block": -1},
    {"layers_per_block": "two"},
    {"block_out_channels": [10**9, 10**9]},
    {"block_out_channels": [65_536, 65_536]},
    {"block_out_channels": 8},
    {"block_out_channels": [8] * 100_000},
    {"in_channels": 10**9, "out_channels": 10**9},
    {"in_channels": 0, "out_channels": 0},
    {"in_channels": [3]},
    {"sample_size": 10**6},
    {"sample_size": 0},
    {"sample_size": [16]},
    {"sample_size": "16"},
    {"down_block_types": ["NoBlock", "AttnDownBlock2D"]},
    {"down_block_types": 5},
    {"norm_num_groups": 0},
    {"norm_num_groups": 3},
    {"attention_head_dim": 0},
    {"act_fn": "shout"},
    {"time_embedding_type": "fourier"},
    {"time_embedding_type": ["positional"]},
    {"class_embed_type": "timestep"},
    {"_class_name": ["UNet2DModel"]},
    {"_class_name": None},
]


@pytest.mark.parametrize("number", range(len(ABSURD)))
def test_an_absurd_config_is_one_sentence_at_once(copied, number, capfd, caplog):
    edit(copied / "config.json", **ABSURD[number])
    with pytest.raises(UserError, match="copy") as error:
        diffusers_unet(copied)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert not caplog.records and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("text", ["", "[]", "5", "null", "{", '{"a": NaN', "[" * 100_000 + "]" * 100_000, "\ufeff{}"])
@pytest.mark.parametrize("name", ["config.json", "scheduler_config.json", "model_index.json"])
def test_configs_that_are_no_json_object_are_one_sentence(copied, name, text):
    (copied / name).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=name) as error:
        diffusers_unet(copied)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_what_libraries_warn_of_is_not_printed(unet, tmp_path, capfd, caplog, recwarn):
    unet.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", wings=2)
    diffusers_unet(tmp_path)
    assert not caplog.records and not recwarn.list and capfd.readouterr() == ("", "")


def test_images_it_cannot_take_are_one_sentence(bare):
    with pytest.raises(UserError, match="UNet2DModel fails when it is called: RuntimeError.*give it images"):
        diffusers_unet(bare)(torch.zeros(1, 3, 5, 5), torch.tensor([0]))


@pytest.mark.parametrize(
    "options, said",
    [({"num_class_embeds": 10}, "draws by label"), ({"out_channels": 5}, "takes 3 channels and gives 5")],
)
def test_a_network_for_something_else_is_one_sentence(tmp_path, options, said):
    small_unet2d(**options).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=said):
        diffusers_unet(tmp_path)


def test_latents_are_refused(copied):
    index = {"_class_name": "LDMPipeline", "vqvae": ["diffusers", "VQModel"], "unet": ["diffusers", "UNet2DModel"]}
    (copied / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="needs its 'vqvae'"):
        diffusers_unet(copied)


@pytest.mark.parametrize(
    "config, said",
    [
        (
            {**EDMEulerScheduler().config, "_class_name": "EDMEulerScheduler"},
            "the EDMEulerScheduler of 'faces' has no betas",
        ),
        ({"beta_schedule": "sigmoid"}, "unknown beta_schedule 'sigmoid'; known are linear"),
        ({"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'; known are epsilon"),
        ({"rescale_betas_zero_snr": True}, "rescaled to ᾱ_T = 0"),
        ({"trained_betas": [0.1, 1.5]}, "makes no schedule"),
        ({"beta_end": "much"}, "makes no schedule"),
        ({"num_train_timesteps": 0}, "makes no schedule"),
        ({"num_train_timesteps": 10**12}, "makes no schedule"),
        ({"num_train_timesteps": [5]}, "makes no schedule"),
        ({"num_train_timesteps": None}, "makes no schedule"),
        ({"beta_start": -1}, "makes no schedule"),
        ({"beta_schedule": "scaled_linear", "beta_start": -1}, "makes no schedule"),
        ({"beta_schedule": ["linear"]}, "unknown beta_schedule"),
        ({"prediction_type": ["sample"]}, "predicts"),
        ({"prediction_type": None}, "predicts"),
        ({"trained_betas": "0.1"}, "makes no schedule"),
        ({"trained_betas": []}, "makes no schedule"),
    ],
)
def test_a_schedule_that_is_none_of_ours_is_one_sentence(config, said):
    with pytest.raises(UserError, match=said):
        schedule_from(config, "faces")


def spoil_weights(folder):
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(b"short")


def spoil_config(folder):
    (folder / "config.json").write_text("{")


def drop_weights(folder):
    (folder / "diffusion_pytorch_model.safetensors").unlink()


def drop_config(folder):
    (folder / "config.json").unlink()


def drop_scheduler(folder):
    index = {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    "spoil, said",
    [
        (spoil_weights, "has no weights that can be read"),
        (drop_weights, "has no weights that can be read"),
        (spoil_config, "config.json' cannot be read as JSON"),
        (drop_config, "holds no network of diffusers"),
        (drop_scheduler, "lacks its scheduler's config"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_sentence(copied, spoil, said):
    spoil(copied)
    with pytest.raises(UserError, match=said) as error:
        diffusers_unet(copied)
    assert "\n" not in str(error.value)


def test_a_name_without_a_network_asks_for_a_folder():
    with pytest.raises(UserError, match="no folder 'google/ddpm-celebahq-256'.*give the folder of one that was"):
        diffusers_unet("google/ddpm-celebahq-256")
