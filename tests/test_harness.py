"""The tests of the tests: what tests/conftest.py promises has to be able to fail."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = """
import asyncio
import pytest

async def test_that_passes(tmp_path): assert tmp_path.exists()
async def test_that_fails(): raise AssertionError("reached")
@pytest.mark.limit(0.01)
async def test_that_hangs(): await asyncio.Event().wait()
async def test_that_forgets_to_await(): asyncio.sleep(0)
"""


def test_a_coroutine_test_fails_where_it_should(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_pyfunc_call\n")
    (tmp_path / "test_example.py").write_text(EXAMPLE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(root / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        str(tmp_path),
    ]
    output = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False).stdout
    assert "AssertionError: reached" in output
    assert "::test_that_hangs - TimeoutError" in output
    assert "coroutine 'sleep' was never awaited" in output
    assert "3 failed, 1 passed" in output
