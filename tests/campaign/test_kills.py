"""Thirty SIGKILLs at random moments of training runs, each with a resume: no bit is lost, nothing is left."""

import random
import shutil
import time

from small_runs import names, one_thread, small_train, start  # noqa: F401 – for every test here

from dlcv_diffusion.files import atomic_write
from dlcv_diffusion.models.registry import read_tensors

KILLS, STEPS = 30, 40
FILES = ["checkpoint.safetensors", "metrics.csv", "model.safetensors", "samples"]
FILES += [f"samples/step_{step:06d}.png" for step in [*range(3, STEPS, 3), STEPS]]


def preview(model, path):
    with atomic_write(path) as temporary:
        temporary.write_bytes(bytes(50_000))


def go_on(out):
    """Resume the run, or begin it; it is nearly always writing."""
    small_train(out, steps=STEPS, checkpoint_every=1, preview=preview, resume=True)


def tensors(path):
    return {name: value.numpy().tobytes() for name, value in read_tensors(path)[0].items()}


def metrics(out):
    """All but the rate, which is the clock's."""
    return [line.rsplit(",", 1)[0] for line in (out / "metrics.csv").read_text().splitlines()]


def finished(out, whole):
    """What a run that was killed has to be like in the end: the one that was not."""
    for name in ("checkpoint.safetensors", "model.safetensors"):
        assert tensors(out / name) == tensors(whole / name), name
    assert metrics(out) == metrics(whole)
    assert names(out) == FILES


def test_thirty_kills_lose_no_bit(tmp_path):
    out, whole, draw = tmp_path / "killed", tmp_path / "whole", random.Random(0)
    go_on(whole)
    checkpoint, deaths, lives = out / "checkpoint.safetensors", 0, 0
    while deaths < KILLS:
        lives += 1
        assert lives < 3 * KILLS
        begun = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process, patience = start(go_on, out), time.monotonic() + 20
        if draw.random() < 0.7:  # while it writes, from its first new checkpoint on; else as it begins
            while process.is_alive() and time.monotonic() < patience:
                if checkpoint.exists() and checkpoint.stat().st_mtime_ns != begun:
                    break
                time.sleep(0.001)
        time.sleep(0.1 * draw.random())
        process.kill()
        process.join(20)
        if process.exitcode == 0:  # it was quicker: the next one begins anew
            finished(out, whole)
            shutil.rmtree(out)
        else:
            assert process.exitcode == -9
            deaths += 1
        for path in out.glob("[!.]*.safetensors"):
            read_tensors(path)  # whole, or this raises
    go_on(out)
    finished(out, whole)
