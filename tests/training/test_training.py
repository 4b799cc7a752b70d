"""Training: algorithm 1 against a loop written out, and runs that are killed, resumed, shared or sent astray."""

import csv
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_runs import (
    SCHEDULE,
    command_line,
    contents,
    full_disk,
    names,
    one_of_two,
    one_thread,  # noqa: F401 – for every test here
    small_context_unet,
    small_digits,
    small_network,
    small_train,
    small_train_states,
    small_unet,
    start,
    train_and_die,
    train_endlessly,
    with_random_weights,
    write_npz,
)

from dlcv_diffusion import UserError
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.digits.recipes import DIGITS, digits_recipe
from dlcv_diffusion.digits.signal_leak import SignalLeak
from dlcv_diffusion.digits.training import train_digits, write_preview
from dlcv_diffusion.images.arrays import ImageArrays
from dlcv_diffusion.models import ContextUnet, UNet
from dlcv_diffusion.models.loading import own_denoiser
from dlcv_diffusion.models.registry import read_header, read_tensors, write_tensors
from dlcv_diffusion.training import TrainConfig, train
from dlcv_diffusion.training.checkpoints import Checkpoint, Metrics, differences
from dlcv_diffusion.training.config import learning_rate
from dlcv_diffusion.training.loop import Training
from dlcv_diffusion.training.objective import batch_indices, noised_batch


def weights(out):
    """Everything of a checkpoint but the clock: weights, average and moments, and the step."""
    tensors, header = read_tensors(out / "checkpoint.safetensors")
    return header["checkpoint"]["step"], {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


HEADER = ",".join(Metrics.FIELDS)


def steps_in_metrics(out):
    with open(out / "metrics.csv", newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_the_report_s_recipe():
    recipe = digits_recipe("report")
    assert recipe.train == TrainConfig(
        steps=50 * 678, batch_size=200, lr=1e-4, weight_decay=1e-5, warmup=0, label_drop=0.1, ema_decay=0.999
    )
    assert recipe.train.clip_grad is None and not recipe.train.flip and recipe.train.precision == "no"
    schedule = recipe.schedule()
    assert schedule.T == 350 and schedule.betas[[0, -1]].tolist() == [1e-4, 2e-2]
    network = recipe.build()
    assert type(network) is ContextUnet and sum(p.numel() for p in network.parameters()) == 28_729_603
    assert network.timesteps == 350 and network.num_classes == 20


@pytest.mark.parametrize("preset", set(DIGITS) - {"report"})
def test_the_others_are_u_nets_for_twenty_classes(preset):
    recipe = digits_recipe(preset)
    network = recipe.build()
    assert type(network) is UNet and network.num_classes == 20 and network.timesteps == recipe.schedule().T
    assert not recipe.train.flip and recipe.train.label_drop == (0.25 if preset == "guided" else 0.1)


def test_the_first_weights_follow_from_the_seed_alone():
    before = torch.get_rng_state()
    one, same, other = (digits_recipe("tiny").build(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["stem.weight"], other["stem.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_preset_is_told():
    with pytest.raises(UserError, match="unknown preset 'huge'; choose one of: report, small, guided, tiny"):
        train_digits("huge")


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"lr": math.nan},
        {"lr": -1.0},
        {"lr": math.inf},
        {"weight_decay": -1e-5},
        {"warmup": -1},
        {"label_drop": 1.5},
        {"ema_decay": -0.1},
        {"clip_grad": 0.0},
        {"seed": -1},
        {"seed": 2**32},
        {"precision": "fp8"},
    ],
)
def test_settings_that_make_no_run_are_told(setting):
    (name,) = setting
    with pytest.raises(UserError, match=name):
        TrainConfig(**{"steps": 10, **setting})


# --- what a step is made of -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 10, 678])
def test_the_learning_rate_is_torch_s_cosine_per_batch(steps):
    adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=steps)
    config = TrainConfig(steps=steps, lr=1e-4, warmup=0)
    for step in range(steps):
        assert math.isclose(learning_rate(step, config), adam.param_groups[0]["lr"], rel_tol=1e-6)
        adam.step()
        cosine.step()


def test_it_warms_up_in_equal_steps():
    config = TrainConfig(steps=10**6, lr=1.0, warmup=4)
    assert [round(learning_rate(step, config), 3) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]


@given(size=st.integers(1, 30), batch_size=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_every_image_is_seen_once_an_epoch(size, batch_size, seed):
    config = TrainConfig(steps=5, batch_size=batch_size, seed=seed)
    seen = torch.cat([batch_indices(step, size, config) for step in range(2 * size)])
    assert len(seen) == 2 * size * batch_size
    epochs = seen.reshape(-1, size)
    assert torch.equal(epochs.sort(1).values, torch.arange(size).expand_as(epochs))
    if size > 20:
        assert not torch.equal(epochs[0], epochs[1])


def test_a_batch_follows_from_seed_and_step_alone():
    data, config = small_digits(), TrainConfig(steps=9, batch_size=8, seed=5)
    torch.manual_seed(1)
    in_order = [noised_batch(step, data, SCHEDULE, 20, config) for step in range(4)]
    torch.manual_seed(2)
    for step in (3, 0, 2, 1):
        for one, other in zip(noised_batch(step, data, SCHEDULE, 20, config), in_order[step], strict=True):
            assert torch.equal(one, other)
    x0, labels, t, eps = in_order[0]
    rows = batch_indices(0, len(data), config)
    assert torch.equal(x0, data.batch(rows)[0])
    kept = labels < 20
    assert torch.equal(labels[kept], data.labels[rows][kept])
    assert not torch.equal(eps, in_order[1][3]) and not torch.equal(t, in_order[1][2])
    other = noised_batch(0, data, SCHEDULE, 20, TrainConfig(steps=9, batch_size=8, seed=6))
    assert not torch.equal(other[3], eps)


def test_labels_are_dropped_one_by_one_and_all_timesteps_are_drawn():
    data, config = small_digits(400, 4), TrainConfig(steps=50, batch_size=400)
    batches = [noised_batch(step, data, SCHEDULE, 20, config) for step in range(50)]
    dropped = torch.stack([labels == 20 for _, labels, _, _ in batches]).double()
    n = dropped.numel()
    assert abs(dropped.mean() - 0.1) < 4 * math.sqrt(0.09 / n)
    share = dropped.mean(1)  # of each batch: all or none of it would be a drop per batch
    assert share.min() > 0.02 and share.max() < 0.2
    assert abs(share.std() - math.sqrt(0.09 / 400)) < 0.006
    t = torch.cat([t for _, _, t, _ in batches])
    assert (t.bincount(minlength=20) / n - 1 / 20).abs().max() < 4 * math.sqrt(0.05 / n)
    eps = torch.cat([eps for *_, eps in batches])
    assert abs(eps.mean()) < 0.005 and abs(eps.std() - 1) < 0.005


def test_a_model_without_labels_loses_none_and_mirrors_come_whole():
    data = small_digits(200, 4)
    plain = noised_batch(3, data, SCHEDULE, 0, TrainConfig(steps=5, batch_size=200))
    assert torch.equal(plain[1], data.labels[batch_indices(3, 200, TrainConfig(steps=5, batch_size=200))])
    mirrored = noised_batch(3, data, SCHEDULE, 0, TrainConfig(steps=5, batch_size=200, flip=True))[0]
    same, flipped = ((mirrored == other).flatten(1).all(1) for other in (plain[0], plain[0].flip(-1)))
    assert (same ^ flipped).all() and 70 < flipped.sum() < 130


# --- the loop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_grad", [None, 0.5])
def test_it_is_algorithm_1_written_out(tmp_path, clip_grad):
    """Against torch's Adam and scheduler, and the average by hand."""
    settings = {"warmup": 0, "lr": 1e-2, "weight_decay": 1e-3, "ema_decay": 0.8, "clip_grad": clip_grad}
    states = small_train(tmp_path, **settings)

    model = small_network("UNet").train()
    data, config = small_digits(), TrainConfig(steps=6, batch_size=4, **settings)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=6)
    average = {}
    for step in range(6):
        x0, labels, t, eps = noised_batch(step, data, SCHEDULE, 20, config)
        abar = SCHEDULE.alphas_bar[t].float()[:, None, None, None]
        loss = F.mse_loss(model(abar.sqrt() * x0 + (1 - abar).sqrt() * eps, t, labels), eps)
        adam.zero_grad()
        loss.backward()
        if clip_grad:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
        assert math.isclose(states[step].lr, adam.param_groups[0]["lr"], rel_tol=1e-6)
        assert math.isclose(states[step].loss, loss.item(), rel_tol=1e-4)
        adam.step()
        cosine.step()
        for name, parameter in model.state_dict().items():
            average[name] = 0.8 * average.get(name, parameter) + 0.2 * parameter
    for trained, expected in ((states[-1].model, model.state_dict()), (states[-1].ema, average)):
        for name, tensor in trained.state_dict().items():
            torch.testing.assert_close(tensor, expected[name], atol=2e-4, rtol=2e-3)
    shipped = load_denoiser(tmp_path / "model.safetensors").model.state_dict()
    assert all(torch.equal(shipped[name], tensor) for name, tensor in states[-1].ema.state_dict().items())


def test_a_run_leaves_what_it_promises(tmp_path):
    shown = []

    def preview(model, path):
        path.parent.mkdir(exist_ok=True)
        path.write_text("a picture")
        shown.append(model)

    states = small_train(tmp_path, preview=preview, metadata={"name": "small"})
    assert [state.step for state in states] == [1, 2, 3, 4, 5, 6] and {state.steps for state in states} == {6}
    assert all(state.images_per_second > 0 and state.seconds > 0 for state in states)
    pictures = ["samples", "samples/step_000003.png", "samples/step_000006.png"]
    assert names(tmp_path) == ["checkpoint.safetensors", "metrics.csv", "model.safetensors", *pictures]
    assert shown == [states[0].ema] * 2
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["step", "loss", "lr", "images_per_second"]
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == [(s.step, round(s.loss, 6)) for s in states]
    metadata = read_header(tmp_path / "model.safetensors")["metadata"]
    assert metadata["schedule"] == SCHEDULE.config and metadata["train"]["batch_size"] == 4
    assert metadata["name"] == "small"
    assert metadata["final_loss"] == pytest.approx(np.mean([state.loss for state in states]), abs=1e-5)


def test_batchnorm_s_statistics_are_the_model_s_in_the_average_too(tmp_path):
    last = small_train(tmp_path, model="ContextUnet")[-1]
    name = "init_conv.conv1.1.running_mean"
    assert torch.equal(last.model.state_dict()[name], last.ema.state_dict()[name])
    assert last.ema.state_dict()["init_conv.conv1.1.num_batches_tracked"] == 6


def test_a_model_without_labels_trains(tmp_path):
    model = small_unet(num_classes=0, timesteps=20)
    config = TrainConfig(steps=2, batch_size=4)
    assert [state.step for state in train(model, small_digits(), SCHEDULE, config, tmp_path, device="cpu")] == [1, 2]


def test_bf16_follows_float32_from_near_and_one_process_can_do_both(tmp_path):
    plain = small_train(tmp_path / "float32")
    bf16 = small_train(tmp_path / "bf16", precision="bf16")
    again = small_train(tmp_path / "again")
    assert [state.loss for state in again] == [state.loss for state in plain]
    difference = max(abs(a.loss - b.loss) for a, b in zip(plain, bf16, strict=True))
    assert 0 < difference < 0.05
    assert {tensor.dtype for tensor in read_tensors(tmp_path / "bf16" / "checkpoint.safetensors")[0].values()} <= {
        torch.float32,
        torch.int64,
    }
    x, t = torch.zeros(1, 3, 8, 8), torch.tensor([3])
    assert bf16[-1].model(x, t).dtype == torch.float32  # the model is not left with autocast in it


@pytest.mark.parametrize("parts", [2, 3, 4, 9])
def test_a_batch_in_parts_follows_the_path_of_the_whole(tmp_path, parts):
    whole, taken = small_train(tmp_path / "whole"), small_train(tmp_path / "parts", accumulate=parts)
    assert [state.loss for state in taken] == pytest.approx([state.loss for state in whole], rel=1e-4)


def test_training_touches_no_global_generator(tmp_path):
    model, config = small_unet(timesteps=20), TrainConfig(steps=2, batch_size=4)
    before = torch.get_rng_state()
    list(train(model, small_digits(), SCHEDULE, config, tmp_path, device="cpu"))
    assert torch.equal(torch.get_rng_state(), before)


# --- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["UNet", "ContextUnet"])
def test_a_run_that_is_left_goes_on_to_the_same_weights(tmp_path, model):
    small_train(tmp_path / "whole", model=model)
    network = small_network(model)
    config = TrainConfig(steps=6, batch_size=4, warmup=2, clip_grad=1.0)
    for state in train(network, small_digits(), SCHEDULE, config, tmp_path / "left", checkpoint_every=2, device="cpu"):
        if state.step == 5:
            break
    assert steps_in_metrics(tmp_path / "left") == [1, 2, 3, 4]
    resumed = small_train(tmp_path / "left", model=model, seed=9, resume=True)  # other first weights: none of them stay
    assert [state.step for state in resumed] == [5, 6] and steps_in_metrics(tmp_path / "left") == [1, 2, 3, 4, 5, 6]
    assert weights(tmp_path / "left") == weights(tmp_path / "whole")
    whole, left = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "left"))
    assert whole == left
    assert small_train(tmp_path / "left", model=model, resume=True) == []  # it is finished


def test_killed_at_every_file_it_reaches_the_same_weights(tmp_path):
    small_train(tmp_path / "whole")
    out = tmp_path / "killed"
    deaths = 0
    for moment in [1, 2, 3, 4, 5, 6, 7, 8, 9]:  # each life dies at a later file, half-written
        process = start(train_and_die, out, moment)
        process.join(60)
        if process.exitcode == 0:
            break
        deaths += 1
        assert process.exitcode == -signal.SIGKILL
        assert any(".partial" in name for name in names(out))
        if (out / "checkpoint.safetensors").exists():
            weights(out)  # whole, or this raises
    assert deaths >= 4
    process = start(train_and_die, out, None)
    process.join(60)
    assert process.exitcode == 0
    assert names(out) == ["checkpoint.safetensors", "metrics.csv", "model.safetensors"]  # nothing half-written is left
    assert steps_in_metrics(out) == [1, 2, 3, 4, 5, 6]
    assert weights(out) == weights(tmp_path / "whole")
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_killed_at_any_time_it_reaches_the_same_weights(tmp_path):
    """A run that writes a checkpoint every step, killed again and again as it comes."""
    out, draw = tmp_path / "killed", random.Random(0)
    for _ in range(6):
        process = start(train_endlessly, out)
        before = weights(out)[0] if (out / "checkpoint.safetensors").exists() else 0
        patience = time.monotonic() + 60
        while process.is_alive() and time.monotonic() < patience:
            time.sleep(0.02 * draw.random())
            if (out / "checkpoint.safetensors").exists() and weights(out)[0] > before:
                break
        process.kill()
        process.join()
    reached, _ = weights(out)
    assert reached > 0
    small_train(out, steps=80, checkpoint_every=20, resume=True)
    small_train(tmp_path / "whole", steps=80, checkpoint_every=40)
    assert steps_in_metrics(out) == list(range(1, 81))
    assert weights(out) == weights(tmp_path / "whole")
    assert names(out) == ["checkpoint.safetensors", "metrics.csv", "model.safetensors"]


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    small_train(tmp_path)
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    with pytest.raises(UserError, match="holds a training run already; add --resume"):
        small_train(tmp_path)
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"lr": 0.5}, "lr: 0.001 then, 0.5 now"),
        ({"steps": 9}, "steps: 6 then, 9 now"),
        ({"seed": 0, "batch_size": 8, "precision": "bf16"}, "batch_size: 4 then, 8 now; precision: no then, bf16 now"),
        ({"metadata": {"data": "b", "images": 40}}, "data: a then, b now; images: None then, 40 now"),
    ],
)
def test_resuming_with_other_settings_is_refused_by_name(tmp_path, changes, named):
    small_train(tmp_path, **{"metadata": {"data": "a"}})
    with pytest.raises(UserError, match="started with other settings") as error:
        small_train(tmp_path, **{"metadata": {"data": "a"}, **changes}, resume=True)
    assert f"({named})" in str(error.value)


def test_differences_are_named_at_any_depth():
    assert differences({"a": (1, 2), "b": {"c": {"d": 1}}}, {"a": [1, 2], "b": {"c": {"d": 2}}}) == "d: 1 then, 2 now"
    assert differences({"schedule": {"T": 20}}, {"schedule": {"T": 20}}) == ""


@pytest.mark.parametrize("kind", ["short", "a model", "another network"])
def test_resuming_from_no_checkpoint_is_told(tmp_path, kind):
    path = tmp_path / "checkpoint.safetensors"
    small_train(tmp_path)
    if kind == "short":
        path.write_bytes(path.read_bytes()[:1000])
    elif kind == "a model":
        path.write_bytes((tmp_path / "model.safetensors").read_bytes())
    else:
        tensors, header = read_tensors(path)
        write_tensors(path, {name: t for name, t in tensors.items() if "stem" not in name}, header)
    before = path.read_bytes()
    with pytest.raises(UserError, match="not a whole|not a training checkpoint|not those of this UNet"):
        small_train(tmp_path, resume=True)
    assert path.read_bytes() == before


def test_metrics_go_on_after_the_step_of_the_checkpoint(tmp_path):
    metrics = Metrics(tmp_path / "metrics.csv")
    for step in (1, 2, 3):
        metrics.add(step, 0.5, 1e-3, 100.0)
    metrics.write()
    again = Metrics(tmp_path / "metrics.csv")
    assert [row[0] for row in again.rows] == [1, 2, 3]
    again.keep(2)
    assert [row[0] for row in again.rows] == [1, 2] and again.mean_loss(10) == 0.5
    again.keep(0)
    assert again.rows == [] and again.mean_loss(10) is None


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", *(f"{HEADER}\n{line}\n" for line in ("1,0.5", "x,1,1,1", "1,1,1,1,mine", "my note", "1,,1,1"))],
)
@pytest.mark.parametrize("resume", [True, False])
def test_damaged_metrics_are_told_and_kept(tmp_path, text, resume):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(UserError, match="metrics.csv' is damaged"):
        small_train(tmp_path, resume=resume)
    assert contents(tmp_path) == {"metrics.csv": text.encode()}


def test_metrics_that_a_table_program_saved_are_read(tmp_path):
    (tmp_path / "metrics.csv").write_text(f"\ufeff{HEADER}\r\n1,0.5,1.00E-03,9\r\n", encoding="utf-8")
    assert Metrics(tmp_path / "metrics.csv").rows == [(1, 0.5, 1e-3, 9.0)]


def test_metrics_that_are_no_file_or_may_not_be_read_are_told(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "metrics.csv")
    with pytest.raises(UserError, match="metrics.csv' is no file; move it away"):
        Metrics(tmp_path / "metrics.csv")
    (tmp_path / "locked.csv").write_text(f"{HEADER}\n")

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # root may read everything
    with pytest.raises(UserError, match="locked.csv' may not be read"):
        Metrics(tmp_path / "locked.csv")


def test_a_restored_optimiser_lies_in_memory_as_its_weights_do(tmp_path):
    last = small_train(tmp_path)[-1]
    facts = read_header(tmp_path / "checkpoint.safetensors")["checkpoint"]["facts"]
    model = last.model
    adam = torch.optim.Adam(model.parameters())
    config = TrainConfig(**facts["train"])
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", model, last.ema, adam, config, facts)
    assert checkpoint.restore()[0] == 6
    assert adam.state[model.stem.weight]["exp_avg"].is_contiguous(memory_format=torch.channels_last)


# --- astray -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_grad", [None, 1.0])
@pytest.mark.parametrize("checkpoint_every", [1, 100])
def test_a_loss_that_is_not_finite_stops_it(tmp_path, clip_grad, checkpoint_every):
    settings = {"lr": 1e30, "warmup": 0, "clip_grad": clip_grad, "checkpoint_every": checkpoint_every}
    kept = f"the last good checkpoint is '{tmp_path}" if checkpoint_every == 1 else "there is no checkpoint"
    with pytest.raises(UserError, match="the loss became (nan|inf) at step") as error:
        small_train(tmp_path, **settings)
    assert kept in str(error.value) and "\n" not in str(error.value)
    if checkpoint_every == 1:
        step, _ = weights(tmp_path)
        tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
        assert all(tensor.isfinite().all() for name, tensor in tensors.items() if name.startswith("model."))
        assert step >= 1 and steps_in_metrics(tmp_path) == list(range(1, step + 1))
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("which", ["model", "ema"])
@pytest.mark.parametrize("last", [3, 6])
def test_weights_that_are_not_finite_replace_nothing(tmp_path, monkeypatch, which, last):
    """In the last step too: its loss was that of the weights before it."""
    update, count = Training.update_average, [0]

    def astray(training, decay):
        update(training, decay)
        count[0] += 1
        if count[0] == last:
            getattr(training, {"model": "model", "ema": "average"}[which]).stem.weight.data[0] = math.nan

    small_train(tmp_path / "good", steps=2)
    finished = (tmp_path / "good" / "model.safetensors").read_bytes()
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(Training, "update_average", astray)
    before = {}

    def preview(model, path):
        before.update(contents(tmp_path / "run"))
        assert last > 3  # the preview of step 3 is not drawn with NaN

    with pytest.raises(UserError, match="not finite after step|loss became nan"):
        for state in small_train_states(tmp_path / "run", preview=preview, checkpoint_every=2):
            if state.step == 4:
                (tmp_path / "run" / "model.safetensors").write_bytes(finished)
    if last == 6:
        kept = contents(tmp_path / "run")
        assert kept["model.safetensors"] == finished and weights(tmp_path / "run")[0] == 4
    else:
        assert weights(tmp_path / "run")[0] == 2


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path):
    small_train(tmp_path / "spare", steps=1)
    room = (tmp_path / "spare" / "checkpoint.safetensors").stat().st_size - 1000
    with full_disk(room), pytest.raises(UserError, match="cannot write .*checkpoint.safetensors.*free space"):
        small_train(tmp_path / "new" / "run")
    assert "new" not in names(tmp_path)  # nothing that would be in the way of the next try


def test_a_folder_that_cannot_be_written_is_found_out_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("dlcv_diffusion.training.objective.noised_batch", None)
    with pytest.raises(UserError, match="cannot write"):
        small_train(tmp_path / "file" / "run")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    "images, labels, reason",
    [
        ((0, 3, 8, 8), 0, "no images"),
        ((4, 1, 8, 8), 0, "takes images of 3×8×8 .channels, height, width., not 1×8×8"),
        ((4, 3, 8, 8), -1, "label -1 is out of range; the model knows labels 0 to 19"),
        ((4, 3, 8, 8), 20, "label 20 is out of range; the model knows labels 0 to 19"),
    ],
)
def test_data_that_do_not_fit_the_model_are_told(tmp_path, images, labels, reason):
    data = ImageArrays(torch.zeros(images, dtype=torch.uint8), torch.full(images[:1], labels))
    with pytest.raises(UserError, match=reason):
        next(train(small_unet(), data, SCHEDULE, TrainConfig(steps=2, batch_size=2), tmp_path / "run", device="cpu"))
    assert names(tmp_path) == []


def test_images_of_another_size_than_a_context_unet_s_are_told(tmp_path):
    run = train(small_context_unet(), small_digits(size=12), SCHEDULE, TrainConfig(steps=2), tmp_path / "run")
    with pytest.raises(UserError, match="takes images of 3×8×8 .channels, height, width., not 3×12×12"):
        next(run)
    assert names(tmp_path) == []


def test_a_run_that_goes_astray_before_its_first_checkpoint_leaves_no_folder(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        small_train(tmp_path / "run", lr=1e30, warmup=0, checkpoint_every=100)
    assert names(tmp_path) == []


NO_MPS_HERE = pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", pytest.param("mps", marks=NO_MPS_HERE)])
def test_a_device_that_is_not_here_is_told(tmp_path, device):
    with pytest.raises(UserError, match=f"'{device}'"):
        next(train(small_unet(), small_digits(), SCHEDULE, TrainConfig(steps=2), tmp_path, device=device))


# --- several processes ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes of a launcher saw, and the folder they worked in."""
    folder = tmp_path_factory.mktemp("two")
    write_npz(folder / "digits.npz")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(one_of_two, rank, port, folder) for rank in range(2)]
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0], [p.read_text() for p in folder.glob("*.err")]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)], folder


def test_two_processes_follow_the_path_of_one(two, tmp_path):
    seen, folder = two
    one = small_train(tmp_path)
    for process in seen:
        assert process["losses"] == pytest.approx([state.loss for state in one], abs=1e-5)
    assert seen[0]["losses"] == seen[1]["losses"]
    (_, ours), (_, theirs) = (read_tensors(out / "checkpoint.safetensors") for out in (tmp_path, folder / "run"))
    assert ours["checkpoint"]["facts"] == theirs["checkpoint"]["facts"]
    alone, shared = (load_denoiser(out / "model.safetensors").model.state_dict() for out in (tmp_path, folder / "run"))
    for name, tensor in alone.items():
        torch.testing.assert_close(shared[name], tensor, atol=1e-4, rtol=1e-3)
    assert steps_in_metrics(folder / "run") == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "what, sentence",
    [
        ("odd batch", "a batch of 3 does not divide among 2 processes"),
        ("no room", "no room for 'step_000003.png'"),  # which only the main process can have found out
        ("twice", "holds a training run already"),
    ],
)
def test_an_error_is_the_same_in_every_process(two, what, sentence):
    (first, second), _ = two
    assert sentence in first[what] and first[what] == second[what]


def test_one_process_talks(two):
    _, folder = two
    first, second = ((folder / f"{rank}.err").read_text() for rank in range(2))
    assert "2/2" in first and "loss" in first and "trained weights" in first
    assert not any(word in second for word in ("%", "step", "trained")), second


# --- digits -----------------------------------------------------------------------------------------------------------


def test_the_preview_is_a_sheet_of_all_classes(tmp_path):
    from PIL import Image

    model = with_random_weights(small_unet(channels=(8, 16))).train()
    write_preview(own_denoiser(model, {}), tmp_path / "samples" / "step_000003.png", columns=1)
    with Image.open(tmp_path / "samples" / "step_000003.png") as sheet:
        assert sheet.size == (2 * 29 + 1, 10 * 29 + 1)
    assert model.training


def test_previews_are_drawn_as_the_trained_model_will_be(tmp_path, monkeypatch):
    """With the facts that tell a sampler what the network gives, and which colours it starts from."""
    write_npz(tmp_path / "digits.npz")
    seen = []
    monkeypatch.setattr("dlcv_diffusion.digits.training.write_preview", lambda model, path: seen.append(model.facts))
    changes = {"steps": 2, "batch_size": 2, "prediction": "v", "device": "cpu"}
    list(train_digits("tiny", tmp_path / "digits.npz", tmp_path / "run", **changes))
    saved = load_denoiser(tmp_path / "run" / "model.safetensors").facts
    assert [facts["train"]["prediction"] for facts in (*seen, saved)] == ["v", "v"]
    assert seen[0].get("signal_leak") == saved.get("signal_leak")


def test_killed_on_the_command_line_it_goes_on_to_the_same_weights(tmp_path, monkeypatch, capsys):
    """The real thing: `python -m dlcv_diffusion train digits`, killed when its first checkpoint is there."""
    monkeypatch.chdir(tmp_path)
    write_npz("digits.npz")
    words = ["train", "digits", "--preset", "tiny", "--data", "digits.npz", "--batch-size", "2", "--device", "cpu"]
    words += ["--steps", "12", "--checkpoint-every", "2", "--preview-every", "100"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as many as here: the bits depend on it
    run = subprocess.Popen(
        [sys.executable, "-m", "dlcv_diffusion", *words, "--out", "killed"], env=environment, stderr=subprocess.PIPE
    )
    while not (tmp_path / "killed" / "checkpoint.safetensors").exists():
        assert run.poll() is None, run.stderr.read()
        time.sleep(0.005)
    run.kill()
    assert run.communicate()[1] == b""  # no bar where there is no terminal
    assert run.returncode == -signal.SIGKILL and 2 <= weights(tmp_path / "killed")[0] <= 12

    monkeypatch.setattr("dlcv_diffusion.digits.training.write_preview", lambda model, path: path)
    for folder in (["--out", "killed", "--resume"], ["--out", "whole"]):
        with pytest.raises(SystemExit) as end:
            command_line(*words, *folder)
        assert not end.value.code, capsys.readouterr().err
    assert "trained weights: whole/model.safetensors" in capsys.readouterr().out
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert steps_in_metrics(tmp_path / "killed") == list(range(1, 13))
    metadata = load_denoiser("whole/model.safetensors").facts
    assert (metadata["name"], metadata["data"], metadata["images"]) == ("digits-tiny", "digits.npz", 40)
    assert metadata["second_half"] == "second half"  # which an .npz does not tell


@pytest.mark.parametrize("start", [0, 10])
def test_a_half_alone_has_its_own_mean_colours(tmp_path, monkeypatch, start):
    monkeypatch.setattr("dlcv_diffusion.digits.training.write_preview", lambda model, path: path)
    images = small_digits(20, 28).images.numpy()
    np.savez(tmp_path / "digits.npz", images=images, labels=np.arange(20) % 10 + start)
    list(train_digits("tiny", tmp_path / "digits.npz", tmp_path / "run", steps=1, batch_size=2, device="cpu"))
    leak = load_denoiser(tmp_path / "run" / "model.safetensors").facts["signal_leak"]
    colours = SignalLeak(**leak).colours([start, start + 9], [0, 0])  # the same for whatever label
    assert torch.equal(colours[0], colours[1])
    images = torch.from_numpy(images)
    mean = images.double().mean((0, 2, 3)) / 127.5 - 1
    torch.testing.assert_close(torch.tensor(leak["mean"][0]).double(), mean, atol=1e-3, rtol=0)


def test_a_run_on_a_few_labels_sees_no_others(tmp_path, monkeypatch):
    monkeypatch.setattr("dlcv_diffusion.digits.training.write_preview", lambda model, path: path)
    options = {"steps": 1, "batch_size": 2, "device": "cpu", "data_options": {"labels": [10, 17]}}
    list(train_digits("tiny", "sample", tmp_path / "run", **options))
    facts = load_denoiser(tmp_path / "run" / "model.safetensors").facts
    assert facts["images"] == 320 and facts["labels"] == [10, 17] and facts["second_half"] == "street digits"
