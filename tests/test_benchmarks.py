"""The benchmarks run: one small round of each that needs neither a browser nor the peers, in a process of its own."""

import importlib
import os
import subprocess
import sys
from functools import partial

import pytest

# script and words: what must stand in its page
PAGES = {
    "gpu.py --device cpu --tiny --no-compile": [
        "4 images a batch: one guided DDPM step",
        "The course's files: 20 images",
        "Training: `training.train`",
        "η grid: 4 noises × 5 η",
    ],
    "training.py --quick": ["| faces, 8×8 ", "| here, float32 ", "| here, bf16 "],
    "emoji.py --quick": ["| white ", "| pair ", "| woodcut "],
    "zero_shot.py --quick": ["| tiny ", "transformers' pipeline"],
    "personalisation.py --quick": ["| diffusers' example's settings |", "| ours "],
    "timesteps.py --quick": ["| digits, 2 ", "| faces, 5 "],
    "ddim_faces.py --device cpu --quick": ["the pictures are the same to 1e-4", "DDIMScheduler, ms a step"],
}


@pytest.mark.parametrize("words", PAGES)
def test_a_benchmark_runs_and_writes_its_page(words, root, tmp_path):
    script, *options = words.split()
    out = tmp_path / "page.md"
    command = [sys.executable, root / "benchmarks" / script, *options, "--threads", "1", "--out", out]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    assert run.returncode == 0, run.stderr
    page = out.read_text(encoding="utf-8")
    assert page.strip() == run.stdout.strip()
    for line in PAGES[words]:
        assert line in page
    failed = [line for line in page.splitlines() if "failed:" in line]
    assert all("CUDA graphs need a GPU" in line for line in failed), failed


def test_moves_of_the_zero_shot_explorer_are_measured_without_a_browser(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "benchmarks")
    monkeypatch.setattr("dlcv_diffusion.zero_shot.explorer.MOST_PICTURES", 3)
    sliders = importlib.import_module("sliders")
    monkeypatch.setattr(sliders, "a_photograph", partial(sliders.a_photograph, 400, 300))
    times = sliders.zero_shot_moves(100)
    assert {name: len(spent) for name, spent in times.items()} == dict.fromkeys(sliders.ZERO_SHOT_AIMS, 2)
    assert min(times["a word"] + times["a template"]) >= 100, "the wait for the next key is in it"
    page = sliders.zero_shot_part(1)
    assert "1 moves each, in one process without a browser" in page and "| a photograph of 12 megapixels |" in page
