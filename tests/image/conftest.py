"""The image, built once for all tests."""

import pytest

from tests.image.yard import MISSING, Yard


@pytest.fixture(scope="session")
def yard() -> Yard:
    """Where the image of this checkout is."""
    if MISSING:
        pytest.skip(MISSING)
    built = Yard()
    built.build()
    return built
