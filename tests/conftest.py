"""Settings and fixtures that the tests share."""

from pathlib import Path

import hypothesis
import pytest

# the same examples on every run and machine, and no clock: continuous integration has slow days
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None, max_examples=25)
hypothesis.settings.load_profile("steady")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]
