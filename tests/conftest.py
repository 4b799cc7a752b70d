"""Settings and fixtures that the tests share."""

from pathlib import Path

import hypothesis
import pytest

from dlcv_diffusion import cli

# the same examples on every run and machine, and no clock: continuous integration has slow days
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture
def dlcv(monkeypatch, capsys, tmp_path):
    """Run a command line in `tmp_path`: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(words):
        monkeypatch.setattr("sys.argv", ["dlcv", *words.split()])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return run
