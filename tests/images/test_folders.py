"""What people's folders and zips really hold: leftovers, links, permissions, names; all read, or one sentence."""

import os
import shutil
import stat
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image
from small_faces import picture

from dlcv_diffusion import UserError
from dlcv_diffusion.digits.course import read_list
from dlcv_diffusion.digits.data import load_digits
from dlcv_diffusion.digits.mnist_m import load_photos
from dlcv_diffusion.faces.data import load_faces
from dlcv_diffusion.images.folders import PICTURE_SUFFIXES, picture_names, read_pictures


def write(path, number=0, size=(28, 28)):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number, size).save(path, "PNG")
    return path


def sentence(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value) and "Errno" not in str(caught.value)
    return str(caught.value)


LEFTOVERS = [
    ".hidden.png",
    "._a.png",
    ".ipynb_checkpoints/a-checkpoint.png",
    "sub/.ipynb_checkpoints/a.png",
    "__MACOSX/._a.png",
    "__MACOSX/a.png",
    "@eaDir/a.png",
    ".DS_Store",
    "Thumbs.db",
    "desktop.ini",
    "$RECYCLE.BIN/$R1.png",
    "#recycle/a.png",
    "lost+found/a.png",
    "System Volume Information/a.png",
    "readme.txt",
]


@pytest.fixture
def littered(tmp_path):
    folder = tmp_path / "faces"
    for number, name in enumerate(["b.png", "a.PNG", "sub/c d.jpg", "子/臉.png"]):
        write(folder / name, number)
    for name in LEFTOVERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"left behind")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in sorted(folder.rglob("*"), reverse=True):
            archive.write(path, path.relative_to(folder).as_posix())
    return folder


def test_leftovers_are_left_out_of_folders_and_zips(littered):
    for source in (littered, littered.with_suffix(".zip"), str(littered) + "/"):
        names = picture_names(source)
        assert names == ["a.PNG", "b.png", "sub/c d.jpg", "子/臉.png"]
        assert list(read_pictures(source, names)) == [(littered / name).read_bytes() for name in names]
        assert picture_names(source, under="sub/") == ["sub/c d.jpg"] and len(load_photos(source)) == 4


def test_a_checkpoint_of_jupyter_does_not_move_held_out_faces_into_training(tmp_path):
    for number in range(10):
        write(tmp_path / f"{number}.png", number)
    before = load_faces(tmp_path, "held_out", size=8).images
    (tmp_path / ".ipynb_checkpoints").mkdir()
    shutil.copy(tmp_path / "9.png", tmp_path / ".ipynb_checkpoints" / "9-checkpoint.png")
    assert load_faces(tmp_path, "held_out", size=8).images.equal(before) and len(load_faces(tmp_path, size=8)) == 9


def by_class(root, count=12):
    for digit in range(10):
        for number in range(count):
            write(root / str(digit) / f"{number:03d}.png", 100 * digit + number)
    return root


def test_linked_class_folders_and_files_are_followed(tmp_path):
    store, root = by_class(tmp_path / "store"), by_class(tmp_path / "root")
    expected = load_digits(root)
    shutil.rmtree(root / "7")
    (root / "7").symlink_to(store / "7")
    (root / "3" / "000.png").unlink()
    (root / "3" / "000.png").symlink_to(store / "3" / "000.png")
    data = load_digits(root)
    assert data.images.equal(expected.images) and data.labels.bincount().tolist() == [11] * 10
    (tmp_path / "linked").symlink_to(root)
    assert load_digits(tmp_path / "linked").images.equal(expected.images)
    (tmp_path / "twice").mkdir()
    for name in ("a", "b"):  # the same folder by two names is there twice
        (tmp_path / "twice" / name).symlink_to(store / "7")
    assert len(picture_names(tmp_path / "twice")) == 24


def test_links_in_a_circle_end(tmp_path):
    write(tmp_path / "a" / "1.png"), write(tmp_path / "b" / "2.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "over").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "back").symlink_to(tmp_path / "a")
    names = picture_names(tmp_path)
    assert names == ["a/1.png", "a/over/2.png", "b/2.png", "b/back/1.png"]
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert "self' is a link that leads back to itself" in sentence(picture_names, tmp_path)


@pytest.mark.parametrize("name", ["7", "x.png", "deep/x"])
def test_a_link_to_nothing_is_told(tmp_path, name):
    write(tmp_path / "deep" / "0_001.png")
    (tmp_path / name).symlink_to(tmp_path / "gone")
    for load in (load_digits, load_faces, load_photos):
        assert f"{name}' is a link to what is not there" in sentence(load, tmp_path)


@contextmanager
def ordinary_user():
    """Without root's rights, in a folder that anybody may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        for path in (folder, *folder.rglob("*")):
            path.chmod(stat.S_IRWXU)
        shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="permissions of POSIX")
def test_what_may_not_be_read_is_told_and_never_left_out():
    locked, said = [], {}
    with ordinary_user() as folder:
        if os.geteuid() == 65534:
            os.seteuid(0)
            folder.chmod(0o777)
            os.seteuid(65534)
        for number in range(10):
            write(folder / "faces" / "a" / f"{number}.png")
            write(folder / "faces" / "b" / f"{number}.png")
            write(folder / "hw2" / "digits" / "svhn" / "data" / f"{number}.png")
        (folder / "hw2" / "digits" / "svhn" / "train.csv").write_text("image_name,label\n0.png,1\n")
        (folder / "one").mkdir()
        write(folder / "one" / "0_1.png").chmod(0)
        with zipfile.ZipFile(folder / "locked.zip", "w") as archive:
            archive.write(folder / "faces" / "a" / "0.png", "0.png")
        for name in ("faces/b", "hw2/digits", "locked.zip"):
            (folder / name).chmod(0)
        for name, load in (("faces/b", load_faces), ("hw2/digits", load_digits), ("locked.zip", load_photos)):
            said[name] = sentence(load, folder / name.split("/")[0])
        said["one/0_1.png"] = sentence(load_digits, folder / "one")
        locked = [str(folder / name) for name in said]
    for path, words in zip(locked, said.values(), strict=True):
        assert words.startswith(f"'{path}' may not be read: its permissions")


@pytest.mark.parametrize("name", ["", "a" * 300, "no\nsuch", "no\0such", "no\udcffsuch"])
def test_names_that_are_no_source_are_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.chdir(write(tmp_path / "0_001.png").parent)
    for load in (load_digits, load_faces, load_photos, read_list):
        words = sentence(load, name)
        assert words.encode(), "it can be printed"


def test_names_of_any_bytes_are_read(tmp_path):
    names = [b"caf\xe9.png", "汉字 a.png".encode(), b"line\nbreak.png", b"'quote'.png"]
    for number, name in enumerate(names):
        write(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)), number)
    assert len(load_faces(tmp_path, "all", size=8)) == 4
    (tmp_path / "line\nbreak.png").write_bytes(b"no picture")
    assert "line\\nbreak.png' is not a picture" in sentence(load_faces, tmp_path, "all")


# --- zips -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.write(write(tmp_path / "0.png", 0), "0.png")
        file.write(write(tmp_path / "1.png", 1), "1.png")
    return path


def flipped(archive, offset_of_local, offset_of_central, value):
    """The zip with one field changed in both headers of its first entry."""
    content = bytearray(archive.read_bytes())
    content[offset_of_local] = value
    content[content.index(b"PK\x01\x02") + offset_of_central] = value
    archive.write_bytes(content)
    return archive


def test_an_encrypted_zip_and_an_unknown_compression_are_told(archive):
    whole = archive.read_bytes()
    for change in ((6, 8, 1), (8, 10, 97)):  # "is encrypted"; method 97
        archive.write_bytes(whole)
        flipped(archive, *change)
        for load in (load_faces, load_photos, load_digits):
            words = sentence(load, archive)
            assert "a.zip/0.png' is damaged, encrypted or compressed in an unknown way" in words or load is load_digits


def test_a_zip_that_was_cut_is_told(archive):
    whole = archive.read_bytes()
    for end in (0, 10, 100, len(whole) // 2, len(whole) - 5):
        archive.write_bytes(whole[:end])
        assert "a.zip' is not a zip of pictures" in sentence(load_faces, archive)


def test_a_zip_in_a_zip_holds_no_pictures(archive, tmp_path):
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(archive, "a.zip")
    assert "no pictures in '" in sentence(load_faces, tmp_path / "outer.zip")


def test_chinese_names_of_old_zips_are_read(tmp_path, archive):
    pixels = (tmp_path / "0.png").read_bytes()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("xxxx.png", pixels)
    archive.write_bytes(archive.read_bytes().replace(b"xxxx.png", "人臉".encode("big5") + b".png"))
    (name,) = picture_names(archive)
    assert list(read_pictures(archive, [name])) == [pixels]


def test_an_entry_that_was_added_again_counts_once_as_unzip_has_it(tmp_path, archive):
    with zipfile.ZipFile(archive, "a") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.write(tmp_path / "1.png", "0.png")
    assert list(read_pictures(archive, picture_names(archive))) == [(tmp_path / "1.png").read_bytes()] * 2


def test_digits_by_class_may_lie_in_a_zip(tmp_path):
    root = by_class(tmp_path / "root", count=2)
    shutil.make_archive(tmp_path / "root", "zip", root)
    assert load_digits(tmp_path / "root.zip").images.equal(load_digits(root).images)


@pytest.mark.parametrize("prefix, separator", [("./", "/"), ("", "\\"), (".\\", "\\"), ("/", "/"), ("../", "/")])
def test_zips_of_other_packers_are_read_as_the_folder_that_they_hold(tmp_path, prefix, separator):
    root = by_class(tmp_path / "root", count=2)
    write(root / "7" / ".ipynb_checkpoints" / "x.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(f"{prefix}7{separator}", b"")
        for path in sorted(root.rglob("*.png")):
            file.writestr(prefix + path.relative_to(root).as_posix().replace("/", separator), path.read_bytes())
    names = picture_names(tmp_path / "a.zip")
    assert names == picture_names(root) and len(names) == 20
    assert list(read_pictures(tmp_path / "a.zip", names)) == list(read_pictures(root, names))
    assert load_digits(tmp_path / "a.zip").labels.bincount().tolist() == [2] * 10


@pytest.mark.parametrize("name", ["1.HEIC", "a/1.heif", "1.raw", "1.dng", "1.svg", "1.psd"])
def test_pictures_of_kinds_that_are_not_read_are_told_and_not_left_out(tmp_path, name):
    write(tmp_path / "0.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"a picture")
    assert f"{name}' is of a kind that cannot be read; save it as PNG, or take it out" in sentence(load_faces, tmp_path)


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_every_suffix_is_found_and_read(tmp_path, suffix):
    Image.init()
    kind = {".jfif": "JPEG"}.get(suffix) or Image.EXTENSION.get(suffix)
    if kind not in Image.SAVE:
        pytest.skip("this Pillow was built without it")
    Image.new("RGB", (32, 32), (200, 100, 50)).save(tmp_path / f"a{suffix}", kind)
    expected = (200, 100, 50)
    pixels = load_photos(tmp_path)[0].astype(int)
    assert pixels.shape == (32, 32, 3) and abs(pixels - expected).max() <= 8
