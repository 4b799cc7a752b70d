"""The course's network: the user's UNet.py and UNet.pt become a denoiser, or one sentence says why not."""

import sys

import pytest
import torch
from small_faces import BLOCKS_PY, UNET_PY, write_course
from small_runs import names, one_thread  # noqa: F401 – for every test here

from dlcv_diffusion import NoiseSchedule, UserError, ddim, last, seeded_noise
from dlcv_diffusion.models.course_unet import course_unet

HEAD = "import torch\nfrom torch import nn\n"
MODULE = f"{HEAD}class UNet(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
LAYER = f"{MODULE}        self.out = nn.Conv2d(3, 3, 1)\n"
OTHER = f"{MODULE}        self.other = nn.Conv2d(3, 3, 1)\n"


def test_the_course_s_network_is_a_denoiser(tmp_path):
    network = write_course(tmp_path)
    before = names(tmp_path), list(sys.path), sys.dont_write_bytecode
    denoise = course_unet(tmp_path / "UNet.py", tmp_path / "UNet.pt")
    assert (denoise.shape, denoise.name, denoise.prediction) == ((3, 256, 256), "UNet", "eps")
    assert denoise.schedule == NoiseSchedule.linear(1000)
    x, t = seeded_noise((2, 3, 16, 16), [0, 1]), torch.tensor([5, 999])
    with torch.no_grad():
        torch.testing.assert_close(denoise(x, t), network(x, t))
    assert (names(tmp_path), sys.path, sys.dont_write_bytecode) == before and "blocks" not in sys.modules


def test_two_of_them_do_not_mix_up_what_lies_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    x, t, results = torch.ones(1, 3, 8, 8), torch.tensor([5]), []
    for name in ("tanh", "sin"):
        folder = tmp_path / name
        folder.mkdir()
        write_course(folder)
        (folder / "blocks.py").write_text(BLOCKS_PY.replace("torch.tanh", f"torch.{name}"))
        denoise = course_unet(folder / "UNet.py", folder / "UNet.pt")
        with torch.no_grad():
            results.append(denoise(x, t))
        assert names(folder) == ["UNet.pt", "UNet.py", "blocks.py"]  # and no __pycache__
    assert not torch.allclose(*results)


def test_a_file_beside_it_may_be_imported_when_the_network_is_made(tmp_path):
    write_course(tmp_path)
    (tmp_path / "UNet.py").write_text(
        UNET_PY.replace("from blocks import Block", "").replace(
            "super().__init__()\n", "super().__init__()\n        from blocks import Block\n"
        )
    )
    course_unet(tmp_path / "UNet.py", tmp_path / "UNet.pt")
    assert "blocks" not in sys.modules and str(tmp_path) not in sys.path


def test_its_batch_norm_is_in_eval_mode(tmp_path):
    write_course(tmp_path)
    denoise = course_unet(tmp_path / "UNet.py", tmp_path / "UNet.pt")
    x = seeded_noise((3, 3, 8, 8), range(3))
    alone = last(ddim(denoise, x[:1], denoise.schedule, steps=3)).x
    torch.testing.assert_close(last(ddim(denoise, x, denoise.schedule, steps=3)).x[:1], alone)


@pytest.mark.parametrize(
    "code, said",
    [
        (None, "no such file: '.*UNet.py'; give the course's UNet.py"),
        ("class Unet: pass", "has no class UNet"),
        ("import no_such_package", "cannot be run: ModuleNotFoundError: No module named 'no_such_package'"),
        ("class UNet(", "cannot be run: SyntaxError"),
        ("raise SystemExit(3)", "cannot be run: SystemExit"),
        (
            "class UNet:\n    def __init__(self, T): pass",
            "without arguments: TypeError: missing a required argument: 'T'",
        ),
        ("class UNet:\n    def __init__(self): raise KeyError('width')", r"UNet\(\) in .* fails: KeyError: 'width'"),
        ("class UNet: pass", "makes a UNet; it must be a torch.nn.Module"),
        (f"{LAYER}    def forward(self, x): return x", r"cannot be called as net\(x, t\)"),
        (
            f"{OTHER}    def forward(self, x, t): return x",
            "not those of this",
        ),
    ],
)
def test_code_that_does_not_do_is_one_sentence(tmp_path, code, said):
    torch.save(torch.nn.ModuleDict({"out": torch.nn.Conv2d(3, 3, 1)}).state_dict(), tmp_path / "UNet.pt")
    if code is not None:
        (tmp_path / "UNet.py").write_text(code)
    with pytest.raises(UserError, match=said) as error:
        course_unet(tmp_path / "UNet.py", tmp_path / "UNet.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "output, said",
    [
        ("self.out(x)[:, :1]", r"gave \(2, 1, 8, 8\) for images \(2, 3, 8, 8\)"),
        ("(self.out(x), t)", "gave tuple for images"),
    ],
)
def test_an_output_that_is_no_noise_is_one_sentence(tmp_path, output, said):
    torch.save(torch.nn.ModuleDict({"out": torch.nn.Conv2d(3, 3, 1)}).state_dict(), tmp_path / "UNet.pt")
    (tmp_path / "UNet.py").write_text(f"{LAYER}    def forward(self, x, t): return {output}")
    denoise = course_unet(tmp_path / "UNet.py", tmp_path / "UNet.pt")
    with pytest.raises(UserError, match=said):
        denoise(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(
    "code, said",
    [
        ("raise KeyError('width')", "fails when it is called: KeyError: 'width'; mend its code"),
        ("raise SystemExit(3)", "fails when it is called: SystemExit: 3"),
        ("return x @ t", "fails when it is called: RuntimeError: .*"),
        ("return self.forward(x, t)", "fails when it is called: RecursionError"),
        ("raise ValueError('line\\n' * 1000)", "fails when it is called: ValueError: line line .* …; mend"),
    ],
)
def test_code_that_fails_when_it_is_called_is_one_sentence(tmp_path, code, said):
    torch.save(torch.nn.ModuleDict({"out": torch.nn.Conv2d(3, 3, 1)}).state_dict(), tmp_path / "UNet.pt")
    (tmp_path / "UNet.py").write_text(f"{LAYER}    def forward(self, x, t):\n        {code}\n")
    denoise = course_unet(tmp_path / "UNet.py", tmp_path / "UNet.pt")
    with pytest.raises(UserError, match=said) as error:
        denoise(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("when", ["made", "called"])
def test_code_for_a_gpu_is_one_sentence_where_there_is_none(tmp_path, when):
    torch.save(torch.nn.ModuleDict({"out": torch.nn.Conv2d(3, 3, 1)}).state_dict(), tmp_path / "UNet.pt")
    layer = LAYER.replace("1)\n", "1).cuda()\n") if when == "made" else LAYER
    (tmp_path / "UNet.py").write_text(f"{layer}    def forward(self, x, t): return self.out(x) + 0 * t.cuda().sum()")
    with pytest.raises(UserError, match=r"UNet\(\) in .* fails|UNet fails when it is called") as error:
        denoise = course_unet(tmp_path / "UNet.py", tmp_path / "UNet.pt")
        last(ddim(denoise, torch.zeros(2, 3, 8, 8), steps=3))
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize(
    "content, said", [(None, "UNet.pt' is not there"), (b"PK", "not a whole .pt file"), ([1, 2], "holds no state dict")]
)
def test_weights_that_are_none_are_one_sentence(tmp_path, content, said):
    (tmp_path / "UNet.py").write_text(UNET_PY.replace("from blocks import Block", "Block = nn.Identity\n"))
    if isinstance(content, bytes):
        (tmp_path / "UNet.pt").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "UNet.pt")
    with pytest.raises(UserError, match=said):
        course_unet(tmp_path / "UNet.py", tmp_path / "UNet.pt")
