"""Noises in files: written from seeds, read with nothing run, refused in one sentence where they are something else."""

from argparse import Namespace

import pytest
import torch
from small_runs import full_disk, names

from dlcv_diffusion import UserError, seeded_noise
from dlcv_diffusion.faces.noises import noise_files, read_noises, write_noises

SHAPE = (1, 3, 8, 8)


def test_what_is_written_is_read(tmp_path):
    paths = write_noises(tmp_path / "noise", [0, 1, 12], SHAPE)
    assert [path.name for path in paths] == names(tmp_path / "noise") == ["00.pt", "01.pt", "12.pt"]
    assert torch.equal(read_noises(tmp_path / "noise"), seeded_noise((3, 3, 8, 8), [0, 1, 12]))
    one = torch.load(paths[2], weights_only=True)
    assert one.shape == SHAPE and one.untyped_storage().nbytes() == 4 * one.numel()  # not the whole batch


def test_the_course_s_shape_is_the_default(tmp_path):
    write_noises(tmp_path, [3])
    assert read_noises(tmp_path).shape == (1, 3, 256, 256)


def test_sorted_by_name_and_nothing_else_is_read(tmp_path):
    for name in ("b", "a", "10", "09"):
        torch.save(torch.full(SHAPE, float(len(names(tmp_path))), dtype=torch.float64), tmp_path / f"{name}.pt")
    (tmp_path / "readme.txt").write_text("noises")
    (tmp_path / "._a.pt").write_bytes(b"what macOS leaves")
    assert [path.stem for path in noise_files(tmp_path)] == ["09", "10", "a", "b"]
    assert read_noises(tmp_path)[:, 0, 0, 0].tolist() == [3, 2, 1, 0] and read_noises(tmp_path).dtype == torch.float32


def test_every_plain_float_tensor_is_read_right(tmp_path):
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    torch.save(noise.to(torch.bfloat16), tmp_path / "0.pt")
    torch.save(torch.nn.Parameter(noise), tmp_path / "1.pt")
    torch.save(noise.to(memory_format=torch.channels_last), tmp_path / "2.pt")
    torch.save(torch.cat([noise, noise])[1:], tmp_path / "3.PT")
    torch.save(noise, tmp_path / "4.pt", _use_new_zipfile_serialization=False)
    read = read_noises(tmp_path)
    assert not read.requires_grad and torch.equal(read[0], noise[0].bfloat16().float())
    assert all(torch.equal(one, noise[0]) for one in read[1:]) and len(read) == 5


def test_a_folder_and_a_link_to_nothing_are_told(tmp_path):
    write_noises(tmp_path, [0], SHAPE)
    (tmp_path / "01.pt").mkdir()
    with pytest.raises(UserError, match="01.pt' is not a file"):
        read_noises(tmp_path)
    (tmp_path / "01.pt").rmdir()
    (tmp_path / "01.pt").symlink_to(tmp_path / "gone.pt")
    with pytest.raises(UserError, match="01.pt' is a link to what is not there"):
        read_noises(tmp_path)
    with pytest.raises(UserError, match="00.pt' is not a folder"):
        read_noises(tmp_path / "00.pt")


class Code:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    "saved, said",
    [
        (torch.zeros(3, 8, 8), r"the shape \(3, 8, 8\); a noise has \(1, C, H, W\)"),
        (torch.zeros(2, 3, 8, 8), r"the shape \(2, 3, 8, 8\)"),
        (torch.zeros(1, 3, 0, 8), r"the shape \(1, 3, 0, 8\)"),
        (torch.zeros(1, 3, 4, 8), r"'.*01.pt' is 3×4×8, but '00.pt' is 3×8×8"),
        (torch.zeros(SHAPE, dtype=torch.int64), "a tensor of torch.int64"),
        (torch.zeros(SHAPE, dtype=torch.complex64), "a tensor of torch.complex64"),
        (torch.zeros(SHAPE, dtype=torch.bool), "a tensor of torch.bool"),
        (torch.zeros(SHAPE, device="meta"), "sparse, nested, empty"),
        (torch.zeros(SHAPE).to_sparse(), "sparse, nested, empty"),
        (torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)], layout=torch.jagged), "sparse, nested, empty"),
        (torch.zeros(1, 3, 1, 1).expand(1, 3, 10**6, 10**6), "expanded tensor; .* a number for each pixel"),
        (torch.zeros(()), r"the shape \(\)"),
        (torch.full(SHAPE, 1e300, dtype=torch.float64), "not finite"),
        (torch.full(SHAPE, torch.nan), "not finite"),
        (torch.full(SHAPE, torch.inf), "not finite"),
        ({"x": torch.zeros(SHAPE)}, "holds no tensor by itself"),
        (Namespace(seed=1), "holds no tensor by itself"),
        (Code(), "not a whole .pt file of a plain tensor"),
        (None, "not a whole .pt file"),
    ],
)
def test_anything_else_is_refused(tmp_path, capsys, saved, said):
    write_noises(tmp_path, [0], SHAPE)
    torch.save(saved, tmp_path / "01.pt") if saved is not None else (tmp_path / "01.pt").write_bytes(b"PK")
    with pytest.raises(UserError, match=said):
        read_noises(tmp_path)
    assert capsys.readouterr().out == ""  # nothing ran


def test_no_folder_and_no_files(tmp_path):
    with pytest.raises(UserError, match="none' is not there; give a folder with noises"):
        read_noises(tmp_path / "none")
    with pytest.raises(UserError, match="holds no noises"):
        read_noises(tmp_path)


@pytest.mark.parametrize(
    "seeds, shape, said",
    [
        ([], SHAPE, "no seeds"),
        ([1, 2, 1], SHAPE, "seed 1 is given more than once"),
        ([2**32], SHAPE, "out of range"),
        ([0], (3, 8, 8), r"the shape \(1, C, H, W\)"),
        ([0], (2, 3, 8, 8), r"the shape \(1, C, H, W\)"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, seeds, shape, said):
    with pytest.raises(UserError, match=said):
        write_noises(tmp_path / "out", seeds, shape)
    assert names(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path):
    with full_disk(3000), pytest.raises(UserError, match="cannot write .*: File too large"):
        write_noises(tmp_path / "out", range(3), (1, 3, 16, 16))
    assert names(tmp_path) == []
