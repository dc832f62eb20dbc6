"""What several of the end-to-end files work with: a server of buckets, a bucket of one's own, a Chromium."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import CHROMIUM
from tests.end_to_end.bucket import Bucket
from tests.s3_server import S3Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture
def bucket(tmp_path: Path, server: S3Server) -> Iterator[Bucket]:
    one = Bucket(tmp_path, server)
    yield one
    one.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    from playwright.sync_api import expect, sync_playwright  # imported on use: most of these files need no browser

    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
