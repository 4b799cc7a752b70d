"""`dlcv …` on real files: what it writes, what it says, and one sentence with exit code 2 for bad input."""

import importlib
import os
import re
import subprocess
import sys
import typing
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import (
    contents,
    full_disk,
    names,
    one_thread,  # noqa: F401 – for every test here
    small_context_unet,
    small_unet,
    with_random_weights,
    write_npz,
)

from dlcv_diffusion import NoiseSchedule, UserError, __version__, cli
from dlcv_diffusion.denoiser import PREDICTIONS, load_denoiser
from dlcv_diffusion.digits.recipes import DIGITS
from dlcv_diffusion.digits.sampling import SamplingConfig
from dlcv_diffusion.emoji.clip_training import CLIPS
from dlcv_diffusion.faces.recipes import FACES
from dlcv_diffusion.faces.sampling import PRESETS, FaceSampling
from dlcv_diffusion.models import save_model
from dlcv_diffusion.training import TrainConfig

GROUPS = ["", "train", "sample", "grade"]
VERBS = [*GROUPS, "figures", "export", "convert", "info", "noise", "zero-shot", "train clip"]
VERBS += ["personalise", "personalise train", "personalise merge"]
VERBS += [f"{group} {what}" for group in GROUPS[1:] for what in ("digits", "faces")]


@pytest.fixture
def weights(tmp_path):
    """tiny.safetensors, the weights of a network that draws no digits, but quickly."""
    model = with_random_weights(small_unet(channels=(8, 16), timesteps=20))
    save_model(model, tmp_path / "tiny.safetensors", {"name": "tiny", "schedule": NoiseSchedule.linear(20).config})
    return "--weights tiny.safetensors --device cpu"


# --- what it says -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(dlcv, verb):
    code, out, _ = dlcv(f"{verb} --help")
    assert code == 0 and f"Usage: dlcv {verb}".strip() in out
    examples = out.split("Examples:\n")[1]
    assert "..." not in out.partition("Commands:")[2]  # nothing of what a verb does is cut off
    assert all(re.match(r"  +(dlcv|accelerate launch|torchrun) ", line) for line in examples.splitlines() if line)


def test_the_verbs_of_train_pass_every_option_of_a_run_on(dlcv, monkeypatch):
    got = {}
    monkeypatch.setattr(cli.train, "show_training", lambda begin, *args, **kwargs: begin())
    modules = {"digits": "digits.training", "faces": "faces.training"}
    modules |= {name: f"emoji.{name}_training" for name in ("clip", "autoencoder", "text_to_image")}
    for name, module in modules.items():
        record = lambda *args, name=name, **run: got.update({name: run})  # noqa: E731
        monkeypatch.setattr(importlib.import_module(f"dlcv_diffusion.{module}"), f"train_{name}", record)
        given = "--resume --steps 3 --batch-size 4 --lr 0.5 --seed 6 --precision auto --compile --device cpu"
        data = "--data pictures" if name == "faces" else ""
        code, _, wrong = dlcv(f"train {name.replace('_', '-')} {data} {given} --checkpoint-every 7 --preview-every 8")
        assert code == 0, wrong
    wanted = {"resume": True, "steps": 3, "batch_size": 4, "lr": 0.5, "seed": 6, "precision": "auto", "compile": True}
    wanted |= {"device": "cpu", "checkpoint_every": 7, "preview_every": 8}
    assert all(run | wanted == run for run in got.values()) and len(got) == 5


@pytest.mark.parametrize("verb", VERBS)
def test_what_a_verb_takes_is_named_in_one_style(dlcv, verb):
    usage = " ".join(dlcv(f"{verb} --help")[1].partition("\n\n")[0].split())
    assert re.fullmatch(rf"Usage: dlcv {verb} ?\[OPTIONS\]( [{{\[]?[A-Z_]+[}}\]]?( ?\[ARGS\])?(\.\.\.)?)*", usage), (
        usage
    )


@pytest.mark.parametrize("verb", [*GROUPS, "personalise"])
def test_without_a_verb_it_helps(dlcv, verb):
    _, out, err = dlcv(verb)
    assert "Usage:" in out + err


def test_it_runs_as_a_module_too(tmp_path):
    words = [sys.executable, "-m", "dlcv_diffusion", "sample", "digits", "out", "--weights", "none.safetensors"]
    run = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("dlcv: no weights at 'none.safetensors'") and run.stderr.count("\n") == 1
    assert names(tmp_path) == []


def test_info_says_what_is_here(dlcv):
    code, out, err = dlcv("info")
    assert (code, err) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert facts["dlcv_diffusion"] == __version__ and facts["torch"] == torch.__version__.split("+")[0]
    assert "CPU threads" in facts["device"]
    assert re.search(r"weights +digits: UNet, \d\.\d MB", out)
    assert re.search(r"data +embedded sample, train: [\d,]+ digits", out)


def test_info_helps_where_something_is_broken(dlcv, tmp_path, monkeypatch):
    monkeypatch.setattr("dlcv_diffusion.models.registry.ASSETS", tmp_path)
    monkeypatch.setattr("dlcv_diffusion.digits.data.SAMPLE", tmp_path / "none.webp")
    module = importlib.import_module("dlcv_diffusion.cli.info")  # by its path it would be the command of this name
    monkeypatch.setattr(module, "PACKAGES", "torch no-such-package")
    (tmp_path / "digits.safetensors").write_bytes(b"short")
    (tmp_path / ".half.partial.safetensors").write_bytes(b"short")
    code, out, _ = dlcv("info")
    assert code == 0 and "half" not in out
    assert re.search("no-such-package +not installed", out)
    assert re.search("weights +digits: not readable: .*not a whole safetensors file", out)
    assert re.search("data +embedded sample, train: not readable: ", out)


def choices(verb, option):
    """What may be said to an option, by its declaration."""
    command = next(c for c in getattr(cli, verb.split()[0]).app.registered_commands if c.name == verb.split()[1])
    hint = typing.get_type_hints(command.callback)[option]
    literal = next((part for part in typing.get_args(hint) if typing.get_origin(part) is typing.Literal), hint)
    return list(typing.get_args(literal))


def fields(kind, name):
    return list(typing.get_args(typing.get_type_hints(kind)[name]))


def test_the_choices_are_the_library_s():
    """They are said again, since the library's own would bring torch to `dlcv --help`."""
    assert choices("train digits", "preset") == list(DIGITS) and choices("train faces", "preset") == list(FACES)
    assert choices("train clip", "preset") == list(CLIPS)
    assert choices("sample faces", "preset") == list(PRESETS)
    assert choices("sample digits", "sampler") == fields(SamplingConfig, "sampler")
    assert choices("sample digits", "spacing") == fields(SamplingConfig, "spacing")
    for name in ("spacing", "final_alpha", "save"):
        assert choices("sample faces", name) == fields(FaceSampling, name)
    assert choices("train faces", "prediction") == list(PREDICTIONS)
    for verb in ("digits", "faces"):
        for precision in choices(f"train {verb}", "precision"):
            assert TrainConfig(steps=1, precision=precision).precision == precision


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_sample_digits_writes_the_course_s_files(dlcv, weights, tmp_path):
    code, out, err = dlcv(f"sample digits out {weights} --count 2 --steps 3")
    assert (code, err) == (0, "") and out == "40 images: out/mnistm and out/svhn\n"
    expected = [f"{half}/{digit}_{k:03d}.png" for half in ("mnistm", "svhn") for digit in range(10) for k in (1, 2)]
    files = contents(tmp_path / "out")
    assert sorted(files) == expected
    for name in expected:
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.size, image.mode, image.format) == ((28, 28), "RGB", "PNG")
    assert len(set(files.values())) == 40

    dlcv(f"sample digits again {weights} --count 2 --steps 3")
    assert contents(tmp_path / "again") == files
    dlcv(f"sample digits other {weights} --count 2 --steps 3 --seed 7")
    assert not set(contents(tmp_path / "other").values()) & set(files.values())


def test_another_batch_size_gives_the_same_images(dlcv, weights, tmp_path):
    for batch_size in (1, 7, 100):
        dlcv(f"sample digits {batch_size} {weights} --count 1 --steps 3 --batch-size {batch_size}")
    for name in contents(tmp_path / "100"):
        images = [np.asarray(Image.open(tmp_path / folder / name)).astype(int) for folder in ("1", "7", "100")]
        assert max(abs(image - images[0]).max() for image in images) <= 2  # a sum in another order, now and then


@pytest.mark.parametrize("options", ["--sampler ddpm", "--sampler ddim --w 0", "--interval 0.2 3 --no-signal-leak"])
def test_samplers_and_guidance_are_options(dlcv, weights, tmp_path, options):
    code, _, err = dlcv(f"sample digits out {weights} --count 1 {options}")
    assert (code, err) == (0, "") and len(contents(tmp_path / "out")) == 20


def test_figures_are_written(dlcv, weights, tmp_path):
    code, out, err = dlcv(f"figures --only digits --out figures {weights}")
    files = [f"digits_{name}.png" for name in ("mnistm_grid", "second_half_grid", "overview", "reverse_strip")]
    assert (code, err) == (0, "") and out.splitlines() == [f"figures/{name}" for name in files]
    assert names(tmp_path / "figures") == sorted(files)


def test_convert_writes_weights_that_sample(dlcv, tmp_path):
    model = with_random_weights(small_context_unet(height=28, width=28))
    torch.save(model.state_dict(), tmp_path / "report.pt")
    code, out, err = dlcv("convert report.pt new/report.safetensors --timesteps 20")
    count = sum(p.numel() for p in model.parameters())
    assert (code, err, out) == (0, "", f"new/report.safetensors: ContextUnet with {count:,} parameters\n")
    assert load_denoiser("new/report.safetensors").schedule.T == 20
    code, *_ = dlcv("sample digits out --weights new/report.safetensors --count 1 --steps 2 --device cpu")
    assert code == 0 and len(contents(tmp_path / "out")) == 20


def test_train_digits_writes_weights_that_sample(dlcv, tmp_path):
    write_npz(tmp_path / "digits.npz")
    words = "train digits --preset tiny --data digits.npz --steps 2 --batch-size 2 --device cpu --out run"
    code, out, err = dlcv(words)
    assert (code, err) == (0, "") and out.endswith("trained weights: run/model.safetensors\n")
    files = ["checkpoint.safetensors", "metrics.csv", "model.safetensors", "samples/step_000002.png"]
    assert sorted(contents(tmp_path / "run")) == files
    before = contents(tmp_path / "run")
    code, _, err = dlcv(words)
    assert code == 2 and "'run' holds a training run already; add --resume" in err
    assert contents(tmp_path / "run") == before
    code, *_ = dlcv("sample digits out --weights run/model.safetensors --count 1 --steps 2 --device cpu")
    assert code == 0


# --- bad input --------------------------------------------------------------------------------------------------------

TRAIN = "train digits --preset tiny --data digits.npz --device cpu --out run"
BAD = {
    # sample
    "sample digits out --weights none.safetensors": "no weights at 'none.safetensors'",
    "sample digits out --weights digit": "no weights at 'digit'; give a .safetensors file or one of: digits",
    "sample digits out --weights digits_judge": "'digits_judge' is shipped with the package, but no model",
    "sample digits out --weights short.safetensors": "not a whole safetensors file",
    "sample digits out --weights words.txt": "not a whole safetensors file",
    "sample digits out --weights folder": "'folder' holds no network of diffusers",
    "sample digits out --weights other.safetensors": r"draw images \(3, 8, 8\)",
    "sample digits out --weights ten.safetensors": "label 10 is out of range; labels run from 0 to 9|out of range",
    "sample digits words.txt WEIGHTS": "cannot write 'words.txt",
    "sample digits words.txt/out WEIGHTS": "cannot write 'words.txt/out",
    "sample digits out WEIGHTS --sampler euler": "'euler' is not one of 'dpm_solver', 'ddim', 'ddpm'",
    "sample digits out WEIGHTS --device cuda:99": "cannot use device 'cuda:99'",
    "sample digits out WEIGHTS --device gpu": "cannot use device 'gpu'; this machine has cpu",
    "sample digits out WEIGHTS --steps -3": "invalid value for '--steps'",
    "sample digits out WEIGHTS --steps 21": "cannot take 21 steps",
    "sample digits out WEIGHTS --count 0": "invalid value for '--count'",
    "sample digits out WEIGHTS --seed -1": "invalid value for '--seed'",
    "sample digits out WEIGHTS --seed 4294967295": "seed 4294967",
    "sample digits out WEIGHTS --batch-size 0": "invalid value for '--batch-size'",
    "sample digits out WEIGHTS --w nan": "w is nan; it should be",
    "sample digits out WEIGHTS --w two": "invalid value for '--w'",
    "sample digits out WEIGHTS --interval 7 8": "no timestep has a noise level in",
    "sample digits": "missing argument",
    "sample emoji out": "no such command",
    # figures
    "figures --only digits --out words.txt WEIGHTS": "cannot write 'words.txt",
    "sample digits out WEIGHTS --w 1e39": "w is 1e.39; it should be less than or equal to 1000",
    "sample digits out WEIGHTS --count 100000000": "invalid value for '--count'",
    "sample digits out WEIGHTS --spacing linspace": "'linspace' is not one of 'trailing', 'uniform'",
    "figures --only digits --face-weights small.safetensors": "--face-weights is for faces and does nothing for digits",
    "figures --only faces --weights tiny.safetensors": "--weights is for digits and does nothing for faces",
    "convert report.pt report.pt": "'report.pt' is the file to be read; give another name",
    "noise new --size 1000000": "invalid value for '--size'",
    "figures --only digits --clip small.safetensors": "--clip is for zero-shot and does nothing for digits",
    "figures --only zero-shot --weights tiny.safetensors": "--weights is for digits and does nothing for zero-shot",
    "figures --only zero-shot --pictures folder": "no id2label.json in 'folder'",
    "zero-shot emoji --keep-underscores": "does nothing for the emoji world",
    "figures --only cats": "'cats' is not one of 'digits', 'faces', 'zero-shot'",
    "figures --face-weights none.safetensors": "no weights at",
    "figures --out figures --weights none.safetensors": "no weights at",
    # convert
    "convert none.pt new.safetensors": "'none.pt' is not there",
    "convert folder new.safetensors": "'folder' is not a file",
    "convert words.txt new.safetensors": "not a whole .pt file of plain tensors",
    "convert numbers.pt new.safetensors": "holds no state dict",
    "convert unet.pt new.safetensors": "not a ContextUnet's",
    "convert report.pt words.txt/new.safetensors": "cannot write 'words.txt/new.safetensors'",
    "convert report.pt folder": "cannot write 'folder': Is a directory",
    "convert report.pt new.safetensors --timesteps 0": "invalid value for '--timesteps'",
    # grade
    "grade digits none": "no such folder: 'none'",
    "grade digits folder --count 0": "invalid value for '--count'",
    # train
    "train digits --data none --out run": "'none' is not there; give hw2_data",
    "train digits --data words.txt --out run": "words.txt",
    "train digits --data labels.npz --out run": r"the label \[25\]; labels must be",
    "train digits --root folder --out run": r"root \(--root\) does nothing for the data 'sample'",
    "train digits --photos folder --out run": r"photos \(--photos\) does nothing for the data 'sample'",
    "train digits --svhn --out run": r"give root \(--root\)",
    f"{TRAIN} --preset huge": "'huge' is not one of 'report', 'small', 'guided', 'tiny'",
    f"{TRAIN} --precision fp8": "'fp8' is not one of 'no', 'bf16', 'fp16'",
    f"{TRAIN} --device cuda:99": "'cuda:99'",
    f"{TRAIN} --device gpu": "'gpu'",
    f"{TRAIN} --lr nan": "invalid value for '--lr'",
    f"{TRAIN} --lr -1": "lr is -1.0; it should be greater than 0",
    f"{TRAIN} --steps 0": "invalid value for '--steps'",
    f"{TRAIN} --batch-size -4": "invalid value for '--batch-size'",
    f"{TRAIN} --out words.txt": "cannot write",
    f"{TRAIN} --out words.txt/run": "cannot write",
    f"{TRAIN} --nonsense": "no such option",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(dlcv, weights, tmp_path, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "words.txt").write_text("not what anybody expects here, but long enough to be read as something")
    (tmp_path / "short.safetensors").write_bytes((tmp_path / "tiny.safetensors").read_bytes()[:5000])
    write_npz(tmp_path / "digits.npz")
    write_npz(tmp_path / "labels.npz", label=25)
    save_model(small_context_unet(), tmp_path / "other.safetensors")
    save_model(small_unet(num_classes=10, timesteps=20), tmp_path / "ten.safetensors")
    torch.save(small_context_unet().state_dict(), tmp_path / "report.pt")
    torch.save(small_unet().state_dict(), tmp_path / "unet.pt")
    torch.save({"numbers": [1, 2, 3]}, tmp_path / "numbers.pt")
    before, there = contents(tmp_path), names(tmp_path)

    code, out, err = dlcv(words.replace("WEIGHTS", weights))
    assert code == 2 and out == ""
    assert re.search(BAD[words], err), err
    assert err.startswith("dlcv: ") and err.count("\n") == 1
    assert contents(tmp_path) == before
    assert names(tmp_path) == there


@pytest.mark.parametrize(
    "words, room",
    [
        ("sample digits new/out WEIGHTS --count 1 --steps 2", 500),
        ("convert report.pt new/report.safetensors", 20_000),
    ],
)
def test_a_full_disk_is_one_sentence_and_leaves_nothing(dlcv, weights, tmp_path, words, room):
    torch.save(small_context_unet().state_dict(), tmp_path / "report.pt")
    before = contents(tmp_path)
    with full_disk(room):
        code, out, err = dlcv(words.replace("WEIGHTS", weights))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"dlcv: cannot write '.*': File too large; choose a folder .* with free space\n", err)
    assert contents(tmp_path) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_the_standard_output_is_one_sentence(tmp_path):
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "dlcv_diffusion", "info"]
        run = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr == "dlcv: cannot write to the standard output: No space left on device; redirect it elsewhere\n"


@pytest.mark.parametrize(
    "error, code, said",
    [
        (MemoryError(), 2, "there is not enough memory; choose a smaller size, count or batch size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), 2, "there is not enough memory; "),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), 2, "there is not enough memory; "),
        (ConnectionError("no route to host"), 2, "no route to host; give another file or folder, or fix this one"),
        (PermissionError(13, "Permission denied", "a\udcff"), 2, r"'a\udcff': Permission denied; give another file"),
        (UserError("two\nlines"), 2, "two"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_one_net_for_what_the_system_says(dlcv, monkeypatch, error, code, said):
    def fail():
        warnings.warn("a library's", UserWarning, stacklevel=1)
        raise error

    monkeypatch.setattr("dlcv_diffusion.cli.info.describe_installation", fail)
    ended, out, err = dlcv("info")
    assert (ended, out) == (code, "") and err.startswith(f"dlcv: {said}") and err.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), RecursionError(), ZeroDivisionError()])
def test_a_fault_of_ours_keeps_its_traceback(dlcv, monkeypatch, error):
    monkeypatch.setattr("dlcv_diffusion.cli.info.describe_installation", lambda: (_ for _ in ()).throw(error))
    monkeypatch.setattr("sys.argv", ["dlcv", "info"])
    with pytest.raises(type(error)):
        cli.main()


def test_names_that_are_not_utf_8_are_printed(tmp_path):
    words = [sys.executable, "-m", "dlcv_diffusion", "noise", b"caf\xe9", "--seeds", "0", "--size", "4"]
    run = subprocess.run(words, capture_output=True, cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (run.returncode, run.stderr) == (0, b"") and run.stdout == b"1 noise of 3\\xd74\\xd74: caf\\udce9/00.pt\n"


def test_only_the_first_process_of_a_machine_speaks(dlcv, monkeypatch):
    waited = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert dlcv("train digits --data none") == (2, "", "")
    assert waited == [10]  # so that the launcher does not stop the one that speaks
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert dlcv("train digits --data none")[2].startswith("dlcv: 'none' is not there")
