"""What a start does with a turn that ran when the process ended.

The answer keeps what was checkpointed of it, marked as interrupted; a call without a result gets one that says its
outcome is unknown; user and model are told. Nothing is run again by itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agent.model import About
from agent.session import SESSIONS, add
from persistence.events import (
    SYSTEM,
    AssistantMessage,
    CallFailed,
    Event,
    MessageCheckpointed,
    NoteAdded,
    Problem,
    Record,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolEnded,
    TurnEnded,
    Usage,
    seq_of,
)
from persistence.journal import Journal

PAGE = 1000  #: records read at once

UNKNOWN_OUTCOME = (
    "Interrupted: finn stopped while this ran. Whether it took effect is unknown; look before you repeat it."
)
INTERRUPTED = Problem(
    code="interrupted",
    message="finn was stopped while it was answering",
    hint="nothing was run again; say `go on` to continue",
)
NOTE = "finn was stopped while you were answering and has been started again; your last answer may be incomplete."


@dataclass
class Remains:
    """What an interrupted turn left: calls without a result, a message that was being written, what it had cost.

    `told`: the note about it is there already.
    """

    calls: dict[str, ToolCallBlock] = field(default_factory=dict)
    partial: MessageCheckpointed | None = None
    told: bool = False
    usage: Usage = field(default_factory=Usage)


def remains(events: Iterable[Event]) -> Remains:
    """What the events of one turn leave open."""
    left = Remains()
    for event in events:
        if isinstance(event, AssistantMessage):
            left.calls = {block.id: block for block in event.content if isinstance(block, ToolCallBlock)}
            left.partial = None
            left.usage = add(left.usage, event.usage)
        elif isinstance(event, ToolEnded):
            left.calls.pop(event.call, None)
        elif isinstance(event, CallFailed) and event.retry_in_s is not None:
            left.partial = None  # the last failure is followed by what there was of the answer
        elif isinstance(event, NoteAdded):
            left.told = event.text == NOTE
        elif isinstance(event, MessageCheckpointed):
            left.partial = event
    return left


async def close_interrupted(journal: Journal, session: str, about: About) -> None:
    """Closes the running turn of a session; begun and interrupted itself, it goes on. Raises StorageError."""
    running = journal.streams(SESSIONS)[session].running
    if running is None:
        return
    turn = running.turn
    since = await _since(journal, session, seq_of(running.entry))
    left = remains(one.event for one in since if getattr(one.event, "turn", None) == turn)

    async def commit(make: Callable[[str | None], Event]) -> None:
        await journal.commit(make(journal.streams(SESSIONS)[session].leaf), stream=session, by=SYSTEM)

    for call in left.calls.values():
        await commit(lambda parent, call=call: _unknown(turn, parent, call))  # type: ignore[misc]
    if left.partial is not None:
        partial = left.partial
        await commit(lambda parent: _beginning(partial, parent, about))
    if not left.told:
        await commit(lambda parent: NoteAdded(turn=turn, parent=parent, text=NOTE))
    await commit(lambda _: TurnEnded(turn=turn, stop_reason="interrupted", error=INTERRUPTED, usage=left.usage))


def _unknown(turn: str, parent: str | None, call: ToolCallBlock) -> ToolEnded:
    return ToolEnded(turn=turn, parent=parent, call=call.id, name=call.name, result=UNKNOWN_OUTCOME, is_error=True)


def _beginning(partial: MessageCheckpointed, parent: str | None, about: About) -> AssistantMessage:
    thinking = (ThinkingBlock(thinking=partial.thinking),) if partial.thinking else ()
    text = (TextBlock(text=partial.text),) if partial.text else ()
    return AssistantMessage(
        turn=partial.turn,
        parent=parent,
        content=(*thinking, *text),
        api=about.api,
        provider=about.provider,
        model=about.name,
        usage=Usage(),
        stop_reason="interrupted",
        error=INTERRUPTED,
    )


async def _since(journal: Journal, session: str, seq: int) -> list[Record]:
    records: list[Record] = []
    while page := await journal.read(session, after=records[-1].seq if records else seq - 1, limit=PAGE):
        records.extend(page)
    return records
