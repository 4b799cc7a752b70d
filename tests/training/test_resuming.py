"""What a run may find when it begins or goes on: other runs, crafted checkpoints, more steps, a compiled past."""

import json
import math

import pytest
import safetensors.torch
import torch
from small_runs import contents, names, one_thread, small_train, small_train_states, write_npz  # noqa: F401 – for every test here

from dlcv_diffusion import UserError
from dlcv_diffusion import device as devices
from dlcv_diffusion.models.registry import read_header, read_tensors, write_tensors
from dlcv_diffusion.training import TrainConfig

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


def test_what_a_kill_before_the_first_checkpoint_left_is_begun_anew(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss,lr,images_per_second\n1,0.5,1e-3,9.0\n2,0.5,1e-3,9.0\n")
    refused(tmp_path, "holds a training run already")
    assert [state.step for state in small_train(tmp_path, resume=True)] == [1, 2, 3, 4, 5, 6]


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
    """Without the settings that came later, and with the average's counter."""
    files, (tensors, header) = sound
    train = header["checkpoint"]["facts"]["train"]
    older = {name: value for name, value in train.items() if name not in ("compile", "noise_levels", "decay")}
    write_tensors(
        tmp_path / CHECKPOINT,
        {**tensors, "ema.n_averaged": torch.tensor(4)},
        with_facts(train=older)(tensors, header)[1],
    )
    small_train(tmp_path, resume=True)
    small_train(tmp_path / "whole")
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
