"""`dlcv … faces` and `dlcv noise` on real files: what they write and say, and one sentence for bad input."""

import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from small_faces import SIZE, small_unet2d, write_course, write_own, write_pictures, zipped
from small_runs import contents, full_disk, names, one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import seeded_noise
from dlcv_diffusion.cli.options import numbers
from dlcv_diffusion.denoiser import load_denoiser
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.faces.noises import read_noises, write_noises
from dlcv_diffusion.faces.sampling import PRESETS, FaceSampling, sample_faces
from dlcv_diffusion.figures import read_facts

OWN = "--weights small.safetensors --device cpu --steps 4"


@pytest.fixture
def here(tmp_path):
    """`small.safetensors` and a folder `noise` for it."""
    write_own(tmp_path / "small.safetensors")
    write_noises(tmp_path / "noise", range(3), (1, 1, SIZE, SIZE))
    return tmp_path


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def apart(one, other):
    return max(abs(picture(path) - picture(other / path.name)).max() for path in one.glob("*.png"))


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_problem_2_with_the_course_s_files(dlcv, tmp_path):
    """Noises, sampling and grading, from UNet.py, UNet.pt and pictures of 3×256×256."""
    write_course(tmp_path)
    code, out, err = dlcv("noise noise --seeds 0-1")
    assert (code, err, out) == (0, "", "2 noises of 3×256×256: noise/00.pt … 01.pt\n")
    words = "sample faces noise {} --weights UNet.pt --unet-py UNet.py --preset course --steps 5 --device cpu"
    code, out, err = dlcv(words.format("out"))
    assert (code, err, out) == (0, "", "2 faces: out/00.png … 01.png\n")
    with Image.open("out/01.png") as image:
        assert (image.size, image.mode, image.format) == ((256, 256), "RGB", "PNG")
    denoise = load_denoiser("UNet.pt", unet_py="UNet.py", device="cpu")
    faces = sample_faces(
        denoise, read_noises("noise"), FaceSampling(5, offset=1, final_alpha="first", clip_x0=1.0, save="min_max")
    )
    assert np.array_equal(picture("out/01.png"), faces[1].permute(1, 2, 0).numpy())
    assert "__pycache__" not in names(tmp_path)

    dlcv(words.format("gt"))
    code, out, err = dlcv("grade faces out gt")
    assert (code, err) == (0, "") and out.splitlines()[-1].split() == ["mean", "0.00", "PASS:", "below", "20"]
    dlcv(words.format("other").replace("--steps 5", "--steps 2"))
    code, out, err = dlcv("grade faces other gt")
    assert (code, err) == (1, "") and "FAIL: not below 20" in out


def test_a_diffusers_folder(dlcv, tmp_path):
    small_unet2d().save_pretrained(tmp_path / "unet")
    assert dlcv("noise noise --seeds 3,5 --like unet")[:2] == (0, "2 noises of 3×16×16: noise/03.pt … 05.pt\n")
    code, out, err = dlcv("sample faces noise out --weights unet --device cpu --steps 3")
    assert (code, err, names(tmp_path / "out")) == (0, "", ["03.png", "05.png"])


def test_weights_of_our_own_and_every_option(dlcv, here):
    code, out, err = dlcv(f"sample faces noise out {OWN}")
    assert (code, err, out) == (0, "", "3 faces: out/00.png … 02.png\n")
    denoise = load_denoiser("small.safetensors", device="cpu")
    x_T = read_noises("noise")

    def drawn(config, seeds=None):
        return sample_faces(denoise, x_T, config, seeds=seeds)[:, 0].numpy()

    def written():
        return np.stack([picture(f"out/{number:02d}.png") for number in range(3)])

    assert np.array_equal(written(), drawn(FaceSampling(4)))
    for words, config, seeds in [
        ("--eta 1", FaceSampling(4, 1.0), [0, 1, 2]),
        ("--eta 0.5 --seed 7", FaceSampling(4, 0.5), [7, 8, 9]),
        ("--preset course", FaceSampling(4, offset=1, final_alpha="first", clip_x0=1.0, save="min_max"), None),
        ("--preset course --offset 0 --clip-x0 none --save clamp", FaceSampling(4, final_alpha="first"), None),
        (
            "--spacing trailing --clip-x0 0.5 --rederive-eps",
            FaceSampling(4, spacing="trailing", clip_x0=0.5, rederive_eps=True),
            None,
        ),
        ("--final-alpha first --save min_max", FaceSampling(4, final_alpha="first", save="min_max"), None),
    ]:
        assert dlcv(f"sample faces noise out {OWN} {words}")[0] == 0
        assert np.array_equal(written(), drawn(config, seeds)), words


@pytest.mark.parametrize("eta", [0, 1])
def test_another_batch_size_gives_the_same_faces(dlcv, here, eta):
    for batch_size in (1, 2, 3):
        dlcv(f"sample faces noise {batch_size} {OWN} --eta {eta} --batch-size {batch_size}")
    assert max(apart(here / "1", here / name) for name in ("2", "3")) <= 1
    (here / "noise" / "00.pt").unlink()
    dlcv(f"sample faces noise fewer {OWN} --eta {eta}")
    assert apart(here / "fewer", here / "1") <= 1


def test_fifty_steps_without_words(dlcv, here):
    dlcv("sample faces noise out --weights small.safetensors --device cpu")
    denoise = load_denoiser("small.safetensors", device="cpu")
    faces = sample_faces(denoise, read_noises("noise"), PRESETS["paper"])
    assert PRESETS["paper"].steps == 50 and np.array_equal(picture("out/02.png"), faces[2, 0].numpy())


def test_noises_of_a_size(dlcv, tmp_path):
    code, out, err = dlcv("noise one --seeds 4 --size 8 --channels 1")
    assert (code, err, out) == (0, "", "1 noise of 1×8×8: one/04.pt\n")
    assert torch.equal(read_noises(tmp_path / "one"), seeded_noise((1, 1, 8, 8), [4]))


def test_train_faces_writes_weights_that_sample(dlcv, tmp_path):
    zipped(write_pictures(tmp_path / "faces"), tmp_path / "faces.zip")
    words = "train faces --data faces.zip --preset tiny --size 9 --channels 3 --steps 2 --batch-size 2 --device cpu"
    code, out, err = dlcv(f"{words} --out run --prediction eps")
    assert (code, err) == (0, "") and out.splitlines()[-1] == "trained weights: run/model.safetensors"
    assert out.startswith("data: the pictures in 'faces.zip', of which every tenth is held out\nstep 1 of 2, loss")
    code, _, err = dlcv(f"{words} --out run --prediction eps")
    assert code == 2 and "'run' holds a training run already; add --resume" in err
    dlcv("noise noise --seeds 0-1 --like run/model.safetensors")
    code, *_ = dlcv("sample faces noise out --weights run/model.safetensors --steps 2 --device cpu")
    assert code == 0 and names(tmp_path / "out") == ["00.png", "01.png"]


@pytest.mark.parametrize(
    "text, seeds", [("0-9", range(10)), ("3", [3]), ("0-1, 7", [0, 1, 7]), ("5-5", [5]), ("4294967295", [2**32 - 1])]
)
def test_seeds_as_one_writes_them(text, seeds):
    assert numbers(text) == list(seeds)


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "1,,2", "3-1", "0.5", "4294967296", "1-2-3"])
def test_seeds_that_are_none(text):
    with pytest.raises(UserError):
        numbers(text)


# --- bad input --------------------------------------------------------------------------------------------------------

SAMPLE = f"sample faces noise out {OWN}"
TRAIN = "train faces --data faces --preset tiny --size 8 --device cpu --out run"
BAD = {
    "sample faces noise": "missing argument 'OUT_DIR'",
    f"sample faces none out {OWN}": "'none' is not there; give a folder with noises",
    f"sample faces empty out {OWN}": "'empty' holds no noises",
    f"sample faces mixed out {OWN}": "'mixed/01.pt' is 1×8×8, but '00.pt' is 1×16×16",
    f"sample faces large out {OWN}": "the noises are 3×32×32, but the weights 'small' draw 1×16×16",
    f"sample faces noise words.txt {OWN}": "cannot write 'words.txt",
    f"sample faces noise words.txt/out {OWN}": "cannot write 'words.txt/out",
    "sample faces noise out --weights none.safetensors": "no weights at 'none.safetensors'",
    "sample faces noise out --weights digits": "'digits' draw classes by label",
    "sample faces noise out --weights empty": "'empty' holds no network of diffusers",
    "sample faces noise out --weights UNet.pt": "no weights at|holds weights without a network",
    "sample faces noise out --weights UNet.pt --unet-py none.py": "no such file: 'none.py'",
    "sample faces noise out --weights UNet.pt --unet-py words.txt": "'words.txt' cannot be run: SyntaxError",
    f"{SAMPLE} --unet-py UNet.py": r"unet_py \(--unet-py\) does nothing",
    f"{SAMPLE} --preset report": "'report' is not one of 'paper', 'course'",
    f"{SAMPLE} --seed 3": r"seed \(--seed\) does nothing where eta is 0",
    f"{SAMPLE} --eta 1.5": "eta is 1.5; it should be less than or equal to 1",
    f"{SAMPLE} --eta nan": "eta is nan",
    f"{SAMPLE} --steps 0": "invalid value for '--steps'",
    f"{SAMPLE} --steps 1001": "cannot take 1001 steps",
    f"{SAMPLE} --offset 999": r"offset 999 leaves the schedule .* \(--offset\) from 0 to",
    f"{SAMPLE} --spacing quad": "'quad' is not one of 'trailing', 'uniform'",
    f"{SAMPLE} --final-alpha 1": "'1' is not one of 'one', 'first'",
    f"{SAMPLE} --clip-x0 much": "clip_x0 is 'much'; it should be a valid number",
    f"{SAMPLE} --clip-x0 0": "clip_x0 is .0.; it should be greater than 0",
    f"{SAMPLE} --rederive-eps": "rederive_eps does nothing",
    f"{SAMPLE} --preset course --clip-x0 none --rederive-eps": "rederive_eps does nothing",
    f"{SAMPLE} --save png": "'png' is not one of 'clamp', 'min_max'",
    f"{SAMPLE} --batch-size 0": "invalid value for '--batch-size'",
    f"{SAMPLE} --device gpu": "cannot use device 'gpu'",
    "grade faces out": "missing argument",
    "grade faces none noise": "'none' is not there; give the one that holds your images",
    "grade faces empty none": "'none' is not there; give the course's images",
    "grade faces empty empty": "'empty' holds no pictures",
    "noise new --seeds x": "'x' are no seeds; give numbers and ranges, such as 0-9",
    "noise new --seeds 3-1": "the range '3-1' runs backwards",
    "noise new --seeds 0-2,1": "seed 1 is given more than once",
    "noise new --seeds 4294967296": "seed 4294967296 is out of range",
    "noise new --size 0": "invalid value for '--size'",
    "noise new --like small.safetensors --size 8": "--like takes size and channels from the weights",
    "noise new --like none.safetensors": "no weights at 'none.safetensors'",
    "noise new --unet-py UNet.py": r"unet_py \(--unet-py\) does nothing without --like",
    "noise words.txt": "cannot write 'words.txt",
    "train faces": "missing option '--data'",
    "train faces --data none --out run": "'none' is not there; give a folder or a zip",
    "train faces --data words.txt --out run": "'words.txt' is not a zip of pictures",
    "train faces --data empty --out run": "no pictures in 'empty'",
    f"{TRAIN} --preset report": "'report' is not one of 'small', 'guided', 'tiny'",
    f"{TRAIN} --channels 2": "not 2",
    f"{TRAIN} --prediction score": "'score' is not one of 'eps', 'v', 'x0'",
    f"{TRAIN} --lr nan": "invalid value for '--lr'",
    f"{TRAIN} --device gpu": "'gpu'",
    f"{TRAIN} --out words.txt/run": "cannot write",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What the bad lines name, made once."""
    folder = tmp_path_factory.mktemp("files")
    write_own(folder / "small.safetensors")
    write_noises(folder / "noise", range(3), (1, 1, SIZE, SIZE))
    write_noises(folder / "large", [0], (1, 3, 32, 32))
    write_noises(folder / "mixed", [0], (1, 1, SIZE, SIZE))
    write_noises(folder / "mixed", [1], (1, 1, 8, 8))
    write_course(folder)
    write_pictures(folder / "faces")
    (folder / "empty").mkdir()
    (folder / "words.txt").write_text("not what anybody expects here")
    return folder


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(dlcv, files, tmp_path, words):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    before, there = contents(tmp_path), names(tmp_path)
    code, out, err = dlcv(words)
    assert code == 2 and out == ""
    assert re.search(BAD[words], err), err
    assert err.startswith("dlcv: ") and err.count("\n") == 1
    assert contents(tmp_path) == before and names(tmp_path) == there


@pytest.mark.parametrize("words, room", [("noise new --size 16", 1000), (f"sample faces noise new {OWN}", 100)])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(dlcv, here, words, room):
    before = names(here)
    with full_disk(room):
        code, out, err = dlcv(words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"dlcv: cannot write '.*': File too large; choose a folder .* with free space\n", err)
    assert names(here) == before


# --- figures ----------------------------------------------------------------------------------------------------------


def test_the_figures_of_faces_from_seeds_or_from_the_courses_noises(dlcv, here):
    code, out, err = dlcv("figures --only faces --face-weights small.safetensors --device cpu --out figures")
    files = [f"faces_{name}.png" for name in ("eta_grid", "slerp", "lerp", "norms", "corners")]
    assert code == 0 and out.splitlines() == [f"figures/{name}" for name in files]
    assert names(here / "figures") == sorted(files)
    write_noises(here / "four", [5, 6, 7, 8], (1, 1, SIZE, SIZE))
    code, _, err = dlcv("figures --only faces --face-weights small.safetensors --noises four --device cpu --out others")
    assert code == 0 and read_facts(here / "others" / "faces_slerp.png")["noises"] == ["05", "06"]
    assert read_facts(here / "others" / "faces_eta_grid.png")["seeds_of_z"] == [5, 6, 7, 8]
    words = "figures --only faces --face-weights small.safetensors --noises four --device cpu --out course --seed 3"
    assert dlcv(f"{words} --preset course --steps 6")[0] == 0
    facts = read_facts(here / "course" / "faces_eta_grid.png")
    assert (facts["seeds_of_z"], facts["steps"], facts["final_alpha"]) == ([8, 9, 10, 11], 6, "first")
    code, _, err = dlcv("figures --only digits --preset course")
    assert code == 2 and "does nothing for digits" in err
    code, _, err = dlcv("figures --only faces --face-weights small.safetensors --noises noise --out none")
    assert code == 2 and "need four noises, not 3" in err and not (here / "none").exists()
