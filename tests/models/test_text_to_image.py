"""Text-to-image models: our samplers draw what diffusers' own pipeline draws, from every kind of source."""

import json
import shutil

import numpy as np
import pytest
import torch
from single_files import single_file
from small_pipelines import sd1, small_text_encoder, small_unet_2d, write_sd1  # noqa: F401 – a fixture
from small_runs import generator, one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import UserError, ddim, dpm_solver, guidance_weight, guided, last, seeded_noise
from dlcv_diffusion.models.text_to_image import TextToImage, from_pipeline, load_text_to_image
from dlcv_diffusion.models.text_to_image.saving import scheduler_config
from dlcv_diffusion.schedule import NoiseSchedule

# steps that divide 1,000: else the DDIMScheduler steps to a timestep that it does not visit
PROMPTS = ["a photo of a fox.", "an owl in the style of a blueprint"]


def pipeline_of(folder, scheduler, **settings):
    """diffusers' own pipeline of a folder, with a scheduler of its own."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, feature_extractor=None)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline, noise, steps, scale):
    options = {"latents": noise, "guidance_scale": scale, "num_inference_steps": steps}
    latents = pipeline(PROMPTS, output_type="latent", **options).images
    return latents, pipeline(PROMPTS, output_type="np", **options).images


def check_alike(sd, ours, wanted):
    latents, images = wanted
    assert (ours - latents).abs().max() <= 1e-3 * max(1, latents.abs().max())
    pixels = torch.from_numpy(np.round(images * 255)).permute(0, 3, 1, 2)
    assert (sd.decode(ours).float() - pixels).abs().max() <= 1
    assert pixels.std() > 5, "a grey picture would prove nothing"


def test_what_it_knows_of_itself(sd1):  # noqa: F811
    sd = load_text_to_image(sd1, "cpu")
    assert isinstance(sd, TextToImage) and sd.shape == (4, 8, 8) and sd.prediction == "eps" and not sd.training
    assert sd.schedule == NoiseSchedule.scaled_linear() and sd.name == sd1.name
    assert sd.null.shape == (77, 32) and torch.equal(sd.null, sd.encode_prompts([""])[0])
    assert all(weight.dtype == torch.float32 for weight in sd.parameters())


@pytest.mark.parametrize(("steps", "scale"), [(4, 7.5), (5, 1.0)])
def test_ddim_is_that_of_their_pipeline(sd1, steps, scale):  # noqa: F811
    from diffusers import DDIMScheduler

    sd, noise = load_text_to_image(sd1, "cpu"), seeded_noise((2, 4, 8, 8), range(2))
    denoise = guided(sd, sd.encode_prompts(PROMPTS), w=guidance_weight(scale))
    trailing = pipeline_of(sd1, DDIMScheduler, timestep_spacing="trailing", set_alpha_to_one=True)
    check_alike(sd, last(ddim(denoise, noise, steps=steps)).x, theirs(trailing, noise, steps, scale))
    as_it_came = pipeline_of(sd1, DDIMScheduler)  # leading, one off, and ᾱ_0 at the end
    timesteps = sd.schedule.timesteps(steps, "uniform", offset=1)
    found = last(ddim(denoise, noise, steps=timesteps, final_alpha="first")).x
    check_alike(sd, found, theirs(as_it_came, noise, steps, scale))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_dpm_solver_is_that_of_their_pipeline(tmp_path, prediction):
    from diffusers import DPMSolverMultistepScheduler

    folder = write_sd1(tmp_path, prediction=prediction, scheduler="DDIMScheduler")
    sd, noise = load_text_to_image(folder, "cpu"), seeded_noise((2, 4, 8, 8), range(2))
    assert sd.prediction == {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}[prediction]
    pipeline = pipeline_of(folder, DPMSolverMultistepScheduler, timestep_spacing="trailing", final_sigmas_type="zero")
    denoise = guided(sd, sd.encode_prompts(PROMPTS), w=guidance_weight(3.0))
    check_alike(sd, last(dpm_solver(denoise, noise, steps=6)).x, theirs(pipeline, noise, 6, 3.0))


def test_prompts_and_pictures(sd1):  # noqa: F811
    sd = load_text_to_image(sd1, "cpu")
    pipeline = pipeline_of(sd1, __import__("diffusers").DDIMScheduler)
    wanted = pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    assert torch.allclose(sd.encode_prompts(PROMPTS), wanted[0], atol=1e-5)
    assert torch.allclose(sd.null, wanted[1][0], atol=1e-5)
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=generator(), dtype=torch.uint8)
    z = sd.encode(images)
    with torch.no_grad():
        wanted = pipeline.vae.encode(images / 127.5 - 1).latent_dist
    assert z.shape == (3, 4, 8, 8) and torch.allclose(z, 0.18215 * wanted.mean, atol=1e-5)
    spread = (sd.encode(images, generator(5)) - z) / 0.18215 / wanted.std
    assert torch.allclose(spread, torch.randn(z.shape, generator=generator(5)), atol=1e-3)
    for prompts in ("a fox", [], [3]):
        with pytest.raises(UserError, match="prompts are a list of texts"):
            sd.encode_prompts(prompts)
    with pytest.raises(UserError, match=r"has \d+ tokens, and .* reads 77; shorten it"):
        sd.encode_prompts(["fox " * 90])


def test_without_a_condition_it_draws_as_the_empty_prompt(sd1):  # noqa: F811
    sd, z, t = load_text_to_image(sd1, "cpu"), seeded_noise((2, 4, 8, 8), range(2)), torch.tensor([900, 30])
    assert torch.equal(sd(z, t), sd(z, t, sd.encode_prompts(["", ""])))
    fast = load_text_to_image(sd1, "cpu", fast=True)
    assert (fast(z, t) - sd(z, t)).abs().max() < 0.1 * sd(z, t).abs().max()


def test_a_pipeline_at_hand_shares_its_networks(sd1):  # noqa: F811
    pipeline = pipeline_of(sd1, __import__("diffusers").EulerDiscreteScheduler)
    pipeline.unet.train()
    sd = from_pipeline(pipeline, "mine")
    assert pipeline.unet.training and not pipeline.vae.training
    assert sd.unet is pipeline.unet and sd.autoencoder is pipeline.vae and sd.name == "mine"


def test_the_schedulers_config_is_read_back():
    from dlcv_diffusion.models.diffusers_unet import schedule_from

    for schedule in (NoiseSchedule.linear(500), NoiseSchedule.scaled_linear(), NoiseSchedule.cosine(100)):
        for prediction in ("eps", "v", "x0"):
            assert schedule_from(scheduler_config(schedule, prediction)) == (schedule, prediction)


# --- sources that do not fit ------------------------------------------------------------------------------------------


def test_what_is_no_model_is_said_at_once(sd1, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, said in {
        "nobody/has-this": "no folder, nor in the cache of the hub, and there is no network; download",
        "nothing": "no text-to-image model 'nothing' here",
        str(tmp_path): "holds no model_index.json",
        str(tmp_path / "none.ckpt"): "no weights at",
    }.items():
        with pytest.raises(UserError, match=said):
            load_text_to_image(name, "cpu")
    with pytest.raises(UserError, match="config goes with a single file"):
        load_text_to_image(sd1, "cpu", config=sd1)


def changed(folder, to, file, **changes):
    shutil.copytree(folder, to)
    path = to / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return to


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "flow"}, "flow"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "mine"}, "mine"),
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "holds a StableDiffusionXLPipeline"),
        ("unet/config.json", {"cross_attention_dim": 48}, "cannot be read"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(sd1, tmp_path, file, changes, said):  # noqa: F811
    with pytest.raises(UserError, match=said) as caught:
        load_text_to_image(changed(sd1, tmp_path / "changed", file, **changes), "cpu")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_parts_of_other_models(tmp_path):
    for name, part, said in (
        ("unet", small_unet_2d(width=16), "attends to embeddings of 16 numbers"),
        ("unet", small_unet_2d(latents=9), "takes 9 channels and gives 9, and its latents have 4"),
        ("text_encoder", small_text_encoder(length=20), "gives up to 77 tokens, and its text encoder reads 20"),
    ):
        folder = write_sd1(tmp_path / said[:9].strip(), **{name: part})
        with pytest.raises(UserError, match=said):
            load_text_to_image(folder, "cpu")


# --- the original single file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_single_file_is_the_same_model(sd1, tmp_path, suffix):  # noqa: F811
    from safetensors.torch import save_file

    sd, path = load_text_to_image(sd1, "cpu"), tmp_path / f"small{suffix}"
    state = single_file(sd.unet, sd.autoencoder, sd.text_encoder)
    if suffix == ".ckpt":
        torch.save({"state_dict": state, "global_step": 470_000}, path)
    else:
        save_file(state, path)
    found = load_text_to_image(path, "cpu", config=sd1)
    assert found.name == "small" and found.schedule == sd.schedule and found.prediction == "eps"
    for part in ("unet", "autoencoder", "text_encoder"):
        wanted = getattr(sd, part).state_dict()
        assert all(torch.equal(value, wanted[name]) for name, value in getattr(found, part).state_dict().items()), part
    z, t = seeded_noise((1, 4, 8, 8), [0]), torch.tensor([500])
    ours, wanted = (each(z, t, each.encode_prompts(PROMPTS[:1])) for each in (found, sd))
    assert torch.allclose(ours, wanted, atol=1e-5)


def test_a_ckpt_that_names_lightnings_classes_is_read_and_one_that_names_others_is_not(sd1, tmp_path, monkeypatch):  # noqa: F811
    import sys
    from types import ModuleType

    sd = load_text_to_image(sd1, "cpu")
    state = single_file(sd.unet, sd.autoencoder, sd.text_encoder)
    for module, read in (("pytorch_lightning.callbacks.model_checkpoint", True), ("mischief", False)):
        path, made = tmp_path / f"{module}.ckpt", ModuleType(module)
        made.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module})
        with monkeypatch.context() as patch:
            for place in range(len(parts := module.split("."))):
                name = ".".join(parts[: place + 1])
                patch.setitem(sys.modules, name, made if name == module else ModuleType(name))
            torch.save({"state_dict": state, "callbacks": {made.ModelCheckpoint: {"best": 1.0}}}, path)
        if read:
            assert load_text_to_image(path, "cpu", config=sd1).shape == sd.shape
        else:
            with pytest.raises(UserError, match="cannot be read as Stable Diffusion's"):
                load_text_to_image(path, "cpu", config=sd1)


def test_a_single_file_without_its_configs_or_with_others(tmp_path, monkeypatch):
    from dlcv_diffusion.models.text_to_image import loading

    monkeypatch.setattr(loading, "hub_answers", lambda: False)
    torch.save({"state_dict": {}}, tmp_path / "empty.ckpt")
    with pytest.raises(UserError, match="the configs that belong to .* are not here, and there is no network"):
        load_text_to_image(tmp_path / "empty.ckpt", "cpu")
    with pytest.raises(UserError, match="holds no model_index.json; give the folder of such a pipeline"):
        load_text_to_image(tmp_path / "empty.ckpt", "cpu", config=tmp_path)
