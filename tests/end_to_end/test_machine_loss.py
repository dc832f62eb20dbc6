"""The machine is gone while finn works on it. Whatever copy is left, the next one goes on where it stopped.

What a test notes down while it talks to the first machine is what the second has to know. The store is a folder or a
bucket of a real S3 server; git is a repository of its own.
"""

import asyncio
import http.client
import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.end_to_end.finn import ECHO, LOOK_S, Finn, Frame, made, slow, until
from tests.end_to_end.machines import (
    TOKEN,
    Bucket,
    Directory,
    Place,
    Remote,
    gone,
    lose,
    ready,
    saved,
    source,
    state,
    texts,
    tier,
)
from tests.s3_server import S3Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LONG = "long " * 60_000  #: more than stays in a record
KEEP = {
    "when": "keep",
    "calls": [
        [
            {"tool": "write", "args": {"path": "{prompt}.txt", "content": "{prompt}"}},
            {"tool": "remember", "args": {"text": "{prompt}"}},
        ],
        [{"text": "Kept: {prompt}"}],
    ],
}
SLOW = {"when": "socket", "calls": [[slow("You said: {prompt}", chunk=8, delay=0.01)]]}
REPLIES = (KEEP, SLOW, ECHO)
CUT = (OSError, http.client.HTTPException, ConnectionClosed, InvalidHandshake, TimeoutError)  #: by a kill


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def machines(tmp_path: Path) -> Iterator["Machines"]:
    them = Machines(tmp_path)
    yield them
    for it in them.all:
        it.kill()


class Machines:
    """Those of one test; none outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all: list[Finn] = []

    def one(self, *places: Place | Remote, start: bool = True, name: str = "one", **settings: str) -> Finn:
        said = {name: text for place in places for name, text in place.settings.items()}
        it = made(self.folder / name, REPLIES, {"FINN_TOKEN": TOKEN, **said, **settings})
        self.all.append(it)
        if start:
            it.start()
        return it


# ---------------------------------------------------------------- under load


@dataclass
class Notes:
    """What the clients of a machine know for certain."""

    heard: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  #: acknowledged, by session
    kept: list[str] = field(default_factory=list)  #: turns with tools that came to their end

    def copy(self) -> "Notes":
        return Notes({session: [*said] for session, said in self.heard.items()}, [*self.kept])

    @property
    def enough(self) -> bool:
        return len(self.kept) >= 4 and len(self.heard) == 3 and all(len(said) >= 2 for said in self.heard.values())


async def talk_by_rest(it: Finn, notes: Notes, session: str, word: str) -> None:
    """One prompt after the other, each with the end of its turn, until nobody answers."""
    for number in range(10_000):
        text = f"{word}-{number}"
        try:
            answer = await asyncio.to_thread(
                it.ask, "POST", f"/api/sessions/{session}/messages?wait=true", {"text": text}
            )
        except CUT:
            return
        if answer.status != 200:
            return
        notes.heard[session].append(text)
        if word == "keep" and answer.json["reply"] == f"Kept: {text}":
            notes.kept.append(text)


async def talk_by_socket(it: Finn, notes: Notes, session: str) -> None:
    """The same on a socket: noted is what was acknowledged, though its answer may still be on its way."""
    try:
        async with it.open(session) as line:
            for number in range(10_000):
                said = await line.say(f"socket-{number}")
                notes.heard[session].append(f"socket-{number}")
                await line.until("turn_end", partial(of_turn, said["turn"]))
    except CUT:
        return


def of_turn(turn: object, frame: Frame) -> bool:
    return bool(frame["turn"] == turn)


async def lose_under_load(it: Finn, sessions: list[str], keep_going: Any) -> Notes:
    """The machine's disk is deleted while it works, and it is killed. Returns what it had promised until then."""
    notes, (tools, rest, socket) = Notes(), sessions
    async with asyncio.TaskGroup() as clients:
        clients.create_task(talk_by_rest(it, notes, tools, "keep"))
        clients.create_task(talk_by_rest(it, notes, rest, "rest"))
        clients.create_task(talk_by_socket(it, notes, socket))
        while not notes.enough:
            await asyncio.sleep(LOOK_S)
        known = await asyncio.to_thread(keep_going, notes)
        await asyncio.to_thread(gone, it.data)
        refused = await asyncio.to_thread(
            it.ask, "POST", f"/api/sessions/{rest}/messages", {"text": "into the void"}, {"Idempotency-Key": "void"}
        )
        assert refused.status >= 500, "nothing is promised on a disk that is gone"
        await asyncio.to_thread(it.kill)
    gone(it.data)
    return known or notes


def knows(it: Finn, notes: Notes, session: str) -> None:
    """It has every word of it, the memory and the files, and says so to its model."""
    for one, said in notes.heard.items():
        there = [text for text in texts(it, one) if text.startswith(("keep-", "rest-", "socket-"))]
        assert there[: len(said)] == said, "what was acknowledged, once and in order"
        assert len(there) == len(set(there)), "and nothing twice"
    memory = (it.data / "grimoires/NOTES.md").read_text()
    assert [text for text in notes.kept if text not in memory] == []
    files = {path.name: path.read_text() for path in (it.data / "workspace").iterdir()}
    assert {f"{text}.txt": text for text in notes.kept}.items() <= files.items()
    it.idle(session)
    assert it.say(session, "what do you know?")["reply"] == "You said: what do you know?"
    told = json.dumps(it.sent()[-1]["messages"])
    assert [text for text in notes.heard[session] if f'"{text}"' not in told] == []


@pytest.mark.limit(60)
@pytest.mark.parametrize(("where", "level"), [("folder", "local"), ("bucket", "store")])
async def test_a_machine_that_is_lost_while_it_works_goes_on_with_all_it_had_promised(
    machines: Machines, s3: S3Server, where: str, level: str
) -> None:
    place = Directory(machines.folder) if where == "folder" else Bucket(s3)
    it = await asyncio.to_thread(machines.one, place, FINN_DURABILITY=level)
    sessions = [it.new_session(word) for word in ("tools", "rest", "socket")]

    def keep_going(notes: Notes) -> Notes | None:
        if level == "store":
            return None  # every promise counts
        known = notes.copy()
        saved(it)
        return known

    notes = await lose_under_load(it, sessions, keep_going)
    await asyncio.to_thread(it.start)
    assert (source(it)["observedValue"], source(it)["status"]) == ("store", "pass")
    await asyncio.to_thread(knows, it, notes, sessions[1])
    assert [it.ask("GET", f"/api/sessions/{one}").json["title"] for one in sessions] == ["tools", "rest", "socket"]
    assert it.stop() == 0
    assert it.verify()["ok"]


@pytest.mark.limit(60)
async def test_a_machine_that_is_lost_with_its_bucket_goes_on_with_all_that_git_has(machines: Machines) -> None:
    place, remote = Directory(machines.folder), Remote(machines.folder)
    it = await asyncio.to_thread(machines.one, place, remote, FINN_ARCHIVE_INTERVAL="1s")
    sessions = [it.new_session(word) for word in ("tools", "rest", "socket")]

    def keep_going(notes: Notes) -> Notes:
        known, seq = notes.copy(), it.ask("GET", "/api/storage").json["seq"]
        until(lambda: remote.seq >= seq, "never archived")
        place.take_away()
        return known

    notes = await lose_under_load(it, sessions, keep_going)
    await asyncio.to_thread(it.start)
    assert source(it)["observedValue"] == "git"
    assert tier(it, "store")["state"] == "failing"
    await asyncio.to_thread(knows, it, notes, sessions[1])
    place.bring_back()


# ---------------------------------------------------------------- the same state by every way


def lived(it: Finn) -> str:
    """A life with one of everything: a sealed chunk, a blob, files, a compacted log and a tail behind it."""
    session = it.new_session("a life")
    it.say(session, "keep-one")
    for number in range(4):
        it.say(session, f"{number}" * 80_000)
    it.say(session, LONG)
    until(lambda: any(path.is_file() for path in (it.data / "chunks").rglob("*")), "the session was never sealed")
    (it.data / "workspace" / "by-hand.txt").write_text("a person wrote this")
    assert it.stop() == 0  # what a clean stop puts together
    it.start()
    for number in range(3):
        it.say(session, f"keep-{number}")
    saved(it)
    return session


def restored(it: Finn, to: Path, *arguments: str) -> Any:
    """What `finn restore` says that it made."""
    done = it.command("restore", "--to", str(to), "--json", *arguments)
    assert done.returncode == 0, done
    return json.loads(done.stdout)


def of(told: Any) -> tuple[int, str]:
    return told["seq"], told["state_sha"]


def test_the_state_is_the_same_by_every_way(machines: Machines, s3: S3Server) -> None:
    place, remote, folder = Bucket(s3), Remote(machines.folder), machines.folder
    it = machines.one(place, remote, FINN_ARCHIVE_INTERVAL="1s")
    session = lived(it)
    said, seq = texts(it, session), it.ask("GET", "/api/storage").json["seq"]
    until(lambda: remote.seq >= seq and tier(it, "store")["last_seq"] >= remote.seq)
    it.kill()

    here = state(it.data)
    assert of(restored(it, folder / "store", "--from", "store")) == here
    assert state(folder / "store") == here, "also where what was written on the way is read again"
    at = restored(it, folder / "at", "--from", "store", "--at", str(remote.seq))
    assert json.loads(remote.git("show", "state/main:STATE.json"))["state_sha"] == at["state_sha"]

    for disk, bucket, origin in ((False, True, "local"), (True, False, "store"), (True, True, "git")):
        if disk:
            gone(it.data)
        if bucket:
            place.empty()
        it.start()
        assert source(it)["observedValue"] == origin
        assert texts(it, session) == said
        saved(it)
        it.kill()
        assert of(restored(it, folder / f"after-{origin}", "--from", "store")) == state(it.data)


# ---------------------------------------------------------------- one flipped bit


@dataclass(frozen=True)
class Past:
    """A life that is over: its store, its session, and what was said in it."""

    store: Path
    session: str
    said: list[str]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    folder = tmp_path_factory.mktemp("past")
    machines, place = Machines(folder), Directory(folder)
    it = machines.one(place)
    session = lived(it)
    it.kill()
    it.start()  # so that the newest manifest is one that HINT does not name
    said = texts(it, session)
    it.kill()
    return Past(place.folder, session, said)


def copied(past: Past, folder: Path) -> Directory:
    """The store of that life, to be damaged."""
    place = Directory(folder)
    shutil.copytree(past.store, place.folder, dirs_exist_ok=True)
    return place


def newest(place: Directory, kind: str) -> str:
    return max(key for key in place.objects() if key.startswith(f"main/{kind}/") and not key.endswith("HINT"))


def flip(place: Directory, key: str, rng: random.Random) -> str:
    """One bit of the object is another one. Returns its key as finn tells it."""
    data = bytearray(place.objects()[key])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    place.put(key, bytes(data))
    return key.removeprefix("main/")


def lost(past: Past, found: list[str]) -> list[str]:
    """What is not there any more: one run of what was said, and all the rest is there."""
    count = len(past.said) - len(found)
    at = next(n for n in range(len(found) + 1) if past.said[:n] + past.said[n + count :] == found)
    return past.said[at : at + count]


def test_a_flipped_bit_in_what_describes_the_log_is_told_and_costs_nothing(
    machines: Machines, past: Past, seed: int
) -> None:
    rng, place = random.Random(seed), copied(past, machines.folder)
    flipped = [flip(place, newest(place, kind), rng) for kind in ("manifest", "snap", "seg")]
    it = machines.one(place)
    assert source(it)["observedValue"] == "store"
    assert [key for key in flipped if key not in source(it)["output"]] == []
    assert it.ask("GET", "/health").json["status"] == "warn"
    assert texts(it, past.session) == past.said
    assert it.say(past.session, "and on")["reply"] == "You said: and on"
    assert (it.data / "workspace" / "by-hand.txt").read_text() == "a person wrote this"
    assert it.stop() == 0
    assert it.verify()["ok"]


def test_a_flipped_bit_in_a_body_costs_that_body_alone_and_it_is_named(
    machines: Machines, past: Past, seed: int
) -> None:
    rng, place = random.Random(seed), copied(past, machines.folder)
    (blob,) = (key for key, data in place.objects().items() if "/blob/" in key and data == b"a person wrote this")
    chunk = newest(place, "chunk")
    flipped = [flip(place, key, rng) for key in (blob, chunk)]
    proof = machines.one(place, start=False).command("verify", "--store", "--json")
    assert proof.returncode == 1
    assert [key for key in flipped if key not in " ".join(json.loads(proof.stdout)["store"]["problems"])] == []

    it = machines.one(place)
    assert source(it)["observedValue"] == "store"
    assert 0 < len(lost(past, texts(it, past.session))) < len(past.said)
    told = {name: one[0].get("output", "") for name, one in it.ask("GET", "/health").json["checks"].items()}
    assert f"of {past.session}" in told["recovery:source"], "which records of which session"
    assert "workspace/by-hand.txt" in told["files:leftOut"]
    assert it.say(past.session, "and on")["reply"] == "You said: and on"


def test_a_flipped_bit_in_a_body_that_git_has_costs_nothing_and_it_is_told(
    machines: Machines, past: Past, seed: int
) -> None:
    rng, place, remote = random.Random(seed), copied(past, machines.folder), Remote(machines.folder)
    it = machines.one(place, remote)
    assert it.stop() == 0  # with a commit of everything
    assert remote.seq
    gone(it.data)
    (blob,) = (key for key, data in place.objects().items() if "/blob/" in key and data == b"a person wrote this")
    flipped = [flip(place, key, rng) for key in (blob, newest(place, "chunk"))]
    it.start()
    assert source(it)["observedValue"] == "store"
    assert texts(it, past.session) == past.said
    assert (it.data / "workspace" / "by-hand.txt").read_text() == "a person wrote this"
    assert [key for key in flipped if key not in it.log] == []
    assert it.stop() == 0
    assert it.verify()["ok"]


def test_a_flipped_bit_in_the_last_of_the_log_costs_those_records_alone_and_they_are_named(
    machines: Machines, past: Past, seed: int
) -> None:
    place = copied(past, machines.folder)
    tail = (key for key, data in place.objects().items() if "/log/" in key and b'"text":"Kept: keep-1"' in data)
    key = max(tail)
    place.put("main/manifest/HINT", b"\x00")  # which is advice, and costs nothing
    whole, flipped = place.objects()[key].decode(), flip(place, key, random.Random(seed))
    it = machines.one(place)
    told = source(it)
    assert (told["observedValue"], told["status"]) == ("store", "warn")
    assert flipped in told["output"]
    assert [text for text in lost(past, texts(it, past.session)) if text not in whole] == []
    assert it.say(past.session, "and on")["reply"] == "You said: and on"
    assert it.stop() == 0
    verdict = it.verify()
    assert (verdict["ok"], len(verdict["gaps"])) == (True, 1), "a gap that is declared"


def test_a_tampered_identity_is_neither_believed_nor_replaced_nor_recorded(machines: Machines, past: Past) -> None:
    place = copied(past, machines.folder)
    mine = (ROOT / "grimoires" / "BEAUVOIR.md").read_bytes()
    key = f"main/blob/{sha256(mine).hexdigest()}"
    assert place.objects()[key] == mine
    place.put(key, b"I am evil.")
    it = machines.one(place)
    for _ in range(2):
        assert not (it.data / "grimoires" / "BEAUVOIR.md").exists()
        assert "grimoires/BEAUVOIR.md" in it.ask("GET", "/health").json["checks"]["files:leftOut"][0]["output"]
        kept = {one["path"]: one["sha256"] for one in it.ask("GET", "/api/storage").json["inventory"]}
        assert kept["grimoires/BEAUVOIR.md"] == sha256(mine).hexdigest()
        it.say(past.session, "who are you?")
        assert "evil" not in it.sent()[-1]["system"]
        assert it.stop() == 0
        it.start()
    it.kill()
    assert place.objects()[key] == b"I am evil."  # nobody signs for it
    place.put(key, mine)
    it.start()
    assert (it.data / "grimoires" / "BEAUVOIR.md").read_bytes() == mine


# ---------------------------------------------------------------- a store that does not answer, and one that is empty


def test_a_start_without_its_bucket_claims_nothing_there_and_catches_up_when_it_answers(
    machines: Machines, s3: S3Server
) -> None:
    place = Bucket(s3)
    it = machines.one(place)
    session = it.new_session()
    it.say(session, "in the bucket")
    saved(it)
    it.kill()
    before = place.objects()
    place.take_away()
    it.start()
    assert (source(it)["observedValue"], ready(it)) == ("local", "ok")
    assert it.say(session, "on this disk")["reply"] == "You said: on this disk"
    health = it.ask("GET", "/health").json
    assert (health["status"], health["checks"]["store:lastError"][0]["status"]) == ("warn", "warn")
    it.kill()
    place.bring_back()
    assert place.objects() == before, "nothing was claimed or overwritten"
    it.start()
    it.say(session, "and on")
    saved(it)
    said = texts(it, session)
    lose(it)
    it.start()
    assert (source(it)["observedValue"], texts(it, session)) == ("store", said)


def test_an_empty_disk_without_its_bucket_serves_no_prompt_and_comes_up_by_itself(
    machines: Machines, s3: S3Server
) -> None:
    place = Bucket(s3)
    it = machines.one(place)
    session = it.new_session()
    it.say(session, "keep-me")
    saved(it)
    lose(it)
    place.take_away()
    it.start()
    for method, path in (("POST", f"/api/sessions/{session}/messages"), ("GET", "/api/sessions")):
        asked = it.ask(method, path, {"text": "do you know me?"} if method == "POST" else None)
        assert (asked.status, asked.code) == (503, "store_unavailable")
    assert (ready(it), it.ask("GET", "/livez").status, it.ask("GET", "/").status) == ("starting", 200, 200)
    assert it.ask("GET", "/health").json["status"] == "warn"
    assert not (it.data / "grimoires" / "NOTES.md").exists(), "no template takes the place of what is not known"
    it.restart()  # as an impatient supervisor would
    assert ready(it) == "starting"
    place.bring_back()
    until(lambda: ready(it) == "ok")
    assert source(it)["observedValue"] == "store"
    assert "keep-me" in (it.data / "grimoires" / "NOTES.md").read_text()
    assert it.say(session, "and on")["reply"] == "You said: and on"


# ---------------------------------------------------------------- by command, while it runs


def test_a_copy_is_proven_and_rebuilt_elsewhere_while_finn_goes_on(machines: Machines, past: Past) -> None:
    place, remote = copied(past, machines.folder), Remote(machines.folder)
    it = machines.one(place, remote, FINN_ARCHIVE_INTERVAL="1s")
    seq = it.ask("GET", "/api/storage").json["seq"]
    until(lambda: remote.seq >= seq)
    saved(it)
    proof = it.command("verify", "--store", "--json")
    assert (proof.returncode, json.loads(proof.stdout)["store"]["ok"]) == (0, True)
    for name in ("store", "git"):
        told = restored(it, machines.folder / f"from-{name}", "--from", name)
        assert (told["source"], told["problems"]) == (name, [])
        other = machines.one(start=False, name=f"other-{name}")
        shutil.move(machines.folder / f"from-{name}", other.data)
        other.start()
        assert texts(other, past.session) == past.said
        assert (other.data / "workspace" / "by-hand.txt").read_text() == "a person wrote this"
        assert other.say(past.session, "elsewhere")["reply"] == "You said: elsewhere"
        assert other.verify()["ok"]
    assert (ready(it), texts(it, past.session)) == ("ok", past.said)
    assert it.say(past.session, "here")["reply"] == "You said: here"
    saved(it)
    assert it.command("verify", "--store").returncode == 0


# ---------------------------------------------------------------- what is told of the copies is so


def test_a_copy_that_fails_is_never_told_to_be_newer_than_it_is(machines: Machines) -> None:
    place, remote = Directory(machines.folder), Remote(machines.folder)
    it = machines.one(place, remote, FINN_ARCHIVE_INTERVAL="1s")
    session = it.new_session()
    it.say(session, "in both")
    seq = it.ask("GET", "/api/storage").json["seq"]
    until(lambda: all((tier(it, name)["last_seq"] or 0) >= seq for name in ("store", "git")))
    place.take_away()
    away = remote.folder.rename(remote.folder.with_name("away.git"))
    before = {name: tier(it, name) for name in ("store", "git")}
    it.say(session, "in neither")
    until(lambda: all(tier(it, name)["state"] == "failing" for name in ("store", "git")))
    for name, told in before.items():
        now = tier(it, name)
        assert (now["last_seq"], now["at"]) == (told["last_seq"], told["at"]), "the last copy is as old as it was"
        assert (now["lag_seq"] > 0, bool(now["error"])) == (True, True)
    assert it.ask("GET", "/health").json["status"] == "warn"
    place.bring_back()
    away.rename(remote.folder)
    seq = it.ask("GET", "/api/storage").json["seq"]
    until(lambda: all(tier(it, name)["state"] == "saved" for name in ("store", "git")), "it never healed")
    assert remote.seq >= seq


def test_empty_snapshots_hide_nothing_that_is_in_the_log(machines: Machines) -> None:
    it = machines.one()
    session = it.new_session()
    for number in range(3):
        it.say(session, f"{number}")
        assert it.stop() == 0
        it.start()
    said = texts(it, session)
    assert it.stop() == 0
    snapshots = [*(it.data / "snapshots").iterdir()]
    assert len(snapshots) >= 2
    for path in snapshots:
        path.write_bytes(b"")
    it.start()
    assert texts(it, session) == said
    assert source(it)["status"] == "warn", "and it is said"
    assert it.say(session, "and on")["reply"] == "You said: and on"
