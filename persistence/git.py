"""Runs git, and is the only place that does.

    Git(folder).run("fast-import", feed=…) ─▶ GitPython starts the command ─▶ Answer(status, out, error)

The folder is a bare repository of our own, outside everything that tools may write: its configuration is what `prepare`
writes there, its hooks are never looked at, and no command gets near a work tree. What else could make git run a
program, ask a person, or wait for ever is switched off in `CONFIG` and `ENVIRONMENT`. Credentials travel in the
environment of the one command that needs them, so they are in no argument, no URL and no error.

A command runs in a session of its own and is ended with all its children when its time is up: a child that waits for a
silent server would otherwise hold our end of the pipe for ever.
"""

import base64
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from persistence.disk import Disk, read, refused, replace
from persistence.errors import (
    ArchiveError,
    ArchiveRefused,
    ArchiveSlow,
    ArchiveUnreachable,
    Damaged,
    GitMissing,
    UsageError,
)

LOCAL_S = 300.0  #: how long a command may take that touches only the disk
REMOTE_S = 300.0  #: and one that talks to the remote
STALLED_S = 30  #: a transfer without a byte for so long is given up
CONNECT_S = 10  #: for ssh
OBJECT_BYTES = 512 << 20  #: the largest object that is read
SHOWN_CHARS = 300  #: how much of what git says goes into an error
MISSING = 127  #: what `env` answers where there is no such command

CONFIG = {
    # Nothing is run but git: T17 of the threat list.
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.sshCommand": "",
    "core.gitProxy": "",
    "core.askPass": "",
    "core.pager": "cat",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.alternateRefsCommand": "",
    "credential.helper": "",
    "diff.external": "",
    "commit.gpgSign": "false",
    "push.gpgSign": "false",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "safe.bareRepository": "explicit",
    "protocol.allow": "never",
    "protocol.ext.allow": "never",
    "protocol.https.allow": "always",
    "protocol.http.allow": "always",
    "protocol.ssh.allow": "always",
    "protocol.file.allow": "always",
    # A redirect could carry the credentials elsewhere.
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": str(STALLED_S),
    # What is acknowledged is on the disk, in few files; nothing is tidied up behind our back.
    "core.fsync": "all",
    "core.fsyncMethod": "fsync",
    "fastimport.unpackLimit": "1",
    "transfer.unpackLimit": "1",
    "gc.auto": "0",
    "maintenance.auto": "false",
}
ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_COUNT": "0",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_SSH_COMMAND": f"ssh -oBatchMode=yes -oConnectTimeout={CONNECT_S}",
    "GIT_NO_REPLACE_OBJECTS": "1",
}
#: GitPython hands on the whole environment; these names in it would lead git elsewhere, or to other programs.
UNSET = (
    *("GIT_ALLOW_PROTOCOL", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG"),
    *("GIT_CONFIG_PARAMETERS", "GIT_CURL_VERBOSE", "GIT_DIR", "GIT_EXEC_PATH", "GIT_EXTERNAL_DIFF"),
    *("GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY"),
    *("GIT_PREFIX", "GIT_PROTOCOL_FROM_USER", "GIT_PROXY_COMMAND", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE"),
    *("GIT_SSH", "GIT_SSH_VARIANT", "GIT_TEMPLATE_DIR", "GIT_TRACE", "GIT_TRACE2", "GIT_TRACE2_EVENT"),
    *("GIT_TRACE2_PERF", "GIT_TRACE_CURL", "GIT_TRACE_PACKET", "GIT_TRACE_REDACT"),
    *("GIT_TRACE_SETUP", "GIT_WORK_TREE"),
)
_PREFIX = (
    *("env", *(part for name in UNSET for part in ("-u", name)), "git"),
    *(part for name, value in CONFIG.items() for part in ("-c", f"{name}={value}")),
)
_OWN_CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n"

_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_SCP = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^-:][!-~]*")  # git@host:me/state.git
_SCHEMES = ("https", "http", "ssh", "file")
_SILENT = re.compile(
    r"could not resolve|failed to connect|couldn't connect|connection (refused|reset|timed out|closed)|timed out"
    r"|operation too slow|network is unreachable|no route to host|remote end hung up|early EOF|empty reply"
    r"|error: 5\d\d|error: 429|transfer closed|unexpected disconnect",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"authentication failed|could not read (username|password)|permission denied|error: 40[0-9]|not found"
    r"|does not appear to be a git repository|could not read from remote|unable to access|host key verification"
    r"|unable to update url base from redirection|dubious ownership|remote rejected",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Remote:
    """Where the archive is copied to. `url` holds nothing secret and may be shown. Raises UsageError for another."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not _usable(self.url):
            # The text itself may hold what must not be shown.
            raise UsageError(
                "the git remote is no address of a repository",
                hint="write https://host/me/state.git, ssh://git@host/me/state.git, git@host:me/state.git or /dir",
            )

    @property
    def folder(self) -> Path | None:
        """The remote, where it is a folder of this machine."""
        path = self.url.removeprefix("file://")
        return Path(path) if path.startswith("/") else None

    def environment(self) -> dict[str, str]:
        """What a command needs to be let in. The header goes to this host alone."""
        if not self.password:
            return {}
        parts = urlsplit(self.url)
        secret = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
            "GIT_CONFIG_VALUE_0": f"Authorization: Basic {secret}",
        }

    def hide(self, text: str) -> str:
        """`text` without the password, in the forms in which it is used."""
        if not self.password:
            return text
        header = self.environment()["GIT_CONFIG_VALUE_0"].rpartition(" ")[2]
        return text.replace(header, "[REDACTED]").replace(self.password, "[REDACTED]")


def own_config() -> bytes:
    """The configuration of a folder of ours, as `prepare` writes it."""
    return _OWN_CONFIG


def _usable(url: str) -> bool:
    """A URL of a scheme that is allowed, without a password; an absolute folder; git@host:path."""
    if not url.isprintable() or url != url.strip():
        return False
    if url.startswith("/") or _SCP.fullmatch(url):
        return True
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    host = (parts.hostname or "") if parts.scheme in _SCHEMES else ""
    who = (parts.username or "") if parts.scheme == "ssh" else ("" if parts.username is None else "-")
    named = parts.path.startswith("/") if parts.scheme == "file" and not host else bool(host)
    return named and parts.scheme in _SCHEMES and parts.password is None and not host.startswith("-") and who[:1] != "-"


def branch(name: str) -> str:
    """The name, if git and a person can both use it for a branch. Raises UsageError."""
    odd = ".." in name or any(part.endswith((".", ".lock")) for part in name.split("/"))
    if odd or len(name) > 200 or not _BRANCH.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a branch", hint="use letters, digits, - . _ and /")
    return name


class Answer(NamedTuple):
    """What a command came to. `late`: it was ended because its time was up."""

    status: int
    out: bytes
    error: str
    late: bool = False

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked."""
        return self.status == 0

    @property
    def gist(self) -> str:
        """What it says to a person."""
        return " ".join(self.error.split())[:SHOWN_CHARS] or f"exit status {self.status}"


class Git:
    """A bare repository of our own. One thread at a time; waits for the disk and the network."""

    def __init__(self, disk: Disk, folder: Path, remote: Remote | None) -> None:
        self.folder = folder
        self.remote = remote
        self._disk = disk

    def prepare(self) -> None:
        """The repository exists, as we made it and without what a crash left in the way. Raises StorageError.

        Whoever calls this is the only one who uses the folder, so every lock and every unfinished pack in it belongs
        to a process that is gone.
        """
        try:
            for name in ("objects/info", "objects/pack", "refs/heads", "refs/finn"):
                self._disk.mkdir(self.folder / name)
            for name, data in (("HEAD", b"ref: refs/heads/none\n"), ("config", _OWN_CONFIG)):
                if not self._holds(self.folder / name, data):
                    replace(self._disk, self.folder / name, data)
            for path in _left_behind(self.folder):
                self._disk.unlink(path)
        except OSError as error:
            raise refused(error, self.folder) from error

    def run(self, *args: str, feed: Iterable[bytes] = (), remote: bool = False, limit_s: float = LOCAL_S) -> Answer:
        """What git answers to these arguments and this input. Raises GitMissing."""
        with self._started(args, remote, limit_s) as (process, late):
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # git ended early; why, it says in its answer
                for piece in feed:
                    process.stdin.write(piece)
                process.stdin.flush()
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.stdin = None
            out, error = process.communicate()
        status = process.returncode
        if status == MISSING:
            raise _missing()
        text = error.decode(errors="replace")
        return Answer(status, out, self.remote.hide(text) if self.remote else text, late.is_set())

    def ask(self, *args: str) -> bytes:
        """What git answers where it has to be able to. Raises ArchiveError, GitMissing."""
        answer = self.run(*args)
        if not answer.ok:
            raise failed(args[0], answer)
        return answer.out

    def objects(self, names: Iterable[str], most: int = OBJECT_BYTES) -> Iterator[bytes]:
        """The bytes of the objects of these names, one after the other.

        Raises Damaged for one that is not there or has more than `most` bytes (which are not read), ArchiveError where
        git fails, GitMissing.
        """
        with self._started(("cat-file", "--batch"), False, LOCAL_S) as (process, _):
            assert process.stdin is not None and process.stdout is not None
            for name in names:
                with suppress(BrokenPipeError):  # git ended early: then it answers nothing
                    process.stdin.write(name.encode() + b"\n")
                    process.stdin.flush()
                head = process.stdout.readline()
                size = _size(name, head)
                if size > most:
                    raise Damaged(f"{name} has {size} bytes, more than it can have", hint="another source is used")
                data = process.stdout.read(size + 1)
                if len(data) != size + 1:
                    raise ArchiveError(f"git ended before it gave {name}", hint="it is tried again")
                yield data[:-1]

    @contextmanager
    def _started(
        self, args: tuple[str, ...], remote: bool, limit_s: float
    ) -> Iterator[tuple["subprocess.Popen[bytes]", threading.Event]]:
        """The command with its streams, ended with all its children when its time is up or the caller is done."""
        try:
            import git  # on first use: it costs 60 ms, and looks for the command
        except ImportError as error:
            raise _missing() from error
        try:
            repository = git.Repo(self.folder, expand_vars=False)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
            raise ArchiveError(f"{self.folder} is no git repository", hint="it is made anew") from error
        environment = ENVIRONMENT | (self.remote.environment() if remote and self.remote else {})
        late = threading.Event()
        with repository as repo:
            try:
                started = repo.git.execute(
                    [*_PREFIX, f"--git-dir={self.folder}", *args],
                    istream=subprocess.PIPE,
                    as_process=True,
                    env=environment,
                    start_new_session=True,
                )
            except git.GitCommandNotFound as error:
                raise _missing() from error
            process = started.proc
            assert process is not None
            timer = threading.Timer(limit_s, _expire, (process, late))
            timer.daemon = True
            timer.start()
            try:
                yield process, late
            finally:
                timer.cancel()
                _end(process)

    def _holds(self, path: Path, data: bytes) -> bool:
        try:
            return read(self._disk, path) == data
        except FileNotFoundError:
            return False


def _size(name: str, head: bytes) -> int:
    """How many bytes follow this line of `git cat-file --batch`."""
    fields = head.split()
    if not fields:
        raise ArchiveError(f"git ended before it gave {name}", hint="it is tried again")
    if len(fields) != 3:
        raise Damaged(f"git has no {name}", hint="another source is used")
    return int(fields[2])


def failed(command: str, answer: Answer) -> ArchiveError:
    """The error for a command on the own repository that did not work."""
    if answer.late:
        return ArchiveSlow(f"git {command} took too long and was ended", hint="is the disk slow or full?")
    return ArchiveError(f"git {command} failed: {answer.gist}", hint="it is tried again")


def away(command: str, remote: Remote, answer: Answer) -> ArchiveError:
    """The error for a command that had to do with the remote. What became of a branch, `push` says on its output."""
    refs = [line for line in answer.out.decode(errors="replace").splitlines() if line.startswith("!")]
    answer = answer._replace(error="\n".join((answer.error, *refs)))
    what = f"git {command} with {remote.url} failed: {answer.gist}"
    if answer.late:
        what = f"git {command} with {remote.url} got no answer in time"
    if answer.late or _SILENT.search(answer.error):
        return ArchiveUnreachable(what, hint="it is tried again")
    if _DENIED.search(answer.error):
        return ArchiveRefused(what, hint="look at FINN_GIT_REMOTE, its credentials and its rules")
    return ArchiveError(what, hint="it is tried again")


def _missing() -> GitMissing:
    return GitMissing("there is no git on this machine", hint="install git; until then nothing is archived")


def _expire(process: "subprocess.Popen[bytes]", late: threading.Event) -> None:
    late.set()
    _kill(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The command is gone, however the caller left."""
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()
    if process.poll() is None:
        _kill(process)
    process.wait()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _left_behind(folder: Path) -> Iterator[Path]:
    """Locks and unfinished objects in a repository that nobody uses."""
    yield from sorted((*folder.glob("*.lock"), *folder.glob("fast_import_crash_*")))
    for name in ("refs", "objects/info"):
        yield from sorted((folder / name).rglob("*.lock"))
    yield from sorted((folder / "objects").glob("*/tmp_*"))
    yield from sorted((folder / "objects/pack").glob(".tmp-*"))
