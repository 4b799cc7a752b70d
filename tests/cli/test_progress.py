"""What `dlcv train` says while it runs into a log, and what is kept when it is stopped."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from small_runs import (
    names,
    one_thread,  # noqa: F401 – for every test here
    small_train_states,
    write_npz,
)

from dlcv_diffusion.cli import progress
from dlcv_diffusion.models.registry import read_header
from dlcv_diffusion.training.loop import Rhythm

TRAIN = "train digits --preset tiny --data digits.npz --batch-size 2 --device cpu --out run --seed 3"
LINE = re.compile(r"step [\d,]+ of [\d,]+, loss \d+\.\d{4}, \d+ img/s(, \d+:\d\d:\d\d left)?")


@pytest.fixture
def run(tmp_path):
    """A run in a process of its own, whose output goes into a log, as `dlcv … > log 2>&1` has it."""
    write_npz(tmp_path / "digits.npz")
    processes = []

    def begin(options, prelude=""):
        log = (tmp_path / "log").open("w")
        words = ["dlcv", *f"{TRAIN} {options}".split()]
        # a shell lets its background jobs, and what they begin, ignore Ctrl-C
        heard = "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
        code = f"{heard}\nsys.argv = {words}\n{prelude}\nfrom dlcv_diffusion import cli\ncli.main()"
        processes.append(subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=log, stderr=log))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def wait_for(path, pattern, patience=120):
    until = time.monotonic() + patience
    while not re.search(pattern, text := path.read_text(), re.MULTILINE):
        assert time.monotonic() < until, f"not said: {pattern}\n{text}"
        time.sleep(0.1)
    return text


def test_a_log_says_what_it_trains_on_and_where_it_stands(dlcv, tmp_path, monkeypatch):
    write_npz(tmp_path / "digits.npz")
    monkeypatch.setattr(progress, "EVERY", 0.0)
    code, out, err = dlcv(f"{TRAIN} --steps 4")
    data, *lines, end = out.splitlines()
    assert (code, err) == (0, "") and data == "data: 'digits.npz', of which some are held out"
    assert len(lines) == 4 and all(map(LINE.fullmatch, lines)) and end == "trained weights: run/model.safetensors"
    assert "left" not in lines[0] and "left" in lines[1] and lines[3].startswith("step 4 of 4")


def test_a_log_has_a_line_now_and_then_and_one_for_the_first_and_the_last_step(dlcv, tmp_path):
    write_npz(tmp_path / "digits.npz")
    out = dlcv(f"{TRAIN} --steps 4")[1]
    assert [line.split()[1] for line in out.splitlines() if LINE.fullmatch(line)] == ["1", "4"]
    assert progress.EVERY <= 60


def test_the_sample_is_named_with_its_size(dlcv, tmp_path):
    code, out, _ = dlcv("train digits --preset tiny --batch-size 2 --device cpu --out run --steps 1")
    assert code == 0 and out.startswith("data: the sample of 4,000 digits that ships")


def test_resume_without_a_checkpoint_says_so_and_begins(dlcv, tmp_path):
    write_npz(tmp_path / "digits.npz")
    code, out, _ = dlcv(f"{TRAIN} --steps 2 --resume")
    assert code == 0 and "there is no checkpoint in 'run' to go on from; the run begins with step 1\n" in out
    code, out, _ = dlcv(f"{TRAIN} --steps 2 --resume")
    assert code == 0 and "no checkpoint" not in out


def test_ctrl_c_keeps_the_step_and_says_how_to_go_on(run, tmp_path):
    process = run("--steps 5000")
    wait_for(tmp_path / "log", "^step 1 of 5,000")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = (tmp_path / "log").read_text()
    kept = re.search(
        r"kept: step ([\d,]+) of 5,000, in 'run/checkpoint.safetensors'; the same command with --resume", said
    )
    step = int(kept[1].replace(",", ""))
    assert said.endswith("dlcv: stopped\n") and "Traceback" not in said
    assert read_header(tmp_path / "run" / "checkpoint.safetensors")["checkpoint"]["step"] == step
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == step + 1
    run("--steps 5000 --resume")
    wait_for(tmp_path / "log", rf"^step {step + 1:,} of 5,000, ")


def test_ctrl_c_before_the_first_step_says_that_nothing_was_kept(run, tmp_path):
    slow = "import time, dlcv_diffusion.digits.data as data\n"
    slow += "data.load_digits = lambda *_, **__: (print('reading', flush=True), time.sleep(100))"
    process = run("--steps 5", slow)
    wait_for(tmp_path / "log", "^reading")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = (tmp_path / "log").read_text()
    assert "nothing was kept, since there is no checkpoint yet; the same command begins anew" in said
    assert "Traceback" not in said and not (tmp_path / "run").exists()


def test_a_stopped_run_reaches_the_same_weights(tmp_path):
    """The checkpoint of the stop lies between two others."""
    list(small_train_states(tmp_path / "whole", checkpoint_every=4))
    states = small_train_states(tmp_path / "stopped", checkpoint_every=4)
    for _ in range(3):
        next(states)
    with pytest.raises(KeyboardInterrupt):
        states.throw(KeyboardInterrupt)
    assert names(tmp_path / "stopped") == ["checkpoint.safetensors", "metrics.csv"]
    resumed = list(small_train_states(tmp_path / "stopped", checkpoint_every=4, resume=True))
    assert [state.step for state in resumed] == [4, 5, 6]
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert one == other


def test_metrics_come_by_the_clock_and_a_checkpoint_after_a_minute(tmp_path, monkeypatch):
    monkeypatch.setattr(Rhythm, "METRICS", 0.0)
    states = small_train_states(tmp_path / "run", checkpoint_every=100)
    next(states)
    assert not os.path.exists(tmp_path / "run" / "metrics.csv")  # which would be of no run after a kill
    monkeypatch.setattr(Rhythm, "FIRST", 0.0)
    next(states)
    assert names(tmp_path / "run") == ["checkpoint.safetensors", "metrics.csv"]
    next(states)
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 4
    assert read_header(tmp_path / "run" / "checkpoint.safetensors")["checkpoint"]["step"] == 2
