"""The Worker, the object and the container of deploy/cloudflare, in the real workerd before the real finn.

pytest ─▶ vitest ─▶ workerd: Worker ─▶ object ─▶ Machines: finn in a process ─▶ a bucket of a real S3 server
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.cloudflare.machines import Machines
from tests.conftest import NODE
from tests.s3_server import KEY_ID, SECRET, S3Server

HERE = Path(__file__).parent
DEPLOY = Path(__file__).parents[2] / "deploy" / "cloudflare"
TOOLS = DEPLOY / "node_modules"
TOKEN = "0123456789abcdef" * 4
SCRIPT = {
    "replies": [
        {"when": "take your time", "calls": [[{"text": "Well"}, {"sleep": 600}]]},
        [{"text": "echo: {prompt}"}],
    ],
    "loop": True,
}
PATIENCE_S = 180

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path = DEPLOY, **more: str) -> str:
    """What a command of Node says. It asks no other machine for anything."""
    inherited = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    quiet = {"CI": "1", "NO_COLOR": "1", "WRANGLER_SEND_METRICS": "false", "NO_UPDATE_NOTIFIER": "1"}
    done = subprocess.run(
        [NODE, *command],
        cwd=cwd,
        env={**inherited, **quiet, "PATH": f"{NODE.parent}:{os.environ['PATH']}", **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def bindings(machines: Machines, bucket: str, server: S3Server, folder: Path) -> Mapping[str, str]:
    """What a person sets with `wrangler secret put` and in wrangler.jsonc."""
    script = folder / "script.json"
    script.write_text(json.dumps(SCRIPT))
    return {
        "MACHINES": machines.url,
        "FINN_TOKEN": TOKEN,
        "FINN_MODEL": f"scripted:{script}",
        "FINN_STORE_URL": f"s3://{bucket}",
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


def test_the_worker_passes_its_tests_in_workerd_before_the_real_finn(tmp_path: Path) -> None:
    with S3Server() as server, Machines(tmp_path) as machines:
        given = bindings(machines, server.bucket(), server, tmp_path)
        said = run(TOOLS / "vitest" / "vitest.mjs", "run", cwd=HERE, FINN_TEST_BINDINGS=json.dumps(given))
    assert "passed" in said and "failed" not in said and "skipped" not in said, said
