"""Networks, digits and runs that are small enough for tests, and processes to run them in, which can be killed.

The processes are forked from a server that has imported torch already: some milliseconds each instead of seconds.
"""

import json
import multiprocessing
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from dlcv_diffusion import NoiseSchedule, UserError, cli, files
from dlcv_diffusion.images.arrays import ImageArrays
from dlcv_diffusion.models import ContextUnet, UNet
from dlcv_diffusion.models.unet import SelfAttention
from dlcv_diffusion.training import TrainConfig, train

SCHEDULE = NoiseSchedule.linear(20)


@pytest.fixture(autouse=True)
def one_thread():
    """For a module that imports it: at these sizes, a second thread costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def with_random_weights(model, seed=0):
    """Parameters and BatchNorm's statistics at random: a new U-Net ends in zeros, and would hide most mistakes."""
    draw = generator(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            values = 0.1 * torch.randn(tensor.shape, generator=draw)
            tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return model.eval()


def small_unet(**changes):
    return UNet(**{"channels": (16, 24), "blocks": 1, "num_classes": 20, "emb_channels": 32, **changes})


def small_context_unet(**changes):
    return ContextUnet(**{"height": 8, "width": 8, "n_feat": 8, "n_cfeat": 20, **changes})


def small_digits(count=40, size=8):
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator(), dtype=torch.uint8)
    return ImageArrays(images, torch.arange(count) % 20)


def write_npz(path, count=40, label=None):
    """An .npz of 28×28 digits, as `--data` takes it."""
    data = small_digits(count, 28)
    labels = data.labels.numpy() if label is None else np.full(count, label)
    np.savez(path, images=data.images.numpy(), labels=labels)
    return path


def small_network(name, seed=0):
    """The network of the small run, "UNet" or "ContextUnet"."""
    if name == "UNet":
        return with_random_weights(small_unet(channels=(8, 16), timesteps=20), seed)
    return with_random_weights(small_context_unet(n_downs=1, timesteps=20), seed)


def attentive(model, gain=20.0):
    """A network in which attention matters: at random, its matrices hardly differ from a mean."""
    for module in model.modules():
        if isinstance(module, SelfAttention):
            for layer in (module.qkv, module.out):
                layer.weight.data *= gain**0.5
    return model


RUN_OPTIONS = ("preview", "checkpoint_every", "resume", "metadata")


def small_train(out, **changes):
    """A run of six steps on 8×8 images, as a list of its states."""
    return list(small_train_states(out, **changes))


def small_train_states(out, *, model="UNet", seed=0, **changes):
    """The same as it comes, state by state."""
    options = {name: changes.pop(name) for name in RUN_OPTIONS if name in changes}
    options = {"checkpoint_every": 2, "preview_every": 3, "device": "cpu", **options}
    config = TrainConfig(**{"steps": 6, "batch_size": 4, "warmup": 2, "clip_grad": 1.0, **changes})
    return train(small_network(model, seed), small_digits(), SCHEDULE, config, out, **options)


# --- folders and disks ------------------------------------------------------------------------------------------------


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def full_disk(room):
    """No file can grow beyond `room` bytes: writing fails as it does on a disk without space."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# --- processes --------------------------------------------------------------------------------------------------------

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["small_runs", "dlcv_diffusion.digits.training", "accelerate", "torchvision"])


def start(target, *arguments):
    process = SERVER.Process(target=_begin, args=(target, arguments), daemon=True)
    process.start()
    return process


def _begin(target, arguments):
    torch.set_num_threads(1)
    target(*arguments)


def command_line(*words):
    """`dlcv …` in a process of its own."""
    sys.argv = ["dlcv", *map(str, words)]
    cli.main()


def train_and_die(out, moment):
    """Resume the small run and be killed when the file number `moment` is half-written; None: live."""
    count, fsync = 0, os.fsync

    def dying(descriptor):
        nonlocal count
        count += 1
        if count == moment:
            partial = Path(f"/proc/self/fd/{descriptor}").resolve() if os.path.exists("/proc") else None
            if partial:
                os.truncate(partial, partial.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(descriptor)

    files.os.fsync = dying
    small_train(out, resume=True)


def train_endlessly(out):
    """Resume a longer run that is nearly always writing, until somebody kills it."""
    small_train(out, steps=80, checkpoint_every=1, resume=True)


def one_of_two(rank, port, folder):
    """What a launcher starts, for the process `rank` of two. Leaves what it saw in `folder / {rank}.json`."""
    world = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "OMP_NUM_THREADS": 1}
    os.environ |= {name: str(value) for name, value in world.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    seen = {}

    def sentence(**options):
        try:
            small_train(**options)
        except UserError as error:
            return str(error)

    def no_room(model, path):
        raise UserError(f"no room for '{path.name}'")

    seen["losses"] = [state.loss for state in small_train(folder / "run")]
    seen["odd batch"] = sentence(out=folder / "odd", batch_size=3)
    seen["no room"] = sentence(out=folder / "full", preview=no_room)
    seen["twice"] = sentence(out=folder / "run")
    (folder / f"{rank}.json").write_text(json.dumps(seen))
    words = ["train", "digits", "--preset", "tiny", "--data", folder / "digits.npz", "--device", "cpu"]
    log = (folder / f"{rank}.err").open("w", buffering=1)
    sys.stdout = sys.stderr = log
    sys.stderr.isatty = lambda: True  # a terminal would show every bar there is
    command_line(*words, "--out", folder / "cli", "--steps", 2, "--batch-size", 2, "--preview-every", 100)
