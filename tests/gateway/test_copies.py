"""What is kept where, as /api/storage tells it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.copies import Copies, Tier, Trouble, files_fact, local_tier, storage
from gateway.rooms import Rooms
from gateway.routes.storage import storage_routes
from persistence.beads import BEADS
from persistence.clock import iso
from persistence.disk import SystemDisk
from persistence.events import AGENT
from persistence.files import FILES, Files
from persistence.journal import Journal
from persistence.limits import Limits
from persistence.redact import Redactor
from tests.gateway.serving import serving
from tests.persistence.journals import opened

SECRET = "sk-0123456789abcdef"
NOW = 1_800_000_000.0


class House:
    """An open journal with both roots."""

    def __init__(self, journal: Journal, root: Path) -> None:
        self.journal = journal
        self.files = tuple(
            Files(journal, SystemDisk(), Redactor({"KEY": SECRET}), name, root / name, Limits(file_bytes=100))
            for name in ("grimoires", "workspace")
        )
        self.root = root
        for files in self.files:
            (root / files.name).mkdir()

    def write(self, path: str, data: bytes) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)

    async def look(self) -> None:
        for files in self.files:
            await files.look(AGENT)

    def told(self, *tiers: Tier) -> Any:
        here = local_tier(self.journal, NOW, "/data")
        copies = Copies(self.journal.seq, self.journal.epoch, (here, *tiers))
        return storage(copies, self.journal.whole(FILES), self.files)


@asynccontextmanager
async def house(root: Path) -> AsyncIterator[House]:
    async with opened(root, FILES, BEADS) as journal:
        yield House(journal, root)


@pytest.mark.parametrize(
    ("tier", "state"),
    [
        (Tier("store", 7), "saved"),
        (Tier("store", 7, lag_seq=1), "behind"),
        (Tier("store", None), "unknown"),
        (Tier("store", None, trouble=Trouble("it does not answer")), "failing"),
        (Tier("store", 7, trouble=Trouble("it does not answer")), "failing"),
    ],
)
def test_the_state_of_a_tier_follows_from_its_facts(tier: Tier, state: str) -> None:
    assert tier.state == state


async def test_without_copies_there_is_one_tier_and_it_has_everything(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.write("grimoires/NOTES.md", b"notes")
        await here.look()
        told = here.told()
        assert (told["seq"], told["epoch"], told["left_out"]) == (here.journal.seq, 1, [])
        assert told["tiers"][0].pop("bytes") > 0  # it grows by a watermark, whenever that comes
        assert told["tiers"] == [
            {
                "name": "local",
                "state": "saved",
                "last_seq": here.journal.seq,
                "at": iso(NOW),
                "lag_seq": 0,
                "lag_s": 0.0,
                "error": None,
                "since": None,
                "place": "/data",
            }
        ]
        assert [(one["path"], one["bytes"], one["tiers"]) for one in told["inventory"]] == [
            ("grimoires/NOTES.md", 5, ["local"])
        ]


async def test_a_file_is_where_its_record_is(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.write("grimoires/NOTES.md", b"notes")
        await here.look()
        before = here.journal.seq
        here.write("workspace/new.txt", b"new")
        (here.root / "workspace/link").symlink_to("new.txt")
        await here.look()
        told = here.told(Tier("store", here.journal.seq), Tier("git", before, lag_seq=2), Tier("git", None))
        assert {one["path"]: one["tiers"] for one in told["inventory"]} == {
            "grimoires/NOTES.md": ["local", "store", "git"],
            "workspace/link": ["local", "store"],
            "workspace/new.txt": ["local", "store"],
        }
        assert told["inventory"][1]["link"] == "new.txt"


async def test_a_deleted_file_is_in_no_inventory(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.write("workspace/a", b"a")
        await here.look()
        (here.root / "workspace/a").unlink()
        await here.look()
        assert here.told()["inventory"] == []


async def test_what_is_left_out_is_named_with_its_reason_and_a_person_is_told(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.write("workspace/big.iso", b"x" * 101)
        here.write("workspace/key.txt", SECRET.encode())
        here.write("workspace/node_modules/a/index.js", b"x")
        await here.look()
        assert here.told()["left_out"] == [
            {"path": "workspace/big.iso", "why": "larger than 100 bytes"},
            {"path": "workspace/key.txt", "why": "holds a known secret"},
            {"path": "workspace/node_modules", "why": "a folder of caches or dependencies"},
        ]
        fact = files_fact(here.files)
        assert fact.value == 2
        assert "workspace/big.iso (larger than 100 bytes), workspace/key.txt (holds a known secret)" in fact.output


async def test_where_nothing_is_left_out_nobody_is_told(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        here.write("workspace/node_modules/a/index.js", b"x")
        await here.look()
        assert (files_fact(here.files).value, files_fact(here.files).output) == (0, "")


async def test_many_that_are_left_out_are_counted(tmp_path: Path) -> None:
    async with house(tmp_path) as here:
        for number in range(9):
            here.write(f"workspace/{number}", b"x" * 101)
        await here.look()
        assert files_fact(here.files).output.endswith("2 (larger than 100 bytes) and 6 more; finn status lists them")


async def test_the_route_tells_it(tmp_path: Path) -> None:
    async with house(tmp_path / "data") as here:
        here.write("workspace/a", b"a")
        await here.look()
        rooms = cast(Rooms, SimpleNamespace(journal=here.journal, files=here.files))
        copies = Copies(here.journal.seq, 1, (local_tier(here.journal, NOW, "/data"),))
        routes = storage_routes(lambda: rooms, lambda: copies, lambda _: ())
        async with serving(tmp_path, routes=routes) as site:
            answer = await site.ask("GET /api/storage")
            assert answer.status == 200
            assert json.loads(answer.body) == storage(copies, here.journal.whole(FILES), here.files)
