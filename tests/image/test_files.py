"""The files that the image and compose are made from: their own readers find nothing, and they say what is promised."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gateway import settings
from tests.deploy import linters

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "compose.yaml"
SCRIPTS = (*(path for path in (ROOT / "scripts").iterdir() if path.suffix in ("", ".sh")), ROOT / "tests/image/base")
SCHEMA = ("--builtin-schema", "vendor.compose-spec")


def of(name: str) -> Any:
    """A part of compose.yaml."""
    return yaml.safe_load(COMPOSE.read_text())["services"][name]


# ---------------------------------------------------------------- what reads them


@linters.needed
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert linters.said("hadolint", "Dockerfile") == (0, "")


@linters.needed
def test_hadolint_would_find_a_shell_form(tmp_path: Path) -> None:
    other = tmp_path / "Dockerfile"
    other.write_text((ROOT / "Dockerfile").read_text().replace('ENTRYPOINT ["finn"]', "ENTRYPOINT finn"))
    code, text = linters.said("hadolint", other)
    assert (code, "DL3025" in text) == (1, True)


@linters.needed
def test_compose_knows_every_word() -> None:
    assert linters.said("check-jsonschema", *SCHEMA, COMPOSE)[0] == 0


@linters.needed
def test_a_slip_of_the_pen_in_compose_is_found(tmp_path: Path) -> None:
    slip = tmp_path / "compose.yaml"
    slip.write_text(COMPOSE.read_text().replace("stop_grace_period", "stop_grace_time"))
    code, text = linters.said("check-jsonschema", *SCHEMA, slip)
    assert (code, "stop_grace_time" in text) == (1, True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="there is no shellcheck here")
def test_shellcheck_finds_nothing_in_any_script() -> None:
    done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# ---------------------------------------------------------------- what they promise


def test_compose_gives_finn_no_right_and_time_enough_to_stop() -> None:
    finn = of("finn")
    assert (finn["init"], finn["read_only"], finn["tmpfs"]) == (True, True, ["/tmp"])
    assert (finn["cap_drop"], finn["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert finn["volumes"] == ["data:/data"]
    budget = finn["environment"]["FINN_SHUTDOWN_BUDGET"].partition(":-")[2].removesuffix("}")
    assert settings.duration(finn["stop_grace_period"]) > settings.duration(budget)


def test_compose_starts_nothing_without_the_two_settings_that_finn_would_refuse_to_miss() -> None:
    asked = {name for name, value in of("finn")["environment"].items() if value.startswith(f"${{{name}:?")}
    assert asked == {"FINN_TOKEN", "FINN_PUBLIC_URL"}


def test_compose_publishes_finn_on_loopback_alone_and_the_store_nowhere() -> None:
    assert of("finn")["ports"] == ["127.0.0.1:8080:8080"]
    assert "ports" not in of("store")


def test_the_store_is_there_only_for_who_asks_for_it() -> None:
    assert of("store")["profiles"] == ["store"]
    assert of("finn")["depends_on"] == {"store": {"condition": "service_healthy", "required": False}}


@pytest.mark.parametrize("image", ["compose", "Dockerfile"])
def test_what_comes_from_a_registry_is_pinned_by_its_digest(image: str) -> None:
    base = (ROOT / "Dockerfile").read_text().partition("ARG BASE=")[2].split()[0]
    name, _, digest = (base if image == "Dockerfile" else of("store")["image"]).partition("@sha256:")
    assert (":" in name, len(digest)) == (True, 64)
