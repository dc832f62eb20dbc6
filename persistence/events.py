"""What can happen, and what it is once it is durable.

An Event is a fact in the past tense: a frozen model with a `kind` and a version `v`. A Record is an event that has its
place in the log. EVENTS is the whole vocabulary; adding a fact is one class and one line there. Field names inside
content blocks and usage are Pi's (camel case), because sessions are Pi sessions.

    log       gap_declared  chunk_sealed  file_changed  log_recovered  entry_recovered  orphans_imported
    beads     beads_changed
    care      breaker_changed  owner_told ─▶ owner_reached  token_created  token_revoked
    session   session_created  session_renamed  session_deleted  session_restored
    turn      user_message ─▶ turn_started ─▶ { message_checkpointed | call_failed | assistant_message
              | tool_started ─▶ tool_ended | steer_taken | note_added | context_cut } ─▶ turn_ended
"""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from persistence.errors import FinnError
from persistence.values import DEPTH, deeper_than
from persistence.values import Json as Json

MessageStop = Literal["stop", "length", "tool_use", "abort", "error", "interrupted"]
TurnStop = Literal["stop", "length", "tool_limit", "abort", "error", "interrupted", "refused", "budget"]
PromptMode = Literal["prompt", "steer", "follow_up"]


class Value(BaseModel):
    """A frozen value that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


def _shallow(data: dict[str, Json]) -> dict[str, Json]:
    if deeper_than(data, DEPTH):
        raise ValueError(f"nested deeper than {DEPTH}")
    return data


#: Data of any shape, but for its depth: what was written deeper than a parser goes could never be read again.
Free = Annotated[dict[str, Json], AfterValidator(_shallow)]


# ---------------------------------------------------------------- content blocks, as in a Pi session


class TextBlock(Value):
    type: Literal["text"] = "text"
    text: str


class ThinkingBlock(Value):
    """`thinkingSignature` is the provider's proof, needed to send the block back to it."""

    type: Literal["thinking"] = "thinking"
    thinking: str
    thinkingSignature: str | None = None  # noqa: N815 - Pi's name


class ToolCallBlock(Value):
    type: Literal["toolCall"] = "toolCall"
    id: str
    name: str
    arguments: Free


Block = Annotated[TextBlock | ThinkingBlock | ToolCallBlock, Field(discriminator="type")]


class Cost(Value):
    """US dollars."""

    input: float = 0.0
    output: float = 0.0
    cacheRead: float = 0.0  # noqa: N815 - Pi's name
    cacheWrite: float = 0.0  # noqa: N815 - Pi's name
    total: float = 0.0


class Usage(Value):
    """Tokens of one model call or a sum of them; `cost` is None where no price is known."""

    input: int = 0
    output: int = 0
    cacheRead: int = 0  # noqa: N815 - Pi's name
    cacheWrite: int = 0  # noqa: N815 - Pi's name
    totalTokens: int = 0  # noqa: N815 - Pi's name
    cost: Cost | None = None


class Problem(Value):
    """An error as it is told to people: the contract's code, what happened, what to do."""

    code: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, error: FinnError) -> "Problem":
        """What people are told of an error."""
        return cls(code=error.code, message=error.message, hint=error.hint)


class By(Value):
    """Who caused a record, set by the server and never by a client."""

    actor: str
    trust: Literal["system", "state", "user", "external", "untrusted"]


# ---------------------------------------------------------------- events


class Event(Value):
    """A fact. `kind` is its name in the log, `v` the version of its fields."""

    kind: ClassVar[str]
    v: ClassVar[int] = 1


class LogRecovered(Event):
    """A start that found something to tell: where the state came from and what could not be used.

    It came to `last_seq` and writes under `epoch` (None: not said, before version 2). `bytes` came from elsewhere,
    `ms` is how long it all took. `damaged` are the first seqs of declared gaps, `discarded` first and last of what the
    local log had beyond the history that was taken, `problems` sentences.
    """

    kind = "log_recovered"
    v = 2
    source: Literal["local", "store", "git", "template"]
    last_seq: int
    epoch: int | None
    ms: int = 0
    bytes: int = 0
    torn_bytes: int = 0
    damaged: tuple[int, ...] = ()
    discarded: tuple[tuple[int, int], ...] = ()
    problems: tuple[str, ...] = ()


class GapDeclared(Event):
    """Records `first`..`last` cannot be read; the chain goes on from `resume`, what the next checksum builds on."""

    kind = "gap_declared"
    first: int
    last: int
    resume: str | None
    quarantine: str


class ChunkSealed(Event):
    """The stream's records `first`..`last` now live in a chunk of `count` lines and `bytes`, named by its hash.

    They were `tail_count` records of `tail_bytes` in the log, before checkpoints were left out.
    """

    kind = "chunk_sealed"
    first: int
    last: int
    count: int
    bytes: int
    sha256: str
    tail_count: int
    tail_bytes: int


class FileChanged(Event):
    """A file of `root` has these bytes now (in the blob of that hash), is a link, or is gone (`sha256` None).

    `link` is where a link points: it has no bytes, and `sha256` is None as well.
    """

    kind = "file_changed"
    v = 2
    root: Literal["grimoires", "workspace"]
    path: str
    sha256: str | None
    bytes: int
    executable: bool = False
    link: str | None = None


class EntryRecovered(Event):
    """What a writer had acknowledged that was fenced before the store had it, taken up into this history.

    It was the record `origin` of its own reign: an event of that `type` and `version`, with that `data`, caused by `by`
    at that time. It stands below `parent`, as a branch of its own: nothing goes on from it by itself.
    """

    kind = "entry_recovered"
    origin: str
    type: str
    version: int
    data: dict[str, Json]
    at: int
    by: By
    parent: str | None


class OrphansImported(Event):
    """All that a fenced writer left in the store under this name is part of the log now."""

    kind = "orphans_imported"
    name: str
    count: int


class BeadChange(Value):
    """A bead after a change, as a line of its file, and its labels before and after."""

    id: str
    line: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class BeadsChanged(Event):
    """Beads were changed together: made, labelled, closed, found changed in their file. `op` says which.

    `others` are lines of the file that are no beads, where they changed.
    """

    kind = "beads_changed"
    op: str
    beads: tuple[BeadChange, ...]
    others: tuple[str, ...] | None = None


class BreakerChanged(Event):
    """The breaker of a task opened after `failures` in a row, the last of which said `error`, or closed again."""

    kind = "breaker_changed"
    task: str
    state: Literal["open", "closed"]
    failures: int = 0
    error: str = ""


class OwnerTold(Event):
    """The owner is sent word that finn is in this state now: `bad` is every subject that is not well."""

    kind = "owner_told"
    status: Literal["pass", "warn", "fail"]
    text: str
    bad: dict[str, Literal["warn", "fail"]]


class OwnerReached(Event):
    """All that the owner was told so far was taken at the address it was sent to."""

    kind = "owner_reached"


class TokenCreated(Event):
    """A token that opens what `scope` says, until `expires` (milliseconds since 1970; None: until it is revoked).

    Only its hash is known: `sha256` of the token's text.
    """

    kind = "token_created"
    id: str
    name: str
    scope: Literal["probe", "read", "chat", "owner"]
    sha256: str
    expires: int | None


class TokenRevoked(Event):
    """The token of that id opens nothing any more."""

    kind = "token_revoked"
    id: str


class SessionCreated(Event):
    kind = "session_created"
    title: str


class SessionRenamed(Event):
    kind = "session_renamed"
    title: str


class SessionDeleted(Event):
    kind = "session_deleted"


class SessionRestored(Event):
    kind = "session_restored"


class UserMessage(Event):
    """Something the owner said. `parent` is None while it waits: then turn_started or steer_taken gives its place."""

    kind = "user_message"
    turn: str
    parent: str | None
    text: str
    request_id: str
    mode: PromptMode = "prompt"


class TurnStarted(Event):
    """The turn of the user message `entry` begins below `parent`."""

    kind = "turn_started"
    turn: str
    entry: str
    parent: str | None


class SteerTaken(Event):
    """A message that was said while the turn ran is now part of it, below `parent`."""

    kind = "steer_taken"
    turn: str
    entry: str
    parent: str | None


class NoteAdded(Event):
    """Something finn tells the model in the owner's place: an interruption, a repetition."""

    kind = "note_added"
    turn: str
    parent: str | None
    text: str


class ContextCut(Event):
    """The request no longer holds what stands before `first_kept`: `left_out` entries of whole turns."""

    kind = "context_cut"
    turn: str
    first_kept: str
    left_out: int


class MessageCheckpointed(Event):
    """What has been streamed of the answer so far; the finished message replaces it."""

    kind = "message_checkpointed"
    turn: str
    parent: str | None
    text: str
    thinking: str = ""


class CallFailed(Event):
    """A model call gave nothing that can be kept; it is made again after `retry_in_s`, or not (None)."""

    kind = "call_failed"
    turn: str
    attempt: int
    error: Problem
    retry_in_s: float | None
    usage: Usage | None = None


class AssistantMessage(Event):
    """One answer of the model, whole unless `stop_reason` says otherwise."""

    kind = "assistant_message"
    turn: str
    parent: str | None
    content: tuple[Block, ...]
    api: str
    provider: str
    model: str
    usage: Usage
    stop_reason: MessageStop
    error: Problem | None = None

    @property
    def text(self) -> str:
        """All that it says."""
        return "".join(block.text for block in self.content if isinstance(block, TextBlock))

    @property
    def thinking(self) -> str:
        """All that was thought before it."""
        return "".join(block.thinking for block in self.content if isinstance(block, ThinkingBlock))


class ToolStarted(Event):
    """A tool is about to run: the intent, recorded before the effect."""

    kind = "tool_started"
    turn: str
    call: str
    name: str
    args: Free


class ToolEnded(Event):
    """What a tool gave back, or that its outcome is unknown."""

    kind = "tool_ended"
    turn: str
    parent: str | None
    call: str
    name: str
    result: str
    is_error: bool = False
    truncated: bool = False
    details: Free | None = None


class TurnEnded(Event):
    """The agent is idle again; `usage` sums every call of the turn, also the failed ones."""

    kind = "turn_ended"
    turn: str
    stop_reason: TurnStop
    error: Problem | None = None
    usage: Usage = Usage()


EVENTS: tuple[type[Event], ...] = (
    LogRecovered,
    GapDeclared,
    ChunkSealed,
    FileChanged,
    EntryRecovered,
    OrphansImported,
    BeadsChanged,
    BreakerChanged,
    OwnerTold,
    OwnerReached,
    TokenCreated,
    TokenRevoked,
    SessionCreated,
    SessionRenamed,
    SessionDeleted,
    SessionRestored,
    UserMessage,
    TurnStarted,
    SteerTaken,
    NoteAdded,
    ContextCut,
    MessageCheckpointed,
    CallFailed,
    AssistantMessage,
    ToolStarted,
    ToolEnded,
    TurnEnded,
)


class Unknown(Event):
    """An event of a kind or version that this program does not know: kept as it is, folded as nothing."""

    kind = "unknown"
    data: dict[str, Json]


# ---------------------------------------------------------------- records


OWNER = By(actor="owner", trust="user")
AGENT = By(actor="agent", trust="state")
TOOL = By(actor="tool", trust="untrusted")
SYSTEM = By(actor="system", trust="system")


class Record(NamedTuple):
    """An event made durable.

    `time` is milliseconds since 1970, `durable` the highest seq that was known to be on disk when this one was written,
    `checksum` the hex SHA-256 of the previous checksum and `line` (the record's JSON, without its frame).
    """

    seq: int
    id: str
    time: int
    epoch: int
    durable: int
    stream: str | None
    by: By
    type: str
    v: int
    event: Event
    checksum: str
    line: bytes

    @property
    def entry(self) -> str:
        """The id of this record as a node of its session's tree: unique over reigns, found by bisection."""
        return f"{self.epoch}-{self.seq}"


def seq_of(entry: str) -> int:
    """The seq of the record with that `entry`."""
    return int(entry.partition("-")[2])
