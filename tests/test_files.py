"""Files and folders appear whole or not at all, whatever goes wrong in between."""

import os
import signal
import stat

import pytest
from small_runs import full_disk, names, start

from dlcv_diffusion import UserError
from dlcv_diffusion.files import atomic_write, remove_partials, staging_folder


def test_a_file_appears_when_it_is_written(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_write(target) as temporary:
        assert temporary.suffix == ".txt" and temporary.parent == target.parent
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole" and names(target.parent) == ["a.txt"]


def test_a_file_has_the_mode_that_open_gives_it(tmp_path):
    umask = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_text("")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_an_exception_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")
    with full_disk(100), pytest.raises(UserError, match="cannot write .*a'.*free space"):  # noqa: SIM117
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_bytes(bytes(1000))
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


@pytest.mark.parametrize("target", ["file/a", "file/deeper/a", "folder"])
def test_what_cannot_be_written_is_told(tmp_path, target):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"cannot write '.*{target}'"), atomic_write(tmp_path / target) as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(UserError, match=f"cannot write '.*{name}': Is no file"), atomic_write(tmp_path / name):
            raise ZeroDivisionError
        with pytest.raises(UserError, match="Is no file"), staging_folder(tmp_path) as staging:
            (staging / name).write_text("new")
    assert names(tmp_path) == ["link", "pipe"] and (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("parent", [".", "new", "new/deeper"])
def test_new_parents_are_removed_after_a_failure(tmp_path, parent):
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / parent / "a"):
        raise ZeroDivisionError
    with full_disk(100), pytest.raises(UserError, match="too large"), atomic_write(tmp_path / parent / "a") as file:
        file.write_bytes(bytes(1000))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["a" * 251 + ".txt", "图" * 83 + ".txt", "a" * 255], ids=["ascii", "utf-8", "no suffix"]
)
def test_a_name_may_be_as_long_as_the_system_allows(tmp_path, name):
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_text("whole")
    assert names(tmp_path) == [name]
    with pytest.raises(UserError, match="cannot write .*: File name too long"):  # noqa: SIM117
        with atomic_write(tmp_path / f"{name}-longer") as temporary:
            temporary.write_text("whole")


def write_and_die(target):
    with atomic_write(target) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")
    process = start(write_and_die, tmp_path / "a")
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "old" and len(names(tmp_path)) == 2
    remove_partials(tmp_path)
    assert names(tmp_path) == ["a"]


def stage_and_die(out):
    with staging_folder(out, ["b"]) as staging:
        (staging / "b" / "1").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_killed_processes_left_is_removed_from_its_folder_alone(tmp_path):
    run = tmp_path / "run"
    for target, way in ((run / "samples" / "step_1.png", write_and_die), (run, stage_and_die)):
        process = start(way, target)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    left = names(run)
    assert len(left) == 6  # b, samples; a file half written; a folder with a folder with a file
    kept = ["notes.partial.txt", ".partial-notes.txt", ".my.partial.png", ".partial-", "samples/.step.partial.png"]
    for name in kept:
        (run / name).write_text("the user's own")
    remove_partials(run)
    (below,) = (name for name in left if name.startswith("samples/."))  # it may be another process's, at work
    assert names(run) == sorted([*kept, "b", "samples", below])
    remove_partials(run / "samples")
    assert names(run) == sorted([*kept, "b", "samples"])


def test_a_staged_folder_replaces_its_files_and_no_others(tmp_path):
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    (out / "a" / "1").write_text("old")
    (out / "a" / "2").write_text("stays")
    with staging_folder(out, ["a", "b"]) as staging:
        (staging / "a" / "1").write_text("new")
        (staging / "b" / "deep").mkdir()
        (staging / "b" / "deep" / "3").write_text("new")
        assert (out / "a" / "1").read_text() == "old"
    assert names(out) == ["a", "a/1", "a/2", "b", "b/deep", "b/deep/3"]
    assert [(out / "a" / name).read_text() for name in "12"] == ["new", "stays"]


@pytest.mark.parametrize("out", ["out", "new", "new/deeper"])
def test_a_failure_leaves_the_folder_as_it_was(tmp_path, out):
    (tmp_path / "out").mkdir()
    with pytest.raises(ZeroDivisionError), staging_folder(tmp_path / out, ["a"]) as staging:
        (staging / "a" / "1").write_text("half")
        raise ZeroDivisionError
    with full_disk(100), pytest.raises(UserError, match="File too large"), staging_folder(tmp_path / out) as staging:
        (staging / "1").write_text("one")
        (staging / "2").write_bytes(bytes(1000))
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("in_the_way", ["out", "out/b"])
def test_what_is_in_the_way_is_told_before_the_work(tmp_path, in_the_way):
    (tmp_path / in_the_way).parent.mkdir(exist_ok=True)
    (tmp_path / in_the_way).write_text("a file")
    before, worked = names(tmp_path), False
    with pytest.raises(UserError, match="cannot write"), staging_folder(tmp_path / "out", ["a", "b"]):
        worked = True
    assert names(tmp_path) == before and not worked


def test_nothing_is_moved_where_one_file_cannot_be(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match="cannot write '.*b': Is a directory"), staging_folder(tmp_path) as staging:
        for name in "abc":
            (staging / name).write_text("new")
    assert names(tmp_path) == ["b"]
