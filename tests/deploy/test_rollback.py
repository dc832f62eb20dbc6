"""What scripts/rollback does on each platform: its commands, in order, with what was said put in."""

import re
from pathlib import Path

import pytest

from deploy import rollback
from deploy.rollback import PLATFORMS, main

SAID = ["--to", "4f2a91c", "--app", "mine", "--image", "registry.example/finn:4f2a91c", "--at", "/opt/finn"]
URL = "https://finn.example"


def shown(capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    assert main([URL, "--dry-run", *options]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_every_platform_is_told_which_release_to_put_back(capsys: pytest.CaptureFixture[str], platform: str) -> None:
    told = "\n".join(shown(capsys, "--platform", platform, *SAID))
    assert "4f2a91c" in told
    assert not re.search(r"[{}]", told)


def test_on_fly_the_image_is_known_from_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = shown(capsys, "--platform", "fly", "--to", "4f2a91c", "--app", "mine")
    assert command == (
        "flyctl deploy --app mine --config deploy/fly/fly.toml --image registry.fly.io/mine:4f2a91c --yes"
    )


def test_what_a_platform_needs_and_nobody_said_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([URL, "--platform", "kubernetes", "--to", "4f2a91c"]) == 2
    assert capsys.readouterr().err == "rollback: --image is not said (a rollback on kubernetes needs it)\n"


def test_a_command_that_fails_ends_it_with_what_it_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    restart = tmp_path / "restart"
    restart.write_text("#!/bin/sh\necho no such release >&2; exit 7\n")
    restart.chmod(0o755)
    monkeypatch.setattr(rollback, "client_of", lambda _: pytest.fail("it was asked all the same"))
    assert main([URL, "--platform", "local", "--to", "4f2a91c", "--at", str(tmp_path)]) == 1
    failed = f"{restart} failed with 7: no such release (the broken release is there)"
    assert capsys.readouterr().err == f"rollback: {failed}\n"
