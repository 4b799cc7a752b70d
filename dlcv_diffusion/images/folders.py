"""Pictures below a folder or inside a zip: the one reader that digits, photographs and faces share."""

import os
import posixpath
import stat
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import check
from ..reading import reading

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".webp", ".avif", ".bmp", ".gif")
PICTURE_SUFFIXES += (".tif", ".tiff", ".tga", ".ppm", ".pgm")
UNREAD_SUFFIXES = (".heic", ".heif", ".raw", ".dng", ".svg", ".psd")
"""Pictures that are not read, and therefore refused: to leave them out would change the data without a word."""

LITTER = ("__macosx", "@eadir", "thumbs.db", "desktop.ini")
LITTER += ("$recycle.bin", "#recycle", "lost+found", "system volume information")
"""What macOS's zips, network drives and Windows leave behind, deleted files among it; ignored as hidden files are."""

SOURCE = "give a folder or a zip of pictures"


def is_litter(name: str) -> bool:
    """Whether a file's or folder's name is hidden (`.DS_Store`, `._a.png`, `.ipynb_checkpoints`) or in `LITTER`.

    >>> [is_litter(name) for name in ("._a.png", "Thumbs.db", "a.png")]
    [True, True, False]
    """
    return name.startswith(".") or name.lower() in LITTER


def names_in(folder: str | Path, advice: str) -> list[str]:
    """The names of what lies in one folder, sorted, without litter.

    Raises `UserError`, "'folder' is not there; advice", where there is none or it may not be read.

    >>> names_in("hw2_data/face/GT", "give the course's images")   # doctest: +SKIP
    ['00.png', '01.png', '02.png']
    """
    with reading(folder, "is not a folder", advice):
        return sorted(name for name in os.listdir(folder) if not is_litter(name))


def picture_names(source: str | Path, under: str = "", advice: str = SOURCE) -> list[str]:
    """Names of the pictures below a folder or inside a zip, relative to it, with `/`, sorted as text.

    - under: only those whose names begin so, such as "train/".
    - advice: the end of each sentence, what to do instead.

    Pictures are known by their suffixes (`PICTURE_SUFFIXES`), links are followed, litter is left out. Raises
    `UserError` for a source that is missing, damaged or without pictures, pictures of another kind
    (`UNREAD_SUFFIXES`), a folder in it that may not be read, and a link to what is not there.

    >>> picture_names("faces64.zip")[0]   # doctest: +SKIP
    '00000.png'
    """
    with reading(source, "is not a zip of pictures", advice):
        if stat.S_ISDIR(os.stat(source).st_mode):
            names = files_below(source, advice)
        else:
            check(os.path.isfile(source), f"'{source}' is neither a file nor a folder; {advice}")
            with zipfile.ZipFile(source) as archive:
                names = _entries(archive)
    names = [name for name in sorted(names) if name.startswith(under) and not any(map(is_litter, name.split("/")))]
    unread = next((name for name in names if name.lower().endswith(UNREAD_SUFFIXES)), None)
    check(not unread, f"'{source}/{unread}' is of a kind that cannot be read; save it as PNG, or take it out")
    pictures = [name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
    where = f"'{source}'" + (f" under '{under}'" if under else "")
    check(pictures, f"no pictures in {where} ({', '.join(PICTURE_SUFFIXES)}); {advice}")
    return pictures


def all_names(source: str | Path, advice: str = SOURCE) -> list[str]:
    """Names of all files below a folder or inside a zip, as `picture_names` writes them; errors as of it.

    >>> all_names("paintings.zip")   # doctest: +SKIP
    ['0.png', '0.txt']
    """
    with reading(source, "is not a zip of pictures", advice):
        if stat.S_ISDIR(os.stat(source).st_mode):
            return sorted(files_below(source, advice))
        with zipfile.ZipFile(source) as archive:
            return sorted(_entries(archive))


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip by their names as shown, though it were packed with `\\`, `./` or `/` before them."""
    names = {entry.filename.replace("\\", "/"): entry for entry in archive.infolist()}
    return {posixpath.normpath(f"/{name}").lstrip("/"): names[name] for name in names if not name.endswith("/")}


def files_below(root: str | Path, advice: str) -> list[str]:
    """Names of all files below a folder, with `/`, through links too; a folder inside itself is entered once.

    Litter is left out. Raises `UserError`, with this advice at its end, for a folder that is missing or may not be
    read, and a link to what is not there.

    >>> files_below("/usr/share/fonts", "give a folder of fonts")   # doctest: +SKIP
    ['truetype/dejavu/DejaVuSans.ttf']
    """
    found, folders = [], [((), ())]
    while folders:
        below, above = folders.pop()
        folder = os.path.join(root, *below)
        if (real := os.path.realpath(folder)) in above:
            continue
        for name in names_in(folder, advice):
            with reading(os.path.join(folder, name), "cannot be read", advice):
                mode = os.stat(os.path.join(folder, name)).st_mode
            if stat.S_ISDIR(mode):
                folders.append(((*below, name), (*above, real)))
            elif stat.S_ISREG(mode):
                found.append("/".join((*below, name)))
    return found


def read_pictures(source: str | Path, names: Sequence[str], advice: str = SOURCE) -> Iterator[bytes]:
    """The contents of the pictures of a folder or a zip, in the order of their names.

    Raises `UserError` for one that is missing or may not be read; in a zip also for one that is damaged, encrypted or
    compressed in a way that Python does not know.

    >>> next(read_pictures("faces64.zip", ["00000.png"]))[:4]   # doctest: +SKIP
    b'\\x89PNG'
    """
    if os.path.isdir(source):
        for name in names:
            path = os.path.join(source, name)
            with reading(path, "is not a file that can be read", advice):
                content = Path(path).read_bytes()
            yield content
        return
    with reading(source, "is not a zip of pictures", advice):
        archive = zipfile.ZipFile(source)
        entries = _entries(archive)
    with archive:
        for name in names:
            fault = "is damaged, encrypted or compressed in an unknown way"
            with reading(f"{source}/{name}", fault, "make the zip again"):
                content = archive.read(entries[name])
            yield content
