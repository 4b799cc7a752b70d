"""What a run may find when it begins or goes on: other runs, crafted checkpoints, more steps, a compiled past."""

import json
import math
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from small_runs import (
    SCHEDULE,
    contents,
    names,
    one_thread,  # noqa: F401 – for every test here
    small_digits,
    small_network,
    small_train,
    small_train_states,
    write_npz,
)

from dlcv_diffusion import UserError
from dlcv_diffusion import device as devices
from dlcv_diffusion.digits.training import train_digits
from dlcv_diffusion.faces.training import train_faces
from dlcv_diffusion.images.arrays import ImageArrays
from dlcv_diffusion.models.registry import read_header, read_tensors, write_tensors
from dlcv_diffusion.training import DiffusionObjective, TrainConfig, train

CHECKPOINT = "checkpoint.safetensors"


def weights(out):
    return {name: value.numpy().tobytes() for name, value in read_tensors(out / CHECKPOINT)[0].items()}


def left(out, until=5, **settings):
    """A run that was left after its checkpoint of step 4."""
    for state in small_train_states(out, **settings):
        if state.step == until:
            break


def refused(out, said, **settings):
    """The run is refused in one sentence, and its folder stays as it was."""
    before = contents(out)
    with pytest.raises(UserError, match=said) as error:
        small_train(out, **settings)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert contents(out) == before


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [(), ("model.safetensors",), ("metrics.csv",)])
@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_without_its_checkpoint_is_not_overwritten(tmp_path, gone, resume):
    small_train(tmp_path)
    for name in (CHECKPOINT, *gone):
        (tmp_path / name).unlink()
    refused(tmp_path, "holds a training run already, without a checkpoint to go on from", resume=resume)


def test_a_link_to_a_checkpoint_that_is_gone_is_told(tmp_path):
    (tmp_path / CHECKPOINT).symlink_to(tmp_path / "elsewhere")
    for resume in (True, False):
        refused(tmp_path, "is a link to nothing", resume=resume)
    assert names(tmp_path) == [CHECKPOINT]


@pytest.mark.parametrize("resume", [True, False])
def test_a_new_or_an_empty_folder_may_begin(tmp_path, resume):
    for folder in ("new", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert len(small_train(tmp_path / folder, resume=resume)) == 6


@pytest.mark.parametrize("resume", [True, False])
def test_metrics_without_a_checkpoint_are_not_overwritten(tmp_path, resume):
    (tmp_path / "metrics.csv").write_text("step,loss,lr,images_per_second\n1,0.5,1e-3,9.0\n")
    refused(tmp_path, "holds a training run already, without a checkpoint to go on from", resume=resume)


def test_nothing_is_there_before_the_first_checkpoint(tmp_path):
    left(tmp_path / "run", until=3, checkpoint_every=4)
    assert names(tmp_path) == []


def test_metrics_lost_after_a_checkpoint_come_from_it(tmp_path):
    left(tmp_path, until=3)
    rows = (tmp_path / "metrics.csv").read_text()
    (tmp_path / "metrics.csv").unlink()
    left(tmp_path, until=3, resume=True)
    assert (tmp_path / "metrics.csv").read_text() == rows and rows.count("\n") == 3


def test_a_model_lost_after_the_last_checkpoint_is_written_again(tmp_path):
    small_train(tmp_path)
    whole = contents(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert small_train(tmp_path, seed=3, resume=True) == []
    assert contents(tmp_path) == whole


def test_what_others_do_below_the_folder_stays(tmp_path):
    (tmp_path / "drawn" / ".partial-abcd1234").mkdir(parents=True)
    (tmp_path / ".partial-abcd1234").mkdir()
    small_train(tmp_path)
    assert "drawn/.partial-abcd1234" in names(tmp_path) and ".partial-abcd1234" not in names(tmp_path)


@pytest.mark.parametrize(
    "metadata, said",
    [
        ({"where": Path("runs")}, "kept as JSON .*PosixPath is not JSON serializable.; give other metadata"),
        ({"name": 7}, "name is 7; it should be a valid string"),
    ],
)
def test_a_run_that_could_not_be_saved_is_refused_before_its_first_step(tmp_path, monkeypatch, metadata, said):
    monkeypatch.setattr("dlcv_diffusion.training.objective.noised_batch", None)
    refused(tmp_path, said, metadata=metadata)


class Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)


@pytest.mark.parametrize("channels, said", [(3, "cannot save a Own"), (None, "a Own does not say what it takes")])
def test_a_network_of_one_s_own_is_told_before_the_first_step(tmp_path, channels, said):
    network = Own()
    if channels:
        network.in_channels = channels
    with pytest.raises(UserError, match=said):
        next(train(network, small_digits(), SCHEDULE, TrainConfig(steps=2), tmp_path / "run", device="cpu"))
    assert names(tmp_path) == []


@pytest.mark.parametrize("part", ["images", "labels"])
def test_other_data_are_refused_and_older_checkpoints_go_on(tmp_path, part):
    def go(**options):
        data = small_digits()
        if options:
            getattr(data, part)[0] += 1
        config = TrainConfig(steps=2, batch_size=4)
        return list(train(small_network("UNet"), data, SCHEDULE, config, tmp_path, device="cpu", **options))

    go()
    with pytest.raises(UserError, match="data_hash: [0-9a-f]{16} then, [0-9a-f]{16} now"):
        go(resume=True)
    tensors, header = read_tensors(tmp_path / CHECKPOINT)
    del header["checkpoint"]["facts"]["data_hash"], header["checkpoint"]["rows"]
    write_tensors(tmp_path / CHECKPOINT, tensors, header)
    assert go(resume=True) == []


def test_no_batch_is_drawn_beyond_the_last(tmp_path, monkeypatch):
    drawn, batch = [], DiffusionObjective.batch
    monkeypatch.setattr(DiffusionObjective, "batch", lambda self, step: drawn.append(step) or batch(self, step))
    small_train(tmp_path)
    small_train(tmp_path, resume=True)
    assert drawn == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("options, said", [({}, "holds a training run already"), ({"device": "gpu"}, "device 'gpu'")])
def test_folder_and_device_are_looked_at_before_the_data(tmp_path, options, said):
    small_train(tmp_path)
    for recipe in (train_digits, train_faces):
        with pytest.raises(UserError, match=said):
            recipe(data="none.npz", out=tmp_path, **options)


@pytest.mark.parametrize("name", ["a" * 300, "locked/run"])
def test_a_folder_that_cannot_be_made_is_told(tmp_path, name):
    (tmp_path / "locked").mkdir(mode=0)
    if "locked" in name and os.access(tmp_path / "locked", os.R_OK):
        pytest.skip("root may write everywhere")
    data = ImageArrays(small_digits().images, small_digits().labels)
    with pytest.raises(UserError, match="cannot write"):
        list(train_faces(data, "tiny", tmp_path / name, steps=1, device="cpu"))


def test_a_failure_leaves_no_folders_and_takes_no_others(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="the loss became"):
        small_train(tmp_path / "mine" / "a" / "b" / "run", lr=1e30, warmup=0, checkpoint_every=100)
    assert names(tmp_path) == ["mine"]
    (tmp_path / "mine" / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="the loss became"):
        small_train(tmp_path / "mine", lr=1e30, warmup=0, checkpoint_every=100)
    assert "mine/note.txt" in names(tmp_path)


# --- crafted checkpoints ----------------------------------------------------------------------------------------------


def with_header(**changes):
    return lambda tensors, header: (tensors, {**header, "checkpoint": {**header["checkpoint"], **changes}})


def with_facts(**changes):
    return lambda tensors, header: with_header(facts={**header["checkpoint"]["facts"], **changes})(tensors, header)


def with_settings(**changes):
    return lambda tensors, header: with_facts(train={**header["checkpoint"]["facts"]["train"], **changes})(
        tensors, header
    )


def with_tensor(name, change):
    return lambda tensors, header: ({**tensors, name: change(tensors[name])}, header)


def without(part):
    return lambda tensors, header: ({k: v for k, v in tensors.items() if part not in k}, header)


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


CRAFTED = {
    "a negative step": with_header(step=-3),
    "no step yet": with_header(step=0),
    "a huge step": with_header(step=10**30),
    "a step beyond the end": with_header(step=7),
    "a step and a half": with_header(step=4.5),
    "a step that is text": with_header(step="4"),
    "a step that is true": with_header(step=True),
    "no number of seconds": with_header(seconds=math.nan),
    "negative seconds": with_header(seconds=-1.0),
    "facts that are a list": with_header(facts=[1, 2]),
    "no facts": with_header(facts={}),
    "something more": with_header(wings=2),
    "settings that are text": with_facts(train="steps=6"),
    "settings nested deeply": with_facts(train=nested(150)),
    "facts nested deeply": with_facts(name=nested(150)),
    "facts that are long": with_facts(name="ü\n" * 100_000),
    "steps without end": with_settings(steps=10**400),
    "an unknown setting": with_settings(wings=2),
    "a setting of the wrong type": with_settings(lr=[1]),
    "a checkpoint that is a list": lambda tensors, header: (tensors, {**header, "checkpoint": [4, 0.5]}),
    "a checkpoint that is nothing": lambda tensors, header: (tensors, {**header, "checkpoint": None}),
    "no optimiser": without("optimizer."),
    "half an optimiser": without("exp_avg_sq"),
    "an optimiser of fewer weights": without("optimizer.7."),
    "no average": without("ema."),
    "a weight less": without("model.stem.bias"),
    "a weight more": lambda tensors, header: ({**tensors, "model.wings": torch.zeros(2)}, header),
    "optimiser's names that are none": lambda tensors, header: ({**tensors, "optimizer.x": torch.zeros(2)}, header),
    "a weight of another shape": with_tensor("model.stem.bias", lambda weight: weight[:3]),
    "moments of another shape": with_tensor("optimizer.0.exp_avg", lambda moment: moment.flatten()),
    "whole numbers": with_tensor("model.stem.bias", lambda weight: weight.to(torch.int64)),
    "half precision": with_tensor("ema.module.stem.bias", torch.Tensor.half),
    "NaN": with_tensor("model.stem.bias", lambda weight: weight * math.nan),
    "an infinite average": with_tensor("ema.module.stem.bias", lambda weight: weight + math.inf),
    "moments that are NaN": with_tensor("optimizer.0.exp_avg", lambda moment: moment * math.nan),
    "negative squares": with_tensor("optimizer.0.exp_avg_sq", lambda moment: moment - 1),
    "a negative step of Adam": with_tensor("optimizer.0.step", lambda step: step * 0 - 1),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run that was left after its fourth step: `files`, and its checkpoint's tensors and header."""
    out = tmp_path_factory.mktemp("sound")
    torch.set_num_threads(1)
    left(out)
    return contents(out), read_tensors(out / CHECKPOINT)


@pytest.mark.parametrize("kind", CRAFTED)
def test_a_crafted_checkpoint_is_told_and_left_alone(tmp_path, sound, kind):
    files, (tensors, header) = sound
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    tensors, header = CRAFTED[kind](tensors, header)
    write_tensors(tmp_path / CHECKPOINT, tensors, header)
    refused(tmp_path, "checkpoint|started with other settings|more than 6", resume=True)


@pytest.mark.parametrize("depth", [900, 100_000])
def test_a_header_nested_without_end_is_told(tmp_path, sound, depth):
    files, (tensors, header) = sound
    text = json.dumps(header).replace('"facts": {', f'"facts": {{"deep": {"[" * depth}{"]" * depth}, ')
    safetensors.torch.save_file(tensors, tmp_path / CHECKPOINT, {"dlcv_diffusion": text})
    refused(tmp_path, "checkpoint|started with other settings", resume=True)


def test_a_sound_one_goes_on(tmp_path, sound):
    files, _ = sound
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert [state.step for state in small_train(tmp_path, resume=True)] == [5, 6]


def test_a_checkpoint_of_an_older_version_goes_on(tmp_path, sound):
    """Without the settings that came later, with the average's counter, and the shape by its former name."""
    files, (tensors, header) = sound
    train = header["checkpoint"]["facts"]["train"]
    facts = {"metadata": {"shape": [3, 8, 8]}}
    older = {name: value for name, value in train.items() if name not in ("compile", "noise_levels", "decay")}
    write_tensors(
        tmp_path / CHECKPOINT,
        {**tensors, "ema.n_averaged": torch.tensor(4)},
        with_facts(train=older, image_size=[3, 8, 8])(tensors, header)[1],
    )
    small_train(tmp_path, **facts, resume=True)
    small_train(tmp_path / "whole", **facts)
    assert weights(tmp_path) == weights(tmp_path / "whole")


# --- settings that may change, and those that say what was used -------------------------------------------------------


@pytest.mark.parametrize("steps", [6, 12])
def test_steps_may_change_while_the_rate_is_at_its_peak(tmp_path, steps):
    """The cosine begins at step 4.5 of 9, 3 of 6 and 6 of 12; the run was left after step 2."""
    left(tmp_path / "changed", until=3, steps=9, decay=0.5)
    states = small_train(tmp_path / "changed", steps=steps, decay=0.5, resume=True)
    assert [state.step for state in states] == list(range(3, steps + 1))
    small_train(tmp_path / "whole", steps=steps, decay=0.5)
    assert weights(tmp_path / "changed") == weights(tmp_path / "whole")
    assert read_header(tmp_path / "changed" / CHECKPOINT)["checkpoint"]["facts"]["train"]["steps"] == steps


def test_steps_may_not_change_once_it_falls(tmp_path):
    small_train(tmp_path, steps=6, decay=0.5)
    refused(tmp_path, "steps: 6 then, 20 now", steps=20, decay=0.5, resume=True)
    refused(tmp_path, "lr: 0.001 then, 0.002 now", lr=2e-3, steps=6, decay=0.5, resume=True)


@pytest.mark.parametrize("quick, precision", [(True, "bf16"), (False, "no")])
def test_auto_stands_in_the_checkpoint_as_what_it_came_to(tmp_path, monkeypatch, quick, precision):
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: quick)
    small_train(tmp_path / "auto", precision="auto")
    small_train(tmp_path / "named", precision=precision)
    facts = read_header(tmp_path / "auto" / CHECKPOINT)["checkpoint"]["facts"]
    assert facts["train"]["precision"] == precision
    assert weights(tmp_path / "auto") == weights(tmp_path / "named")
    assert small_train(tmp_path / "auto", precision=precision, resume=True) == []


def test_a_run_may_go_on_compiled_and_back(tmp_path, monkeypatch):
    """The compiler is played: what matters is that it is asked, and that names and settings stay those of the model."""
    asked = []

    class Compiled(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self._orig_mod = model

        def forward(self, *inputs):
            return self._orig_mod(*inputs)

    def compile(model):
        asked.append(model)
        return Compiled(model) if isinstance(model, torch.nn.Module) else model

    monkeypatch.setattr(torch, "compile", compile)
    small_train(tmp_path / "whole")
    assert asked == []
    left(tmp_path / "run", until=3, compile=True)
    assert len(asked) == 2
    left(tmp_path / "run", until=5, compile=False, resume=True)
    small_train(tmp_path / "run", compile=True, resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert read_header(tmp_path / "run" / "model.safetensors")["metadata"]["train"]["compile"] is True


def test_a_machine_that_cannot_compile_is_told(tmp_path, monkeypatch):
    def compile(function):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found in g++\nand much more")

    monkeypatch.setattr(torch, "compile", compile)
    with pytest.raises(
        UserError, match="cannot compile here .*No working C.. compiler found in g..\\); install"
    ) as error:
        small_train(tmp_path / "run", compile=True)
    assert "\n" not in str(error.value) and names(tmp_path) == []


def test_numbers_without_end_are_no_settings():
    for setting in ({"steps": 10**400}, {"batch_size": 10**9}, {"lr": math.inf}, {"clip_grad": math.nan}):
        with pytest.raises(UserError, match=next(iter(setting))):
            TrainConfig(**{"steps": 6, **setting})


def test_the_command_line_compiles_and_chooses_the_precision(tmp_path, dlcv, monkeypatch):
    asked = []
    monkeypatch.setattr("dlcv_diffusion.digits.training.write_preview", lambda model, path: path)
    monkeypatch.setattr(torch, "compile", lambda model: asked.append(model) or model)
    monkeypatch.setattr(devices, "has_fast_bf16", lambda device: True)
    write_npz(tmp_path / "digits.npz")
    words = "train digits --preset tiny --data digits.npz --batch-size 2 --device cpu --out run --precision auto"
    assert dlcv(f"{words} --steps 1 --compile")[0] == 0 and len(asked) == 2
    assert read_header(tmp_path / "run" / CHECKPOINT)["checkpoint"]["facts"]["train"]["precision"] == "bf16"
    code, _, said = dlcv(f"{words} --steps 1 --no-compile")
    assert code == 2 and said.startswith("dlcv: 'run' holds a training run already; add --resume to go on with it")
    assert dlcv(f"{words} --steps 1 --no-compile --resume")[0] == 0 and len(asked) == 2
