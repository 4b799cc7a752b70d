"""Weights on disk: what is written comes back, and what is none of ours is told in one sentence."""

import json
import os
import pickle
import zipfile

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import (
    full_disk,
    generator,
    names,
    one_thread,  # noqa: F401 – for every test here
    small_context_unet,
    small_unet,
    with_random_weights,
)

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.models import read_model, save_model, shipped_weights
from dlcv_diffusion.models.convert import context_unet_from, convert_report_weights
from dlcv_diffusion.models.registry import FORMAT, load_state, read_header, read_tensors, write_tensors
from dlcv_diffusion.tensors import read_state_dict


def state_bytes(model):
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def prediction(model):
    x, t, labels = torch.randn(3, 3, 8, 8, generator=generator()), torch.tensor([0, 9, 19]), torch.tensor([1, 15, 20])
    with torch.no_grad():
        return model(x, t, labels)


def one_sentence(error):
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 400, sentence
    return sentence


# --- safetensors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [small_unet, small_context_unet])
def test_a_model_comes_back_to_the_bit(tmp_path, network):
    model = with_random_weights(network(timesteps=20))
    schedule = NoiseSchedule.linear(20)
    save_model(model, tmp_path / "deep" / "m.safetensors", {"schedule": schedule.config, "name": "ünïcode"})
    loaded, facts = read_model(tmp_path / "deep" / "m.safetensors")
    assert type(loaded) is type(model) and loaded.config == model.config and not loaded.training
    assert state_bytes(loaded) == state_bytes(model)
    assert NoiseSchedule.from_config(facts["schedule"]) == schedule and facts["name"] == "ünïcode"
    assert torch.equal(prediction(loaded), prediction(model))
    assert names(tmp_path / "deep") == ["m.safetensors"]
    save_model(model.to(memory_format=torch.channels_last), tmp_path / "deep" / "nhwc.safetensors")
    assert state_bytes(read_model(tmp_path / "deep" / "nhwc.safetensors")[0]) == state_bytes(loaded)


def test_float16_is_half_the_size_and_loads_as_float32(tmp_path):
    model = with_random_weights(small_unet(channels=(32, 64)))
    save_model(model, tmp_path / "whole.safetensors")
    save_model(model, tmp_path / "half.safetensors", dtype=torch.float16)
    half, whole = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "whole"))
    assert half < 0.54 * whole
    loaded = read_model(tmp_path / "half.safetensors")[0].state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded[name], tensor, atol=1e-4, rtol=1e-3)
    assert model.state_dict()["stem.weight"].dtype == torch.float32  # the model itself stays as it was


def test_batchnorm_s_counter_stays_a_counter_in_float16(tmp_path):
    model = small_context_unet()
    prediction(model.train())
    save_model(model, tmp_path / "m.safetensors", dtype=torch.float16)
    assert read_model(tmp_path / "m.safetensors")[0].state_dict()["init_conv.conv1.1.num_batches_tracked"] == 1


def test_the_shipped_weights_load_by_name():
    assert "digits" in shipped_weights()
    digits = load_denoiser("digits")
    assert (digits.null, digits.shape, digits.prediction) == (20, (3, 28, 28), "v")
    assert digits.model.timesteps == digits.schedule.T == NoiseSchedule.from_config(digits.facts["schedule"]).T


def damaged(folder, kind):
    """A file that is no model of ours, in one way or another."""
    path = folder / f"{kind}.safetensors"
    model = small_unet()
    save_model(model, path)
    whole = path.read_bytes()
    tensors, header = read_tensors(path)
    if kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "short":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "stub":
        path.write_bytes(whole[:20])
    elif kind == "text":
        path.write_text("not tensors at all, but a text that is long enough to be something")
    elif kind == "pickle":
        torch.save(model.state_dict(), path)
    elif kind == "foreign":
        safetensors.torch.save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    elif kind == "strange header":
        safetensors.torch.save_file({"weight": torch.zeros(3)}, path, {"dlcv_diffusion": "[]"})
    elif kind == "newer":
        metadata = {"dlcv_diffusion": json.dumps({**header, "format": FORMAT + 1})}
        safetensors.torch.save_file(tensors, path, metadata)
    elif kind == "no model":
        write_tensors(path, tensors, {"checkpoint": {"step": 3}})
    elif kind == "unknown model":
        write_tensors(path, tensors, {**header, "model": "VNet"})
    elif kind == "other settings":
        write_tensors(path, tensors, {**header, "config": {**header["config"], "wings": 2}})
    elif kind == "other weights":
        write_tensors(path, tensors, {**header, "config": {**header["config"], "num_classes": 5}})
    elif kind == "a weight less":
        write_tensors(path, {name: t for name, t in tensors.items() if name != "stem.bias"}, header)
    return path


KINDS = {
    "missing": "no weights at",
    "folder": "folder.* holds no network of diffusers",
    "empty": "not a whole safetensors file",
    "short": "not a whole safetensors file",
    "stub": "not a whole safetensors file",
    "text": "not a whole safetensors file",
    "pickle": "not a whole safetensors file",
    "foreign": "saved by another program",
    "strange header": "saved by another program",
    "newer": "newer dlcv_diffusion .*upgrade",
    "no model": "not a model",
    "unknown model": "unknown model 'VNet'",
    "other settings": "do not fit the model 'UNet'",
    "other weights": "not those of this UNet.*label_emb.weight",
    "a weight less": "not those of this UNet.*stem.bias",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_model_is_told_in_one_sentence(tmp_path, kind):
    path = damaged(tmp_path, kind)
    with pytest.raises(UserError, match=KINDS[kind]) as error:
        load_denoiser(path)
    assert kind in one_sentence(error) or kind.startswith(("unknown", "other settings"))


def test_only_shipped_models_are_suggested():
    for name, words in (("digit", "no weights at 'digit'"), ("digits_judge", "'digits_judge' is shipped .* no model")):
        with pytest.raises(UserError, match=f"^{words}.*; give a .safetensors file or one of: digits, faces$"):
            load_denoiser(name)


def test_a_pt_file_is_pointed_to_the_converter(tmp_path):
    torch.save(small_context_unet().state_dict(), tmp_path / "report.pt")
    with pytest.raises(UserError, match="dlcv convert"):
        load_denoiser(tmp_path / "report.pt")


@given(st.data())
def test_a_file_cut_anywhere_is_told(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "m.safetensors"
    write_tensors(path, {"a": torch.arange(50.0)}, {"model": "UNet"})
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    for read in (read_header, read_tensors, load_denoiser):
        with pytest.raises(UserError, match="not a whole safetensors file"):
            read(path)


def test_a_device_that_is_not_here_is_told(tmp_path):
    save_model(small_unet(), tmp_path / "m.safetensors")
    with pytest.raises(UserError, match="cuda:99"):
        load_denoiser(tmp_path / "m.safetensors", device="cuda:99")


def test_a_file_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    """Root may read everything, so the system's answer is played."""
    save_model(small_unet(), tmp_path / "m.safetensors")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="you may not read '.*m.safetensors'"):
        load_denoiser(tmp_path / "m.safetensors")


def test_a_wrong_network_s_weights_are_told_in_one_sentence():
    with pytest.raises(UserError, match="weights in 'somewhere' are not those of this UNet") as error:
        load_state(small_unet(), small_context_unet().state_dict(), "somewhere")
    one_sentence(error)


@pytest.mark.parametrize("failure", ["full disk", "in the way"])
def test_what_cannot_be_written_leaves_the_old_weights(tmp_path, failure):
    path = tmp_path / "m.safetensors"
    if failure == "in the way":
        (tmp_path / "file").write_text("")
        with pytest.raises(UserError, match="cannot write"):
            save_model(small_unet(), tmp_path / "file" / "m.safetensors")
    else:
        save_model(small_unet(), path)
        old = path.read_bytes()
        with full_disk(10_000), pytest.raises(UserError, match="cannot write"):
            save_model(with_random_weights(small_unet()), path)
        assert path.read_bytes() == old
    assert len(names(tmp_path)) == 1


# --- the report's own format ------------------------------------------------------------------------------------------


def wrapped(state, how):
    """A state dict as people save it."""
    if how == "data parallel":
        return {f"module.{name}": tensor for name, tensor in state.items()}
    if how == "state_dict":
        return {"state_dict": state, "epoch": 3}
    if how == "the public repository's":
        rest = {"epoch": 3, "optimizer_state_dict": {}, "loss": 0.03, "timesteps": 350, "device": torch.device("cpu")}
        return {"model_state_dict": state, "dataset_name": "mnist", "batch_size": 64, **rest}
    return state


@pytest.mark.parametrize("how", ["bare", "data parallel", "state_dict", "the public repository's"])
@pytest.mark.parametrize("n_downs, height, width", [(2, 8, 8), (1, 8, 8)])
def test_the_report_s_file_converts(tmp_path, how, n_downs, height, width):
    model = with_random_weights(small_context_unet(height=height, width=width, n_downs=n_downs, timesteps=20))
    torch.save(wrapped(model.state_dict(), how), tmp_path / "report.pt")
    converted = convert_report_weights(tmp_path / "report.pt", tmp_path / "report.safetensors", timesteps=20)
    loaded = load_denoiser(tmp_path / "report.safetensors")
    assert loaded.model.config == model.config and state_bytes(loaded.model) == state_bytes(model)
    for denoiser in (loaded, converted):
        torch.testing.assert_close(prediction(denoiser.model), prediction(model))  # weights lie in memory otherwise
        assert denoiser.schedule == NoiseSchedule.linear(20) and denoiser.facts["second_half"] == "SVHN"
        assert (denoiser.null, denoiser.shape, denoiser.prediction) == (20, (3, height, width), "eps")


def test_an_old_style_or_half_precision_file_converts(tmp_path):
    model = with_random_weights(small_context_unet())
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()
    }
    torch.save(half, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    loaded = convert_report_weights(tmp_path / "old.pt", tmp_path / "new.safetensors").model
    torch.testing.assert_close(prediction(loaded), prediction(model), atol=0.02, rtol=0.02)


class Trap:
    """An object that leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_is_refused_and_not_run(tmp_path, save):
    state = small_context_unet().state_dict()
    save({"state_dict": state, "extra": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(UserError, match="plain tensors; save model.state_dict"):
        convert_report_weights(tmp_path / "trap.pt", tmp_path / "out.safetensors")
    assert names(tmp_path) == ["trap.pt"]


def test_a_whole_pickled_model_is_refused(tmp_path):
    torch.save(small_context_unet(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="save model.state_dict"):
        read_state_dict(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [{}, [], 3.0, {"lr": 0.1}, torch.zeros(3), {"state_dict": {"epoch": 3}}])
def test_a_file_without_a_state_dict_is_told(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state_dict(tmp_path / "other.pt")


@given(st.data())
def test_a_damaged_pt_file_is_told(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "report.pt"
    torch.save({"weight": torch.arange(50.0)}, path, _use_new_zipfile_serialization=data.draw(st.booleans()))
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(UserError, match="not a whole .pt file"):
        read_state_dict(path)


def test_a_zip_a_folder_and_nothing_are_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(UserError, match="not a whole .pt file"):
        read_state_dict(tmp_path / "a.pt")
    for path, said in ((tmp_path, "is not a file"), (tmp_path / "b.pt", "is not there")):
        with pytest.raises(UserError, match=f"{path.name}' {said}; save model.state_dict"):
            read_state_dict(path)


def test_weights_of_another_network_are_told():
    state = small_context_unet().state_dict()
    missing = {name: tensor for name, tensor in state.items() if name != "up0.0.weight"}
    more = {**state, "down3.weight": torch.zeros(3)}
    for weights, reason in (
        (small_unet().state_dict(), "'init_conv.conv1.0.weight' is missing"),
        (missing, "'up0.0.weight' is missing"),
        (more, "down3.weight"),
        ({**state, "up0.0.weight": torch.zeros(3)}, "not a ContextUnet's"),
        ({**state, "final_conv.3.bias": torch.zeros(7)}, "final_conv.3.bias"),
    ):
        with pytest.raises(UserError, match=reason) as error:
            context_unet_from(weights, source="w.pt")
        assert "'w.pt'" in one_sentence(error)
