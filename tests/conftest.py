"""Fixtures every test may use."""

import os
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots",
        metavar="FOLDER",
        help="browser tests keep the pictures of the documents there",
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real micrographs; tests that use it skip where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEMAGENT_DATA", default))
    if not (folder / "test").is_dir():
        pytest.skip(f"no real micrographs at {folder} (set SEMAGENT_DATA)")
    return folder
