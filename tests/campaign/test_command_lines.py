"""Hundreds of bad command lines, in one process: exit code 2, one sentence, nothing left and nothing overwritten.

They are made from the verbs' own options: whatever option is added is tried here too.
"""

import os
import random
import shutil
import time
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_faces import SIZE, write_course, write_own, write_pictures, zipped
from small_runs import (
    contents,
    names,
    one_thread,  # noqa: F401 – for every test here
    small_context_unet,
    small_unet,
    with_random_weights,
    write_npz,
)
from typer import Context
from typer.models import ArgumentInfo

from dlcv_diffusion import NoiseSchedule, cli
from dlcv_diffusion.faces.noises import write_noises
from dlcv_diffusion.models import save_model

HUGE = "9" * 30
LONG = "n" * 300
MAY_ALL = getattr(os, "geteuid", lambda: 0)() == 0  # no folder is locked for the administrator
NOT_UTF8 = os.fsdecode(b"caf\xe9")

GOOD = {
    "sample digits": "new/out --weights tiny.safetensors --device cpu --count 1 --steps 2",
    "sample faces": "noise new/out --weights small.safetensors --device cpu --steps 2",
    "train digits": "--preset tiny --data digits.npz --device cpu --steps 1 --batch-size 2 --out new/run",
    "train faces": "--preset tiny --data faces --size 8 --device cpu --steps 1 --batch-size 2 --out new/run",
    "grade digits": "graded --count 1",
    "grade faces": "pictures pictures",
    "noise": "new/noise --size 8 --seeds 0-1",
    "figures": "--only digits --weights tiny.safetensors --device cpu --out new/figures",
    "convert": "report.pt new/report.safetensors --timesteps 20",
}
"""Lines that would work; every bad line is one of them with something wrong in it."""

HOSTILE = {
    int: ["x", "1.5", "-1", "²", "1e3", "0x10", "nan", HUGE, f"-{HUGE}", "½", "1 2", "--help me"],
    float: ["x", "nan", "inf", "-inf", "1e39", "-1e39", "1,5", "²", "1e999"],
    bool: ["3", "perhaps"],
    "choice": ["nonsense", "0", "²", "None", LONG, NOT_UTF8],
    "device": ["gpu", "cuda:99", "cuda:-1", "cpu:7", "meta", "²", "cuda:x", f"cuda:{HUGE}", "None"],
    "seeds": ["x", "1-", "-1", "3-1", "1,,2", "0-4294967295", "4294967296", "²", "٣", "0-2,1", HUGE, "0.5", "1-2-3"],
    "clip_x0": ["x", "nan", "inf", "-1", "0", "None!", "²"],
    "read": [
        *("none", "empty", "words.txt", "picture.png", "short.safetensors", "foreign.safetensors", "numbers.pt"),
        *("dangling", "loop", "loop/x", "words.txt/x", "/dev/null/x", "/dev/null", LONG, NOT_UTF8, "nothing", "ten"),
        *("not.zip", "nan.safetensors", "locked", "locked/x", "~/none", "none/none", "http://none.invalid/x", "*"),
    ],
    "write": [
        *("words.txt", "words.txt/x", "pipe", "pipe/x", LONG, f"new/{LONG}", "loop", "loop/x", "dangling", "locked/x"),
    ],
}

KINDS = {"device": "device", "seeds": "seeds", "clip_x0": "clip_x0"}

FINE = {
    *(("convert", "out", name) for name in ("words.txt", "loop", "dangling")),  # a file is replaced, and so is a link
    ("convert", "pt", "foreign.safetensors"),  # the report's network in a file of another kind, which torch reads too
    ("figures", "weights", "foreign.safetensors"),
}
"""What is hostile elsewhere and works here."""

LINES = """
sample
sample emoji new
nonsense
--nonsense
-h
sample digits
sample digits new/out extra
sample digits new/out --weights
sample digits new/out --fast=3
sample digits new/out --weights= --count 1
sample digits new/out --weights digits_judge
sample digits new/out --weights ten.safetensors
sample digits new/out --weights small.safetensors
sample digits new/out --weights tiny.safetensors --seed 4294967295
sample digits new/out --weights tiny.safetensors --interval 3 0.2
sample digits new/out --weights tiny.safetensors --interval 7
sample digits new/out --weights tiny.safetensors --interval 70 80
sample digits new/out --weights tiny.safetensors --interval nan nan
sample digits new/out --weights tiny.safetensors --steps 21
sample digits new/out --count 1000
sample digits taken --weights tiny.safetensors --count 1 --steps 2
sample faces noise
sample faces noise new/out --weights tiny.safetensors
sample faces noise new/out --weights small.safetensors --eta 0 --seed 3
sample faces noise new/out --weights small.safetensors --preset course --eta 0 --seed 3
sample faces noise new/out --weights small.safetensors --rederive-eps
sample faces noise new/out --weights small.safetensors --offset 999
sample faces noise new/out --weights small.safetensors --steps 1001
sample faces noise new/out --weights small.safetensors --unet-py UNet.py
sample faces noise new/out --weights UNet.pt
sample faces noise new/out --weights UNet.pt --unet-py words.txt
sample faces noise new/out --weights UNet.pt --unet-py picture.png
sample faces noise new/out --weights UNet.pt --unet-py folder
sample faces noise new/out --weights report.pt --unet-py UNet.py
sample faces large new/out --weights small.safetensors
sample faces mixed new/out --weights small.safetensors
sample faces infinite new/out --weights small.safetensors
sample faces taken new/out --weights small.safetensors
train
train digits --out run --data digits.npz --preset tiny --steps 1 --device cpu
train digits --out new/run --root folder
train digits --out new/run --photos faces
train digits --out new/run --svhn
train digits --out new/run --data labels.npz
train digits --out new/run --data torchvision --root folder --device cpu
train digits --out new/run --data street --svhn
train digits --out new/run --data digits.npz --preset tiny --lr 0
train digits --out new/run --data digits.npz --preset tiny --batch-size 1000000000000
train digits --out new/run --data digits.npz --preset tiny --steps 1000000000000
train faces
train faces --out run --data faces --preset tiny --steps 1 --device cpu --size 8
train faces --out new/run --data faces --channels 2
train faces --out new/run --data faces --size 1000000
train faces --out new/run --data digits.npz
train faces --out new/run --data folder
train faces --out new/run --data faces --preset report
grade
grade digits folder
grade digits graded
grade digits graded --count 2
grade digits pictures --count 1
grade digits graded --count 1 --mnistm-classifier report.pt
grade digits graded --count 1 --mnistm-classifier words.txt
grade faces pictures
grade faces pictures folder
grade faces folder pictures
grade faces words.txt pictures
grade faces graded/svhn pictures
grade faces noise pictures
figures extra
figures --only digits --face-weights small.safetensors
figures --only digits --noises noise
figures --only digits --unet-py UNet.py
figures --only digits --preset course
figures --only digits --steps 4
figures --only faces --weights tiny.safetensors
figures --only faces --face-weights small.safetensors --noises noise --device cpu --out new
figures --only faces --face-weights small.safetensors --noises large --device cpu --out new
figures --only faces --face-weights tiny.safetensors --device cpu --out new
figures --only digits --weights small.safetensors --device cpu --out new
noise
noise new --seeds 0-9999,20000-30000
noise new --size 0
noise new --size 1000000
noise new --channels 0
noise new --channels 1000000
noise new --like small.safetensors --size 8
noise new --like small.safetensors --channels 1
noise new --unet-py UNet.py
noise new --seed 3
convert report.pt
convert report.pt report.pt
convert report.pt ./folder/../report.pt
convert report.pt folder
convert report.pt words.txt/new.safetensors
convert UNet.pt new/x.safetensors
convert tiny.safetensors new/x.safetensors
convert numbers.pt new/x.safetensors
convert code.pt new/x.safetensors
convert report.pt new/x.safetensors --timesteps 0
convert report.pt new/x.safetensors --timesteps 1000000000000
info extra
info --device cpu
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Files and folders that lines name: good ones, bad ones, and some that must not be overwritten."""
    folder = tmp_path_factory.mktemp("world")
    tiny = with_random_weights(small_unet(channels=(8, 16), timesteps=20))
    save_model(tiny, folder / "tiny.safetensors", {"name": "tiny", "schedule": NoiseSchedule.linear(20).config})
    save_model(small_unet(num_classes=10, timesteps=20), folder / "ten.safetensors")
    save_model(small_context_unet(), folder / "foreign.safetensors")
    write_own(folder / "small.safetensors")
    write_course(folder)
    (folder / "short.safetensors").write_bytes((folder / "tiny.safetensors").read_bytes()[:5000])
    torch.save(small_context_unet(height=28, width=28, n_downs=2).state_dict(), folder / "report.pt")
    torch.save({"numbers": [1, 2, 3]}, folder / "numbers.pt")
    torch.save(small_context_unet(), folder / "code.pt")
    for name, seeds, size, channels in [("noise", range(3), SIZE, 1), ("large", range(4), 32, 3), ("mixed", [0], 8, 1)]:
        write_noises(folder / name, seeds, (1, channels, size, size))
    write_noises(folder / "mixed", [1], (1, 1, SIZE, SIZE))
    (folder / "infinite").mkdir()
    torch.save(torch.full((1, 1, SIZE, SIZE), torch.inf), folder / "infinite" / "00.pt")
    write_pictures(folder / "faces")
    zipped(folder / "faces", folder / "faces.zip")
    write_npz(folder / "digits.npz")
    write_npz(folder / "labels.npz", label=25)
    np.savez(folder / "other.npz", words=np.arange(3))
    for name in ("empty", "folder", "run", "taken/mnistm/0_001.png", "graded/mnistm", "graded/svhn", "pictures"):
        (folder / name).mkdir(parents=True)
    for digit in range(10):
        for half in ("mnistm", "svhn")[: 1 if digit == 9 else 2]:  # one picture is missing
            Image.new("RGB", (28, 28)).save(folder / "graded" / half / f"{digit}_001.png")
    for number in range(2):
        Image.new("RGB", (16, 16)).save(folder / "pictures" / f"0{number}.png")
    Image.new("RGB", (16, 16)).save(folder / "picture.png")
    (folder / "words.txt").write_text("not what anybody expects here, but long enough to be read as something")
    (folder / "nothing").write_bytes(b"")
    (folder / "not.zip").write_bytes(b"PK\x03\x04 no zip all the same")
    (folder / "run" / "checkpoint.safetensors").write_bytes(b"a run of long ago")
    (folder / "run" / "model.safetensors").write_bytes(b"its weights")
    (folder / "dangling").symlink_to("nowhere/at/all")
    (folder / "loop").symlink_to("loop")
    (folder / "locked").mkdir(mode=0)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
    before = contents(folder)
    yield folder
    (folder / "locked").chmod(0o700)
    assert contents(folder) == before


@pytest.fixture
def attempt(world, monkeypatch, capfd):
    """Run a command line there, a list of words: what is wrong with how it ended; "" where nothing is."""
    monkeypatch.chdir(world)

    def look():
        return {name: _state(world / name) for name in names(world)}

    before = look()

    def run(words):
        nonlocal before
        started = time.process_time()
        monkeypatch.setattr("sys.argv", ["dlcv", *words])
        try:
            cli.main()
            code = "none"
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            code = f"{type(error).__name__}: {str(error)[:200]}"
        out, err = capfd.readouterr()
        seconds = time.process_time() - started
        after = look()
        changed = sorted(set(before.items()) ^ set(after.items()), key=str)
        for name in sorted(set(after) - set(before), reverse=True):
            shutil.rmtree(world / name) if (world / name).is_dir() else (world / name).unlink()
        before = look()
        failed = words[0] == "grade" and code == 1 and "FAIL" in out and err == ""
        wrong = [] if code == 2 or failed else [f"exit code {code}"]
        usage = err.startswith("Usage: dlcv")  # of a group without a verb
        if code == 2 and not usage and not (err.startswith("dlcv: ") and err.count("\n") == 1 and len(err) > 20):
            wrong.append(f"no sentence: {err!r}")
        if any(word in err for word in ("Errno", "Traceback", "codec", "Warning", "[enforce fail")):
            wrong.append(f"raw: {err!r}")
        wrong += [f"it printed {out!r}"] if out and not failed else []
        wrong += [f"it changed {changed}"] if changed else []
        wrong += [f"it took {seconds:.1f} s"] if seconds > 8 else []
        return "; ".join(wrong)

    return run


def _state(path):
    status = path.lstat()
    return status.st_mode, *(() if path.is_dir() else (status.st_size, status.st_ino, status.st_mtime_ns))


def options_of(verb):
    """{name: (its words on the command line or None, what kind of value it takes)} of a verb."""
    group, _, name = verb.rpartition(" ")
    app = getattr(cli, group).app if group else cli.app
    command = next(c for c in app.registered_commands if (c.name or c.callback.__name__) == name)
    found = {}
    for option, hint in typing.get_type_hints(command.callback, include_extras=True).items():
        if option == "return" or hint is Context:
            continue
        kind, info = hint.__args__[0], hint.__metadata__[0]
        if type(None) in typing.get_args(kind):  # "int | None"
            kind = typing.get_args(kind)[0]
        if typing.get_origin(kind) is typing.Literal:
            kind = "choice"
        elif typing.get_origin(kind) is tuple:
            kind = "pair"
        elif kind in (str, Path):
            kind = KINDS.get(option, "write" if option == "out" and verb != "grade faces" else "read")
        found[option] = (None if isinstance(info, ArgumentInfo) else f"--{option.replace('_', '-')}", kind)
    return found


def bad_lines(verb):
    """Lines for a verb, as lists of words, each with one hostile value."""
    good, place = GOOD[verb].split(), 0
    for option, (word, kind) in options_of(verb).items():
        for value in HOSTILE["read" if kind == "pair" else kind]:
            if (verb, option, value) in FINE or (value.startswith("locked") and MAY_ALL):
                continue
            if word is None:
                words = [*good[:place], value, *good[place + 1 :]]
            elif kind is bool:
                words = [*good, f"{word}={value}"]
            else:
                words = [*good, word, value, *([value] if kind == "pair" else [])]
            yield [*verb.split(), *words]
        place += word is None


def test_lines_that_people_write(attempt):
    wrong = {line: said for line in LINES.strip().splitlines() if (said := attempt(line.split()))}
    assert not wrong, "\n".join(f"dlcv {line}: {said}" for line, said in wrong.items())


@pytest.mark.parametrize("verb", GOOD)
def test_every_option_with_hostile_values(attempt, verb):
    wrong, count = {}, 0
    for words in bad_lines(verb):
        count += 1
        if said := attempt(words):
            wrong[" ".join(words)] = said
    assert not wrong, f"{len(wrong)} of {count}\n" + "\n".join(f"dlcv {line}: {said}" for line, said in wrong.items())


def test_several_things_wrong_at_once(attempt):
    draw, wrong = random.Random(0), {}
    lines = [words for verb in GOOD for words in bad_lines(verb)]
    for _ in range(100):
        words = draw.choice(lines)
        verb = next(verb for verb in GOOD if words[: len(verb.split())] == verb.split())
        more = draw.choice(list(bad_lines(verb)))
        words = [*words, *more[len(verb.split()) :]]
        if said := attempt(words):
            wrong[" ".join(words)] = said
    assert not wrong, "\n".join(f"dlcv {line}: {said}" for line, said in wrong.items())


def test_an_argument_that_is_empty(attempt):
    for verb, good in GOOD.items():
        for words in (["", *good.split()], [*good.split(), ""], [*good.split(), "--device="]):
            assert attempt([*verb.split(), *words]) == ""
