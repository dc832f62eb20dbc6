"""What the model is sent: the path from a session's leaf to its root, as messages, within the window.

    records ─ entries ─▶ {id: Entry} ─ path(leaf) ─▶ [Entry…] ─ cut ─▶ [Entry…] ─ messages ─▶ (Message…)

An entry's message is made once and kept, so that a model may cache the form it sends. What a provider would refuse is
mended here, for every way a session can have been left: a call without a result gets one that says so, an answer that
broke off keeps its text but not its calls, an empty answer is left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.interruption import UNKNOWN_OUTCOME
from agent.model import Assistant, Message, Result, User
from persistence.events import (
    AssistantMessage,
    NoteAdded,
    Record,
    SteerTaken,
    TextBlock,
    ToolCallBlock,
    ToolEnded,
    TurnStarted,
    Usage,
    UserMessage,
)
from persistence.journal import Journal
from persistence.upcast import as_said

CHARS_PER_TOKEN = 4
WINDOW_SHARE = 0.8  #: of the model's window, for the whole request
PAGE = 256  #: records read at once on the way back


@dataclass(frozen=True, slots=True)
class Entry:
    """A node of the session's tree, as the model sees it. `message` is None where it sees nothing."""

    id: str
    parent: str | None
    turn: str
    message: Message | None
    chars: int
    usage: Usage | None = None


def entry_of(record: Record) -> Entry | None:
    """The node that a record is, or None: most records are not part of the conversation."""
    event = as_said(record).event
    if isinstance(event, UserMessage):
        return Entry(record.entry, event.parent, event.turn, User(event.text), len(event.text))
    if isinstance(event, NoteAdded):
        text = f"[Note from finn, not from the user: {event.text}]"
        return Entry(record.entry, event.parent, event.turn, User(text), len(text))
    if isinstance(event, ToolEnded):
        result = Result(event.call, event.name, event.result, event.is_error)
        return Entry(record.entry, event.parent, event.turn, result, len(event.result))
    if isinstance(event, AssistantMessage):
        said = _said(event)
        usage = event.usage if event.stop_reason in ("stop", "length", "tool_use") else None
        return Entry(record.entry, event.parent, event.turn, said, _chars(said) if said else 0, usage)
    return None


def _said(event: AssistantMessage) -> Assistant | None:
    """The answer as the model may hear it again: whole, or the text of what broke off."""
    whole = event.stop_reason in ("stop", "length", "tool_use")
    content = event.content if whole else tuple(b for b in event.content if isinstance(b, TextBlock) and b.text)
    return Assistant(content, event.provider, event.model) if content else None


def _chars(said: Assistant) -> int:
    return sum(len(block.model_dump_json()) for block in said.content)


def entries(records: Iterable[Record]) -> dict[str, Entry]:
    """The nodes in some records, by id. A message that waited has the place that its turn gave it."""
    found: dict[str, Entry] = {}
    for record in records:
        entry = entry_of(record)
        if entry is not None:
            found[entry.id] = entry
        elif isinstance(record.event, TurnStarted | SteerTaken) and record.event.entry in found:
            event = record.event
            found[event.entry] = replace(found[event.entry], parent=event.parent, turn=event.turn)
    return found


def path(nodes: Mapping[str, Entry], leaf: str | None, until: str | None = None) -> list[Entry]:
    """The entries from the first known ancestor (or `until`) to the leaf, each once.

    A message that was placed twice, since the record of its turn's start is lost, may be its own ancestor.
    """
    found: dict[str, Entry] = {}
    while leaf is not None and leaf in nodes and leaf not in found:
        found[leaf] = nodes[leaf]
        if leaf == until:
            break
        leaf = nodes[leaf].parent
    return list(found.values())[::-1]


async def load(journal: Journal, session: str, leaf: str | None, until: str | None, window: int) -> list[Entry]:
    """The newest entries of a session, oldest first: from `until`, or as many as could fit the window.

    Raises Damaged or NotFound where a body cannot be read.
    """
    records: list[Record] = []
    before = journal.seq + 1
    enough = window * CHARS_PER_TOKEN
    while True:
        page = await journal.read(session, before=before, limit=PAGE, last=True)
        records[:0] = page
        found = path(entries(records), leaf, until)
        complete = bool(found) and (found[0].id == until or found[0].parent is None)
        if len(page) < PAGE or complete or sum(one.chars for one in found) > enough:
            return found if complete else _whole_turns(found)
        before = page[0].seq


def _whole_turns(found: list[Entry]) -> list[Entry]:
    """Without the head of a turn whose beginning was not read."""
    first = next((i for i, one in enumerate(found) if one.turn != found[0].turn), 0) if found else 0
    return found[first:]


def cut(found: Sequence[Entry], fixed_chars: int, window: int) -> int:
    """How many entries to leave out from the front, in whole turns, so that the request fits its share of the window.

    `fixed_chars` is what the system prompt and the tools take. The running turn, the last, always stays.
    """
    budget = window * WINDOW_SHARE
    ratio = _ratio(found, fixed_chars)
    size = (fixed_chars + sum(one.chars for one in found)) * ratio
    left_out = 0
    while found and size > budget:
        turn = found[left_out].turn
        end = next((i for i in range(left_out, len(found)) if found[i].turn != turn), None)
        if end is None:
            break
        size -= sum(one.chars for one in found[left_out:end]) * ratio
        left_out = end
    return left_out


def _ratio(found: Sequence[Entry], fixed_chars: int) -> float:
    """Tokens a character, measured by the last call whose usage the provider told, else a quarter."""
    for index in range(len(found) - 1, -1, -1):
        usage = found[index].usage
        if usage is not None and usage.totalTokens:
            chars = fixed_chars + sum(one.chars for one in found[: index + 1])
            return min(max(usage.totalTokens / max(chars, 1), 0.1), 1.0)
    return 1 / CHARS_PER_TOKEN


def messages(found: Iterable[Entry]) -> tuple[Message, ...]:
    """The messages of some entries, every tool call followed by its result, in the order of the calls."""
    given: list[Message] = []
    calls: dict[str, Result] = {}
    for entry in found:
        message = entry.message
        if isinstance(message, Result):
            if message.call in calls:
                calls[message.call] = message
            continue
        if message is None:
            continue
        given.extend(calls.values())
        calls = {}
        given.append(message)
        if isinstance(message, Assistant):
            calls = {
                b.id: Result(b.id, b.name, UNKNOWN_OUTCOME, True)
                for b in message.content
                if isinstance(b, ToolCallBlock)
            }
    given.extend(calls.values())
    return tuple(given)
