"""`dlcv_diffusion` is light to import: torch and numpy, nothing of the heavy rooms. Its help needs neither."""

import json
import statistics
import subprocess
import sys

import pytest

import dlcv_diffusion
from dlcv_diffusion import errors, samplers

HEAVY = [
    "matplotlib",
    "diffusers",
    "transformers",
    "accelerate",
    "open_clip",
    "torchvision",
    "ipywidgets",
    "tqdm",
    "PIL",
    "pydantic",
]

# The processor's time, not the clock's: an import waits for nothing, and a busy machine must not fail it.
PROBE = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.process_time()
from dlcv_diffusion import *
seconds = time.process_time() - start
brought = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps([seconds, sorted(brought)]))
"""


@pytest.fixture(scope="module")
def probes():
    runs = [subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True) for _ in range(3)]
    return [json.loads(run.stdout) for run in runs]


def test_it_takes_at_most_300_ms_over_torch(probes):
    assert statistics.median(seconds for seconds, _ in probes) < 0.3


def test_it_brings_nothing_but_torch_and_numpy(probes):
    brought = probes[0][1]
    assert not set(brought) & set(HEAVY)
    assert {name for name in brought if name not in sys.stdlib_module_names} <= {
        "dlcv_diffusion",
        "torch",
        "numpy",
    }


def test_every_name_is_there():
    assert all(hasattr(dlcv_diffusion, name) for name in dlcv_diffusion.__all__)
    assert sorted(dlcv_diffusion.__all__) == dlcv_diffusion.__all__
    assert dlcv_diffusion.ddim is samplers.ddim and dlcv_diffusion.UserError is errors.UserError
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = dlcv_diffusion.nothing


HELP = """
import sys, time
from dlcv_diffusion.cli import main
sys.argv = ["dlcv", *WORDS, "--help"]
try:
    main()
except SystemExit as end:
    print(time.process_time(), sorted({"torch", "numpy"} & set(sys.modules)), end.code)
"""


@pytest.mark.parametrize("words", [[], ["sample", "faces"]])
def test_help_is_quick(words):
    run = subprocess.run([sys.executable, "-c", HELP.replace("WORDS", repr(words))], capture_output=True, text=True)
    seconds, rest = run.stdout.splitlines()[-1].split(maxsplit=1)
    assert float(seconds) < 0.6 and rest == "[] 0", run.stdout + run.stderr
