"""What every test shares: coroutines as tests, counts for the normal and the deep measure, seeds that are told.

async def test_...      runs in an event loop of its own and fails after LIMIT_S
count(20, 500)          20 rounds by default, 500 under `scripts/test deep`
limit                   `@pytest.mark.limit(120)` on a coroutine that is allowed more than LIMIT_S
seed                    a number to draw from, shown when the test fails; FINN_TEST_SEED repeats it
"""

import asyncio
import inspect
import os
import random
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

NODE = Path(sys.executable).with_name("node")  # pinned by requirements-test.lock
CHROMIUM = Path("/usr/bin/chromium")  # Debian's

LIMIT_S = 30.0
DEEP_FACTOR = 20  # how much longer a coroutine may take when it counts deep
DEEP = os.environ.get("FINN_TEST_DEEP") == "1"
SEED = int(os.environ.get("FINN_TEST_SEED") or random.SystemRandom().getrandbits(32))


def count(default: int, deep: int) -> int:
    """How often a test repeats itself: `default`, or `deep` when the full measure is asked for."""
    return deep if DEEP else default


hypothesis.settings.register_profile(
    "finn",
    max_examples=count(50, 1000),
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # a busy machine tells nothing about the code
)
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
    asyncio.run(_in_time(pyfuncitem.obj(**arguments), _limit_s(pyfuncitem)))
    return True


def _limit_s(test: pytest.Function) -> float:
    mark = test.get_closest_marker("limit")
    return (mark.args[0] if mark else LIMIT_S) * count(1, DEEP_FACTOR)


async def _in_time(test: Coroutine[Any, Any, None], limit_s: float) -> None:
    async with asyncio.timeout(limit_s):
        await test


@pytest.fixture(autouse=True)
def _same_umask() -> Iterator[None]:
    """The command line narrows the umask of its process, which is ours where a test calls it."""
    before = os.umask(0o077)
    os.umask(before)
    yield
    os.umask(before)
