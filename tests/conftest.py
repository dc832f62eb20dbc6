"""What every test shares: coroutines as tests, counts for the quick, the normal and the deep measure, seeds that are told.

    async def test_...      runs in an event loop of its own and fails after LIMIT_S
    count(20, 500)          20 rounds by default, 500 under `scripts/test deep`
    seed                    a number to draw from, shown when the test fails; FINN_TEST_SEED repeats it
"""

import asyncio
import inspect
import os
import random
from typing import Any

import hypothesis
import pytest

LIMIT_S = 30.0
DEEP = os.environ.get("FINN_TEST_DEEP") == "1"
SEED = int(os.environ.get("FINN_TEST_SEED") or random.SystemRandom().getrandbits(32))


def count(default: int, deep: int) -> int:
    """How often a test repeats itself: `default`, or `deep` when the full measure is asked for."""
    return deep if DEEP else default


hypothesis.settings.register_profile("finn", max_examples=count(50, 1000), deadline=None, print_blob=True)
hypothesis.settings.load_profile("finn")


@pytest.fixture
def seed() -> int:
    """The seed of this run. Printed, so that a failure shows the number that repeats it."""
    print(f"FINN_TEST_SEED={SEED}")  # noqa: T201 - pytest shows it with a failure and swallows it otherwise
    return SEED


def pytest_report_header() -> str:
    return f"finn: seed {SEED} (FINN_TEST_SEED repeats it), {'deep' if DEEP else 'normal'} counts"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test to its end. Fixtures stay synchronous: what needs the loop, the test opens itself."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    asyncio.run(_within_limit(pyfuncitem, arguments))
    return True


async def _within_limit(test: pytest.Function, arguments: dict[str, Any]) -> None:
    async with asyncio.timeout(LIMIT_S):
        await test.obj(**arguments)
