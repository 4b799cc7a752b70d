"""Weights that were crafted or damaged: each file is read right, or refused at once with one sentence that names it."""

import json
import time

import pytest
import safetensors.torch
import torch
from small_runs import (
    generator,
    one_thread,  # noqa: F401 – for every test here
    small_context_unet,
    small_unet,
    with_random_weights,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel

from dlcv_diffusion import NoiseSchedule, UserError
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.digits.judge import DEFAULT, JUDGE, load_judge
from dlcv_diffusion.models import save_model
from dlcv_diffusion.models.registry import read_tensors

DEEP = "[" * 100_000 + "]" * 100_000
HUGE = 10**4000
LINEAR = NoiseSchedule.linear(20).config
BETAS = {"schedule": "betas", "betas": [0.1, 0.2]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Tensors and header of a good file, and its network."""
    model = with_random_weights(small_unet(channels=(8, 16), timesteps=20))
    path = tmp_path_factory.mktemp("whole") / "m.safetensors"
    save_model(model, path, {"schedule": LINEAR, "shape": [3, 8, 8], "name": "crafted"})
    tensors, header = read_tensors(path)
    return {name: tensor.clone() for name, tensor in tensors.items()}, header, model


def written(path, tensors, text):
    safetensors.torch.save_file(tensors, path, {"dlcv_diffusion": text})
    return path


def refused(read, path, said=None):
    """One short sentence that names the file, soon."""
    begun = time.process_time()
    with pytest.raises(UserError, match=said) as error:
        read(path)
    sentence = str(error.value)
    assert path.name in sentence and "\n" not in sentence and len(sentence) < 500, sentence
    assert time.process_time() - begun < 2


def answer(denoise):
    x, t, labels = torch.randn(2, 3, 8, 8, generator=generator()), torch.tensor([0, 19]), torch.tensor([1, 20])
    with torch.no_grad():
        return denoise(x, t, labels)


# --- the header -------------------------------------------------------------------------------------------------------

HEADERS = [
    "",
    "{",
    "null",
    "[]",
    "5",
    '"text"',
    "{}",
    DEEP,
    '{"format": 1, "model": "UNet", "metadata": ' + DEEP + "}",
    '{"format": 1, "model": "UNet", "config": ' + "[" * 150 + "]" * 150 + "}",
    f'{{"format": {HUGE}}}',
    f'{{"format": -{HUGE}}}',
    '{"format": "1"}',
    '{"format": 1.5}',
    '{"format": 0}',
    '{"format": null}',
    '{"format": 1, "model": NaN}',
    '{"format": 1, "model": 5}',
    '{"format": 1, "model": ["UNet"]}',
    '{"format": 1, "model": {"UNet": 1}}',
    '{"format": 1, "model": "' + "U" * 100_000 + '"}',
    '{"format": 1, "model": "nn.Module"}',
    '{"format": 1, "model": "UNet", "config": []}',
    '{"format": 1, "model": "UNet", "config": "small"}',
    '{"format": 1, "model": "UNet", "metadata": 3}',
    '{"format": 1, "model": "UNet", "metadata": ["name"]}',
    '{"format": 1, "model": "UNet", "wings": 2}',
]


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_a_header_that_is_none_is_one_sentence(whole, tmp_path, number):
    refused(load_denoiser, written(tmp_path / "m.safetensors", whole[0], HEADERS[number]))


CONFIGS = [
    {"blocks": 10_000_000},
    {"blocks": [10_000_000, 1]},
    {"blocks": [1] * 100_000},
    {"blocks": [1]},
    {"blocks": -1},
    {"blocks": 0},
    {"blocks": "many"},
    {"blocks": [[1], [1]]},
    {"blocks": None},
    {"channels": [10**9, 10**9]},
    {"channels": [8_192, 8_192], "emb_channels": 65_536},
    {"channels": [8_192] * 8, "blocks": [16] * 8, "attention": [True] * 8},
    {"channels": []},
    {"channels": 8},
    {"channels": "8"},
    {"channels": [12, 20]},
    {"channels": {"8": 16}},
    {"channels": [float("nan"), 8]},
    {"attention": [True]},
    {"attention": 5},
    {"in_channels": 10**9},
    {"in_channels": 0},
    {"in_channels": -3},
    {"in_channels": 3.5},
    {"in_channels": True},
    {"patch": 10**6},
    {"patch": 0},
    {"patch": 4},
    {"num_classes": 10**12},
    {"num_classes": -1},
    {"num_classes": 30},
    {"timesteps": 10**12},
    {"timesteps": 0},
    {"timesteps": HUGE},
    {"timesteps": "350"},
    {"emb_channels": 2**40},
    {"emb_channels": [32]},
    {"wings" * 50_000: 2},
]


@pytest.mark.parametrize("number", range(len(CONFIGS)))
def test_a_network_of_another_size_than_its_weights_is_not_built(whole, tmp_path, number):
    tensors, header, _ = whole
    changed = {**header, "config": {**header["config"], **CONFIGS[number]}}
    refused(load_denoiser, written(tmp_path / "m.safetensors", tensors, json.dumps(changed)))


@pytest.mark.parametrize(
    "config",
    [
        {"height": 10**6, "width": 10**6},
        {"height": 0},
        {"height": 4_096, "width": 4_096},
        {"n_downs": 10**9},
        {"n_downs": -(10**9)},
        {"n_downs": 8, "height": 4_096, "width": 4_096, "n_feat": 8_192},
        {"n_feat": 10**9},
        {"n_feat": 12},
        {"n_cfeat": 0},
    ],
)
def test_nor_is_the_report_s(tmp_path, config):
    model = small_context_unet(timesteps=20)
    save_model(model, tmp_path / "m.safetensors")
    tensors, header = read_tensors(tmp_path / "m.safetensors")
    changed = {**header, "config": {**header["config"], **config}}
    refused(load_denoiser, written(tmp_path / "c.safetensors", dict(tensors), json.dumps(changed)))


FACTS = [
    ({"schedule": 5}, "schedule"),
    ({"schedule": []}, "schedule"),
    ({"schedule": {}}, "not a noise schedule"),
    ({"schedule": {"schedule": ["linear"]}}, "not a noise schedule"),
    ({"schedule": {"schedule": "sigmoid", "T": 10}}, "'sigmoid'"),
    ({"schedule": {**LINEAR, "T": 10**12}}, "timesteps"),
    ({"schedule": {**LINEAR, "T": 0}}, "timesteps"),
    ({"schedule": {**LINEAR, "T": "much"}}, "T is 'much'"),
    ({"schedule": {**LINEAR, "beta_1": -1}}, "betas"),
    ({"schedule": {**LINEAR, "beta_T": float("nan")}}, "betas"),
    ({"schedule": {**LINEAR, "beta_T": HUGE}}, "beta_T"),
    ({"schedule": {**LINEAR, "schedule": "scaled_linear", "beta_1": -1}}, "betas"),
    ({"schedule": {**LINEAR, "wings": 2}}, "wings"),
    ({"schedule": {"schedule": "cosine", "T": 20, "s": -1}}, "betas"),
    ({"schedule": {"schedule": "cosine", "T": 20, "s": float("inf")}}, "betas"),
    ({"schedule": {"schedule": "betas", "betas": "0.1"}}, "betas"),
    ({"schedule": {"schedule": "betas", "betas": [[0.1], [0.1, 0.2]]}}, "betas"),
    ({"schedule": {"schedule": "betas", "betas": [HUGE]}}, "betas"),
    ({"schedule": {"schedule": "betas", "betas": [0.1, 1.5]}}, "betas"),
    ({"prediction": "score"}, "prediction is 'score'"),
    ({"prediction": 5}, "prediction"),
    ({"prediction": ["v"]}, "prediction"),
    ({"train": 5}, "train"),
    ({"train": {"prediction": "score"}}, "train.prediction"),
    ({"shape": 28}, "shape"),
    ({"shape": [3, 28]}, "shape"),
    ({"shape": [3, 0, 8]}, "shape"),
    ({"shape": [3, 10**6, 10**6]}, "shape"),
    ({"shape": [3, -8, 8]}, "shape"),
    ({"shape": ["a", "b", "c"]}, "shape"),
    ({"shape": [1, 8, 8]}, r"draw images of \(1, 8, 8\)"),
    ({"shape": None, "image_size": [3, 8]}, "shape|image_size"),
    ({"name": 5}, "name"),
    ({"name": "n" * 10**6}, "name"),
    ({"signal_leak": 5}, "signal_leak"),
    ({"second_half": [1]}, "second_half"),
]


@pytest.mark.parametrize("number", range(len(FACTS)))
def test_facts_of_another_kind_are_one_sentence(whole, tmp_path, number):
    tensors, header, _ = whole
    facts, said = FACTS[number]
    changed = {**header, "metadata": {**header["metadata"], **facts}}
    refused(load_denoiser, written(tmp_path / "m.safetensors", tensors, json.dumps(changed)), said)


def test_what_a_user_adds_to_the_facts_is_kept(whole, tmp_path):
    tensors, header, model = whole
    added = {"mine": [1, {"a": None}], "loss": float("nan"), "train": {"steps": 5, "prediction": "eps"}, "step": -1}
    changed = {**header, "metadata": {**header["metadata"], **added}}
    denoise = load_denoiser(written(tmp_path / "m.safetensors", tensors, json.dumps(changed)), device="cpu")
    assert denoise.facts["mine"] == [1, {"a": None}] and denoise.facts["step"] == -1
    torch.testing.assert_close(answer(denoise), answer(model))


@pytest.mark.parametrize(
    "facts, shape, T",
    [
        ({"image_size": [3, 12, 8]}, (3, 12, 8), 20),  # as older versions call it
        ({"shape": [3, 12, 8]}, (3, 12, 8), 20),
        ({}, (3, 28, 28), 20),
        ({"schedule": BETAS}, (3, 28, 28), 2),
        ({"schedule": {"schedule": "cosine", "T": 30, "s": 0.01}}, (3, 28, 28), 30),
    ],
)
def test_facts_of_any_age_are_read(whole, tmp_path, facts, shape, T):
    tensors, header, _ = whole
    denoise = load_denoiser(written(tmp_path / "m.safetensors", tensors, json.dumps({**header, "metadata": facts})))
    assert denoise.shape == shape and denoise.schedule.T == T


# --- the tensors ------------------------------------------------------------------------------------------------------


def with_number(number, name="stem.weight"):
    def change(tensors):
        tensors[name].view(-1)[-1] = number
        return tensors

    return change


def as_type(dtype):
    return lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}


def one(name, change):
    return lambda tensors: {**tensors, name: change(tensors[name])}


def without(name):
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def prefixed(prefix):
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


BAD_TENSORS = {
    "nan": (with_number(float("nan")), "not finite: 'stem.weight'"),
    "infinite": (with_number(float("inf")), "not finite"),
    "minus infinite": (with_number(float("-inf"), "head.2.bias"), "not finite: 'head.2.bias'"),
    "too large for float32": (
        lambda tensors: with_number(1e300)({name: tensor.double() for name, tensor in tensors.items()}),
        "not finite",
    ),
    "whole numbers": (as_type(torch.int64), "no floating-point numbers"),
    "bytes": (as_type(torch.int8), "no floating-point numbers"),
    "truth": (one("stem.bias", lambda tensor: tensor > 0), "no floating-point numbers .*'stem.bias'"),
    "complex": (one("stem.bias", lambda tensor: tensor.to(torch.complex64)), "no floating-point numbers"),
    "one is missing": (without("stem.bias"), "not those of this UNet.*stem.bias"),
    "one too many": (lambda tensors: {**tensors, "wings": torch.zeros(2)}, "not those of this UNet.*wings"),
    "none at all": (lambda tensors: {}, "not those of this UNet"),
    "another shape": (one("stem.weight", lambda tensor: tensor[:4].clone()), "not those of this UNet.*stem.weight"),
    "no shape": (one("stem.bias", lambda tensor: tensor[0].clone()), "not those of this UNet.*stem.bias"),
    "empty": (one("stem.bias", lambda tensor: tensor[:0].clone()), "not those of this UNet.*stem.bias"),
    "transposed": (one("stem.weight", lambda tensor: tensor.transpose(0, 1).contiguous()), "not those of this UNet"),
    "other names": (prefixed("net."), "not those of this UNet"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_tensors_that_do_not_fit_are_one_sentence(whole, tmp_path, kind):
    tensors, header, _ = whole
    change, said = BAD_TENSORS[kind]
    tensors = change({name: tensor.clone() for name, tensor in tensors.items()})
    refused(load_denoiser, written(tmp_path / "m.safetensors", tensors, json.dumps(header)), said)


GOOD_TENSORS = {
    "float16": (as_type(torch.float16), 2e-2),
    "bfloat16": (as_type(torch.bfloat16), 1e-1),
    "float64": (as_type(torch.float64), 1e-5),
    "types mixed": (one("stem.weight", lambda tensor: tensor.double()), 1e-5),
    "compiled": (prefixed("_orig_mod."), 1e-5),
    "parallel": (prefixed("module."), 1e-5),
    "both": (prefixed("module._orig_mod."), 1e-5),
}


@pytest.mark.parametrize("kind", GOOD_TENSORS)
def test_tensors_of_another_type_or_wrapping_are_read(whole, tmp_path, kind):
    tensors, header, model = whole
    change, tolerance = GOOD_TENSORS[kind]
    path = written(tmp_path / "m.safetensors", change(tensors), json.dumps(header))
    denoise = load_denoiser(path, device="cpu")
    assert {tensor.dtype for tensor in denoise.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(answer(denoise), answer(model), rtol=tolerance, atol=tolerance)
    path.write_bytes(b"")  # what was loaded does not hang on the file
    torch.testing.assert_close(answer(denoise), answer(model), rtol=tolerance, atol=tolerance)


RAW = {
    "F4": ([2], 1),
    "F6_E2M3": ([4], 3),
    "F8_E8M0": ([4], 4),
    "F8_E4M3": ([4], 4),
    "F8_E5M2": ([4], 4),
    "C64": ([4], 32),
    "U16": ([4], 8),
    "U64": ([4], 32),
    "BOOL": ([4], 4),
    "Q8": ([4], 4),
    "F32": ([10**9, 10**9], 4),
    "F64": ([0, 10**18], 0),
    "F16": ([-1], 2),
    "BF16": ([1] * 100_000, 2),
}


@pytest.mark.parametrize("dtype", RAW)
def test_tensors_of_types_and_shapes_that_few_have_heard_of(whole, tmp_path, dtype):
    shape, size = RAW[dtype]
    table = {"stem.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}}
    text = json.dumps({"__metadata__": {"dlcv_diffusion": json.dumps(whole[1])}, **table}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
    refused(load_denoiser, path)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.complex64, torch.bool])
def test_weights_are_saved_in_types_that_hold_them(tmp_path, dtype):
    with pytest.raises(UserError, match="16 bits or more, not in torch"):
        save_model(small_unet(), tmp_path / "m.safetensors", dtype=dtype)


def test_an_average_s_counter_may_be_a_float(tmp_path):
    """As in averages that are taken over all of a state dict."""
    save_model(with_random_weights(small_context_unet()), tmp_path / "m.safetensors")
    tensors, header = read_tensors(tmp_path / "m.safetensors")
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    load_denoiser(written(tmp_path / "c.safetensors", tensors, json.dumps(header)))


def test_reading_weights_draws_no_random_numbers():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_denoiser("digits")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "model, metadata, said",
    [
        (nn.Linear(1, 1), {}, "cannot save a Linear .*denoiser.model"),
        (small_unet(), {"prediction": "score"}, "prediction is 'score'"),
        (small_unet(), {"shape": (3, 28)}, "shape"),
        (small_unet(), {"schedule": {}}, "schedule"),
    ],
)
def test_what_could_not_be_read_is_not_written(tmp_path, model, metadata, said):
    refused(lambda path: save_model(model, path, metadata), tmp_path / "m.safetensors", said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, AveragedModel, lambda m: nn.DataParallel(torch.compile(m))]
)
def test_a_wrapped_model_is_saved_as_the_one_inside(whole, tmp_path, wrap):
    save_model(wrap(whole[2]), tmp_path / "m.safetensors", whole[1]["metadata"])
    denoise = load_denoiser(tmp_path / "m.safetensors", device="cpu")
    torch.testing.assert_close(answer(denoise), answer(whole[2]))


def test_what_half_precision_cannot_hold_is_not_written(tmp_path):
    model = small_unet()
    with torch.no_grad():
        model.stem.bias.fill_(1e6)
    save = lambda path: save_model(model, path, dtype=torch.float16)  # noqa: E731
    refused(save, tmp_path / "m.safetensors", "not finite: 'stem.bias'")
    save_model(model, tmp_path / "m.safetensors")


# --- the judge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        {"judge": 5, "references": 1, "metadata": {}},
        {"judge": {"channels": [10**9] * 3}, "references": 1, "metadata": {}},
        {"judge": {"channels": [256] * 3, "blocks": 16}, "references": 256, "metadata": {}},
        {"judge": {"blocks": 10_000_000}, "references": 1, "metadata": {}},
        {"judge": {"feature_dim": -1}, "references": 1, "metadata": {}},
        {"judge": {"wings": 2}, "references": 1, "metadata": {}},
        {"judge": {}, "references": 10**12, "metadata": {}},
        {"judge": {}, "references": 1, "metadata": [1]},
        {"judge": {}},
    ],
)
def test_a_judge_s_header_too(tmp_path, header):
    tensors, _ = read_tensors(JUDGE)
    text = json.dumps({"format": 1, **header})
    refused(load_judge, written(tmp_path / "judge.safetensors", dict(tensors), text))


@pytest.mark.parametrize(
    "change",
    [
        with_number(float("nan"), "halves.0.head.bias"),
        without("halves.1.head.bias"),
        one("halves.0.head.bias", lambda tensor: tensor.to(torch.float8_e8m0fnu)),
        one("halves.0.head.bias", lambda tensor: tensor.to(torch.complex64)),
        one("halves.0.head.bias", lambda tensor: tensor[:5].clone()),
    ],
)
def test_a_judge_s_tensors_too(tmp_path, change):
    tensors, header = read_tensors(JUDGE)
    tensors = change({name: tensor.clone() for name, tensor in tensors.items()})
    refused(load_judge, written(tmp_path / "judge.safetensors", tensors, json.dumps(header)), "halves.*head.bias")
    assert load_judge().config == DEFAULT
