"""The agent's own files, broken each in one way."""

import asyncio
import shutil
from pathlib import Path

import pytest

from gateway.site import site_of
from scheduler.checks.identity import CHECKS
from tests.scheduler.ward import Ward, new_ward
from tests.scheduler.ward import _live as live

TEMPLATE = (Path(__file__).parents[2] / "grimoires" / "BEAUVOIR.md").read_bytes()


@pytest.fixture
def ward() -> Ward:
    return new_ward()


def _file(ward: Ward, name: str = "BEAUVOIR.md") -> Path:
    return ward.root / "grimoires" / name


def test_identity_file(ward: Ward) -> None:
    good = _file(ward).read_bytes()
    _file(ward).unlink()
    assert "is not there" in ward.examine()["identity.file"].detail
    ward.cured("identity.file")
    assert _file(ward).read_bytes() == good


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"I am \xff\xfe", "is not UTF-8 at its byte 5"),
        (b"x" * 65_537, "has 65537 bytes, more than 65536"),
    ],
)
def test_an_identity_that_cannot_be_used_is_put_back_as_the_log_has_it(ward: Ward, data: bytes, said: str) -> None:
    good = _file(ward).read_bytes()
    _file(ward).write_bytes(data)
    assert said in ward.examine()["identity.file"].detail
    ward.cured("identity.file")
    assert _file(ward).read_bytes() == good


def test_an_identity_of_which_the_log_has_nothing_left_comes_from_the_template(ward: Ward) -> None:
    _file(ward).unlink()
    for blob in (ward.root / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    ward.fix("identity.file")
    assert _file(ward).read_bytes() == TEMPLATE


def test_a_folder_in_the_identitys_place_goes_to_where_the_undo_finds_it(ward: Ward) -> None:
    _file(ward).unlink()
    _file(ward).mkdir()
    (_file(ward) / "kept").write_text("mine")
    assert "is no plain file" in ward.examine()["identity.file"].detail
    ward.cured("identity.file")


def test_identity_notes(ward: Ward) -> None:
    good = _file(ward, "NOTES.md").read_bytes()
    _file(ward, "NOTES.md").write_bytes(b"\xff")
    assert "NOTES.md is not UTF-8" in ward.broken("identity.notes").detail
    ward.cured("identity.notes")
    assert _file(ward, "NOTES.md").read_bytes() == good


def test_notes_may_be_missing(ward: Ward) -> None:
    _file(ward, "NOTES.md").unlink()
    assert ward.examine()["identity.notes"].severity == "pass"


def test_identity_changed(ward: Ward) -> None:
    _file(ward).write_text("I am somebody else.\n")
    finding = ward.broken("identity.changed", severity="info")
    assert finding.data["sha256"] != finding.data["in_log"]


def test_identity_writable(ward: Ward) -> None:
    folder = ward.root / "grimoires" / "memory"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o500)
    assert "grimoires/memory" in ward.examine()["identity.writable"].detail
    ward.cured("identity.writable")
    folder.chmod(0o700)


def test_a_folder_that_is_gone_is_left_to_the_next_start_which_writes_all_of_it(ward: Ward) -> None:
    notes = _file(ward, "NOTES.md").read_bytes()
    shutil.rmtree(ward.root / "grimoires")
    finding = ward.examine()["identity.file"]
    assert (finding.severity, finding.fixability) == ("warn", "notfixable")
    assert "would delete the others" in finding.data["blocked"]
    ward.fix()
    assert not (ward.root / "grimoires" / "BEAUVOIR.md").exists()
    asyncio.run(live(ward.environ))
    assert _file(ward, "NOTES.md").read_bytes().startswith(notes)
    assert _file(ward).read_bytes() == TEMPLATE


def test_a_directory_that_was_never_started_lacks_nothing(tmp_path: Path) -> None:
    site = site_of({"FINN_DATA_DIR": str(tmp_path / "none"), "FINN_MODEL": "builtin"})
    assert {check.look(site).severity for check in CHECKS if check.id != "identity.changed"} == {"pass"}
