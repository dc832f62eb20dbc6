"""The messages of a session as REST gives them."""

from pathlib import Path

from gateway import transcript
from gateway.frames import frame
from persistence.clock import iso
from persistence.events import OWNER, SYSTEM, EntryRecovered, Event
from tests.persistence.journals import STREAM, answer, commit, ended, opened, prompt, say


def recovered(event: Event, parent: str | None) -> EntryRecovered:
    data = event.model_dump(mode="json")
    return EntryRecovered(origin="9-9", type=event.kind, version=1, data=data, at=7, by=OWNER, parent=parent)


async def test_what_was_recovered_is_shown_in_its_new_place_and_says_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        (first,) = await say(journal, "one")
        asked = await journal.commit(recovered(prompt("lost"), first.entry), stream=STREAM, by=SYSTEM)
        told = await journal.commit(recovered(answer("an answer"), asked.entry), stream=STREAM, by=SYSTEM)
        silent = await journal.commit(recovered(ended(), None), stream=STREAM, by=SYSTEM)
        await commit(journal, answer("two"))
        for page in (
            await transcript.forwards(journal, STREAM, 0, 10, notes=True),
            await transcript.backwards(journal, STREAM, journal.seq + 1, 10, notes=True),
        ):
            one, lost, again, two = page.messages
            assert (lost["id"], lost["parent"], lost["text"], lost["role"]) == (
                asked.entry,
                first.entry,
                "lost",
                "user",
            )
            assert (again["id"], again["parent"], again["role"]) == (told.entry, asked.entry, "assistant")
            assert lost["created_at"] == iso(0.007)
            assert [message.get("recovered") for message in (one, lost, again, two)] == [None, True, True, None]
        made = frame(told)
        assert made is not None
        assert made["type"] == "note"
        assert made["data"]["recovered"] is True
        assert "an answer" in made["data"]["text"]
        assert frame(silent) is None
