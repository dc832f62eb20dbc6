"""The Worker, the object and the container of deploy/cloudflare, in the real workerd before the real finn.

pytest ─▶ vitest ─▶ workerd: Worker ─▶ object ─▶ Machines: finn in a process ─▶ a bucket of a real S3 server
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
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
    assert re.search(r"Tests +[0-9]+ passed \([0-9]+\)", said), said  # and none was skipped


@pytest.mark.parametrize("folder", [DEPLOY, HERE], ids=["worker", "tests"])
def test_every_type_is_right(folder: Path) -> None:
    run(TOOLS / "typescript" / "bin" / "tsc", "--project", folder)


def test_the_configuration_says_only_what_wrangler_knows() -> None:
    schema = json.loads((TOOLS / "wrangler" / "config-schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(configuration())] == []
    slip = {**configuration(), "contaners": []}
    assert [error.message for error in validator.iter_errors(slip)] != []


def configuration() -> dict[str, Any]:
    """wrangler.jsonc without its comments, which have lines of their own."""
    lines = (DEPLOY / "wrangler.jsonc").read_text().splitlines()
    parsed: dict[str, Any] = json.loads("\n".join(line for line in lines if not line.lstrip().startswith("//")))
    return parsed


def test_a_deploy_would_succeed(tmp_path: Path) -> None:
    """With a stand-in for the Docker engine, which wrangler calls even for a dry run."""
    stub = tmp_path / "docker"
    stub.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/called\ncase $* in *"-f -"*) cat >{tmp_path}/Dockerfile ;; esac\n'
    )
    stub.chmod(0o755)
    said = run(
        *(TOOLS / "wrangler" / "bin" / "wrangler.js", "deploy", "--dry-run", "--outdir", tmp_path / "out"),
        WRANGLER_DOCKER_BIN=str(stub),
        XDG_CONFIG_HOME=str(tmp_path),
    )
    assert "env.AGENT (AgentContainer)" in said and "WARNING" not in said, said
    [exported] = re.findall(r"^export \{(.*?)\};", (tmp_path / "out" / "door.js").read_text(), re.DOTALL | re.MULTILINE)
    assert {"AgentContainer", "ContainerProxy"} <= set(re.findall(r"\w+", exported)), exported
    [build] = [line for line in (tmp_path / "called").read_text().splitlines() if line.startswith("build")]
    assert "--platform linux/amd64" in build and build.endswith(str(DEPLOY.parents[1])), build
    assert (tmp_path / "Dockerfile").read_bytes() == (DEPLOY.parents[1] / "Dockerfile").read_bytes()


def test_what_is_installed_is_pinned_and_the_lock_names_no_registry() -> None:
    package = json.loads((DEPLOY / "package.json").read_text())
    versions = {**package["dependencies"], **package["devDependencies"]}
    assert all(version[0].isdigit() for version in versions.values()), versions
    lock = (DEPLOY / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert all("integrity" in one for name, one in json.loads(lock)["packages"].items() if name)
