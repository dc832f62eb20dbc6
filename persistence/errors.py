"""Everything finn can say went wrong.

FinnError
├── UsageError            a command line or a setting nobody can act on             (exit 2)
├── Locked                another process holds the data directory                  (exit 1)
├── BindError             the address cannot be listened on                         (exit 1)
├── StorageError          the local disk did not take or give what was asked
│   ├── StorageFull       no space left; nothing was recorded
│   ├── StorageFailed     an I/O error; whether the bytes are there is unknown
│   └── StorageClosed     the log is closed, or was closed while the caller waited
├── Damaged               bytes that are not what was written
│   └── Headless          a log in the store without any manifest
├── Newer                 sound bytes that only a later release can read
├── TooLarge              a record or a request above its limit
├── NotFound              no such session, message, file, bead or command
│   └── Ambiguous         the beginning of an id that several things have
├── Invalid               a value that is not what it should be
│   └── Circular          a dependency on itself, on what is not there, or in a circle
├── Conflict              the state does not allow this now
│   ├── IdempotencyMismatch   the same request id came with another text
│   └── IllegalTransition     there is no way from the present state to that one
├── Busy                  a queue is full
├── EmptyPrompt           a prompt without text
├── Draining              finn is stopping and takes no new turns
├── Fenced                a younger writer has this agent's log now
├── Exists                an object of that name is in the store already
├── StoreError            the object store did not take or give what was asked
│   ├── StoreUnreachable  no answer, or one that says to come back: whether a write was done is unknown
│   ├── StoreRefused      the store answered that it will not: a wrong key, no right, no such bucket
│   │   └── OtherHistory  the store holds a log that has nothing in common with this one
│   └── StoreLost         what the store had confirmed is there no more
├── SourceSilent          nothing is here, and a copy that may hold everything does not answer
├── ArchiveError          git could not do what the archive needs
│   ├── ArchiveUnreachable  the remote gives no answer: nothing is known of what it holds
│   ├── ArchiveSlow       a command took longer than it was given, and was ended
│   ├── ArchiveRefused    the remote answered that it will not: a wrong password, no right, a rule of its own
│   └── GitMissing        there is no git on this machine
├── OutboundError         a request to an address outside was not answered as it should have been
│   ├── OutboundRefused   finn does not go there: no public address, another scheme, a way that leads elsewhere
│   └── OutboundFailed    no answer, or one that is too slow, too long, or no HTTP
└── ModelError            the model did not give an answer that can be used
    ├── ModelStalled      no byte for the idle limit
    ├── ModelCut          the stream ended before the answer did
    ├── ModelOverloaded   429, 503, 529: come back later
    ├── ModelDenied       the key is missing, wrong or not allowed
    └── ModelRejected     the request itself is at fault, sending it again is pointless

`code` is the machine's word for it (the contract's), `hint` says what to do, `retryable` that the same call may succeed
later. What an error means in HTTP is known to the gateway alone.
"""


class FinnError(Exception):
    """What happened, to what (`message`), and what to do about it (`hint`)."""

    code = "internal"
    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(FinnError):
    """A setting or an argument is wrong, before anything was done."""

    code = "usage"


class Locked(FinnError):
    """The data directory belongs to another living process."""

    code = "locked"


class BindError(FinnError):
    """The host and port cannot be bound."""

    code = "bind"


class StorageError(FinnError):
    """The local disk refused; no state was changed."""

    code = "storage_failed"
    retryable = True


class StorageFull(StorageError):
    """ENOSPC, EDQUOT or EFBIG: nothing of the batch was recorded."""

    code = "storage_full"


class StorageFailed(StorageError):
    """EIO and its like: the outcome of the batch is unknown until the log is opened again."""


class StorageClosed(StorageError):
    """The log no longer takes records."""

    retryable = False


class Damaged(FinnError):
    """Stored bytes failed their checksum and could not be mended."""

    code = "damaged"


class Headless(Damaged):
    """There are objects of a log, and no manifest, not even the first: somebody took them away."""


class Newer(FinnError):
    """A later release wrote this. Nothing is built on it here, and nothing of it is overwritten."""


class TooLarge(FinnError):
    """More bytes than the limit that is named in the message."""

    code = "too_large"


class NotFound(FinnError):
    """The thing that was named does not exist."""

    code = "not_found"


class Ambiguous(NotFound):
    """What was named is the beginning or a part of several names."""


class Invalid(FinnError):
    """A field that is too long, of the wrong kind, or not one of the values there are."""

    code = "invalid_body"


class Circular(Invalid):
    """A bead would wait for itself, or for one that does not exist."""

    code = "invalid_dependency"


class Conflict(FinnError):
    """What was asked does not fit the present state."""

    code = "conflict"


class IdempotencyMismatch(Conflict):
    """A request id came back with a different text."""

    code = "idempotency_mismatch"


class IllegalTransition(Conflict):
    """A state machine has no arrow from what is to what was asked for."""

    code = "illegal_transition"


class Busy(FinnError):
    """The session's queue is full."""

    code = "busy"
    retryable = True


class EmptyPrompt(FinnError):
    """A prompt of nothing but white space."""

    code = "empty_prompt"


class Draining(FinnError):
    """The process is shutting down; its successor will answer."""

    code = "draining"
    retryable = True


class Fenced(FinnError):
    """A writer with a higher epoch has taken over; this process acknowledges nothing any more."""

    code = "fenced"
    retryable = True


class Exists(FinnError):
    """Create-if-absent found an object of that name. Whether it is our own, only its bytes tell."""

    code = "conflict"


class StoreError(FinnError):
    """The object store could not be used."""

    code = "store_unavailable"
    retryable = True


class StoreUnreachable(StoreError):
    """Time-out, reset, 409, 429 or 5xx. A write may have been done: repeat it with the same key and bytes."""


class StoreRefused(StoreError):
    """401, 403, no such bucket, a malformed request: the same call will be refused again until a person mends it."""

    retryable = False


class OtherHistory(StoreRefused):
    """A person has to say which of the two logs is meant; until then neither is written over the other."""


class StoreLost(StoreError):
    """The store was emptied, or set back, under its writer: what it had confirmed has to be sent again."""


class SourceSilent(FinnError):
    """A start has no past yet and cannot know that there is none. It asks again, and takes no prompts until then."""

    code = "store_unavailable"
    retryable = True


class ArchiveError(FinnError):
    """The git tier could not be used. What it keeps is in the log as well."""

    retryable = True


class ArchiveUnreachable(ArchiveError):
    """No answer, or none in time. That is not the same as a remote without an archive."""


class ArchiveSlow(ArchiveError):
    """The time that git was given is up; nothing half done counts."""


class ArchiveRefused(ArchiveError):
    """The remote will refuse the same again until a person mends it: credentials, rights, a rule of its own."""

    retryable = False


class GitMissing(ArchiveError):
    """The archive is made with the git command, and it is not installed."""

    retryable = False


class OutboundError(FinnError):
    """A request of ours to the world outside. The message names the host at most: a URL's path may open something."""


class OutboundRefused(OutboundError):
    """Nothing was sent to where it would have gone; the same request is refused until the URL or the name changes."""


class OutboundFailed(OutboundError):
    """Whether the request was taken is unknown; it may be made again."""

    retryable = True


class ModelError(FinnError):
    """A model call failed. `retry_after` is the provider's own wish in seconds, where it gave one."""

    code = "model_error"
    retryable = True

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class ModelStalled(ModelError):
    """The stream was silent for longer than the idle limit."""


class ModelCut(ModelError):
    """The stream ended, cleanly or not, before the provider said that the answer was complete."""


class ModelOverloaded(ModelError):
    """The provider is busy or the rate limit is reached."""


class ModelDenied(ModelError):
    """The provider does not accept the key."""

    retryable = False


class ModelRejected(ModelError):
    """The provider understood the request and refuses it: unknown model, context too long, bad parameter."""

    retryable = False


def first(error: BaseException) -> BaseException:
    """The first error of a group of groups; any other is itself."""
    return first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
