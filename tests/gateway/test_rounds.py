"""One doctor at a time, and who waits for it."""

import asyncio
import os
from pathlib import Path
from threading import Event

import pytest

from gateway.problem import Refused
from gateway.rounds import LOOKS, Rounds
from persistence.clock import FakeClock, Ids
from persistence.disk import SystemDisk
from persistence.events import OWNER, By
from persistence.replay import Paths
from scheduler.site import Site

CATEGORIES = ("config", "dirs", "disk", "deploy", "beads", "identity", "sandbox")


async def test_who_may_look_cannot_keep_away_who_may_mend(tmp_path: Path) -> None:
    may_look = Event()

    def see(_: asyncio.AbstractEventLoop, by: By) -> Site:
        may_look.wait()
        return Site(Paths(tmp_path), SystemDisk(), FakeClock(), network=False)

    rounds = Rounds(see, Ids(FakeClock(), os.urandom), "1")
    different = [asyncio.create_task(rounds.look([name])) for name in CATEGORIES[:LOOKS]]
    same = [asyncio.create_task(rounds.look([CATEGORIES[0]])) for _ in range(50)]
    await asyncio.sleep(0)
    try:
        for name in CATEGORIES[LOOKS:]:
            with pytest.raises(Refused) as refused:
                await rounds.look([name])
            assert refused.value.code == "busy"
        mending = asyncio.create_task(rounds.fix(["config"], (), OWNER))
    finally:
        may_look.set()
    assert {report["findings"][0]["category"] for report in await asyncio.gather(*different)} == {*CATEGORIES[:LOOKS]}
    assert len({id(report) for report in await asyncio.gather(*same)}) == 1
    assert (await mending)["fix"] is None
    assert (await rounds.look([CATEGORIES[-1]]))["findings"]
