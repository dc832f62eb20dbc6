"""Whether the archive in git is one: git itself, the folder of its own, and how the branch stands to the remote's.

nothing is set, and there is no folder     nothing is looked at, and git is not even looked for
the own folder                             plain git, with nothing that could run another program
the remote                                 asked once, for so long and no longer
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from persistence import tree
from persistence.archive import FOLDER
from persistence.clock import iso
from persistence.errors import ArchiveError, ArchiveRefused, Damaged, FinnError, GitMissing, UsageError
from persistence.git import Git, Remote, away, branch, own_config
from persistence.tree import State
from scheduler.check import Check, Move, Remove, Step, Write
from scheduler.finding import Seen
from scheduler.naming import named, some
from scheduler.patience import Silent
from scheduler.site import Site

LAG_S = 7200.0  #: as in the table of health
LOCK_S = 600.0  #: a lock of this age belongs to no command that runs: the slowest is ended before
FSCK_S = 5.0
VERSION = (2, 30)  #: the oldest that is known to work
HOOKS_MOST = 20

UNSET = Seen("pass", "no archive is set")


def _folder(site: Site) -> Path:
    return site.root / FOLDER


def _is_set(site: Site) -> bool:
    return site.remote is not None or _folder(site).is_dir()


def _git(site: Site) -> Git:
    return Git(site.disk, _folder(site), site.remote)


def _ref(site: Site) -> str:
    return f"refs/heads/{branch(site.branch)}"


def _head(site: Site) -> str | None:
    """The newest commit of our own branch; None where there is none. Raises FinnError."""
    if not _folder(site).is_dir() or not site.branch:
        return None
    answer = _git(site).run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{_ref(site)}^{{commit}}")
    return answer.out.decode().split()[-1] if answer.ok else None


# ---------------------------------------------------------------- git, and its own folder


def _see_present(site: Site) -> Seen:
    if not _is_set(site):
        return Seen("info", "no archive is set", "set FINN_GIT_REMOTE to keep the agent's past in git as well")
    if shutil.which("git") is None:
        what = "there is no git on this machine: nothing is archived"
        return Seen("warn", what, "install git (in Debian: `apt-get install git`), or unset FINN_GIT_REMOTE")
    try:
        with _any_folder(site) as git:
            said = git.ask("version").decode(errors="replace").strip()
    except FinnError as error:
        return Seen("warn", f"git cannot be used: {error.message}", error.hint or "install git anew")
    found = re.search(r"(\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) < VERSION:
        need = ".".join(map(str, VERSION))
        return Seen("warn", f"{said} is older than {need}", "install a later git", {"version": said})
    return Seen("pass", said, data={"version": said})


@contextmanager
def _any_folder(site: Site) -> Iterator[Git]:
    """The own folder, or where there is none yet, one for the moment and elsewhere: a question needs one."""
    if (_folder(site) / "HEAD").is_file():
        yield _git(site)
        return
    with tempfile.TemporaryDirectory(prefix="finn-doctor-") as elsewhere:
        git = Git(site.disk, Path(elsewhere) / FOLDER, site.remote)
        git.prepare()
        yield git


def _see_folder(site: Site) -> Seen:
    if not _folder(site).is_dir():
        return UNSET if site.remote is None else Seen("pass", "nothing is archived yet")
    what = "the archive's own folder is damaged"
    hint = (
        f"`finn doctor --fix` moves {_folder(site)} to quarantine; the next archive begins it anew from log and remote"
    )
    try:
        answer = _git(site).run("fsck", "--connectivity-only", "--no-dangling", "--no-progress", limit_s=FSCK_S)
    except GitMissing:
        return Seen("info", "not looked at: there is no git")
    except ArchiveError as error:
        return Seen("warn", f"{what}: {error.message}", hint)
    if answer.late:
        return Seen("info", f"git fsck did not end within {FSCK_S:g} s, which tells nothing of the folder")
    if not answer.ok:
        return Seen("warn", f"{what}: {answer.gist}", hint)
    head = _head(site)
    if head is None and any(_folder(site).glob(f"refs/heads/{site.branch}")):
        return Seen("warn", f"{what}: {site.branch} names no commit", hint)
    what = f"its newest commit is {head[:12]}" if head else "it has no commit yet"
    return Seen("pass", f"git proves its folder; {what}", data={"head": head})


def _mend_folder(site: Site) -> Sequence[Step]:
    stamp = re.sub(r"[^0-9TZ]", "", iso(site.clock.now()))
    return [Move(_folder(site), site.paths.quarantine / f"git-{stamp}")] if _folder(site).is_dir() else []


def _locks(site: Site) -> list[Path]:
    """What a command that was killed left behind, and none that runs can have made."""
    top = _folder(site)
    if not top.is_dir():
        return []
    found = [*top.glob("*.lock"), *(path for name in ("refs", "objects/info") for path in (top / name).rglob("*.lock"))]
    now = site.clock.now()
    return sorted(path for path in found if now - path.lstat().st_mtime >= LOCK_S)


def _see_locks(site: Site) -> Seen:
    odd = [str(path.relative_to(site.root)) for path in _locks(site)]
    hint = "remove them while finn is down; it does so itself when it next uses the folder"
    return some(odd, "warn", "no lock was left behind", "locks that a killed command left behind", hint)


def _mend_locks(site: Site) -> Sequence[Step]:
    return [Remove(path) for path in _locks(site)]


def _see_config(site: Site) -> Seen:
    path = _folder(site) / "config"
    if not path.is_file() or path.read_bytes() == own_config():
        return Seen("pass", "the folder's configuration is finn's own" if path.is_file() else "none yet")
    named_keys = re.findall(r"^[ \t]*\[[ \t]*([A-Za-z0-9.-]+)", path.read_text(errors="replace"), re.MULTILINE)
    what = f"git/config was changed by somebody else: it has the sections {named(dict.fromkeys(named_keys))}"
    hint = (
        "`finn doctor --fix` writes finn's own again; your own settings of git, and keys above all, have no place there"
    )
    return Seen("warn", what, hint, {"sections": sorted(set(named_keys))})


def _mend_config(site: Site) -> Sequence[Step]:
    path = _folder(site) / "config"
    return [Write(path, own_config())] if path.is_file() and path.read_bytes() != own_config() else []


# ---------------------------------------------------------------- the remote


def _there(site: Site, remote: Remote) -> str | None:
    """The newest commit of the remote's branch, which is not brought here. Raises FinnError."""
    ref = _ref(site)
    with _any_folder(site) as git:
        answer = git.run("ls-remote", "--", remote.url, ref, remote=True, limit_s=site.limit_s)
    if answer.late:
        raise Silent(f"{remote.url} gave no answer within {site.limit_s:g} s", hint="see whether it can be reached")
    if not answer.ok:
        raise away("ls-remote", remote, answer)
    lines = (line.split() for line in answer.out.decode(errors="replace").splitlines())
    return next((line[0] for line in lines if len(line) == 2 and line[1] == ref), None)


def _unasked(site: Site) -> Seen | None:
    if site.remote is None:
        return Seen("pass", "no remote is set")
    return None if site.network else Seen("info", "the remote was not asked: no network is to be used")


def _see_remote(site: Site) -> Seen:
    if (unasked := _unasked(site)) is not None:
        return unasked
    assert site.remote is not None
    try:
        head = _there(site, site.remote)
    except ArchiveRefused:
        return Seen("pass", f"{site.remote.url} answers")
    except (GitMissing, UsageError) as error:
        return Seen("info", f"not asked: {error.message}")
    except FinnError as error:
        hint = "see whether the address is right and reachable from here; finn pushes everything once it answers"
        return Seen("warn", f"the remote does not answer: {error.message}", hint, {"limit_s": site.limit_s})
    what = f"{site.branch} is at {head[:12]}" if head else f"it has no branch {site.branch} yet"
    return Seen("pass", f"{site.remote.url} answers; {what}", data={"head": head})


def _see_access(site: Site) -> Seen:
    if (unasked := _unasked(site)) is not None:
        return unasked
    assert site.remote is not None
    try:
        _there(site, site.remote)
    except ArchiveRefused as error:
        hint = "look at FINN_GIT_REMOTE: the address, its token or key, and whether that may push"
        return Seen("warn", f"the remote refuses: {error.message}", hint)
    except UsageError as error:
        return Seen("fail", error.message, error.hint)
    except FinnError:
        return Seen("info", "not known: the remote does not answer")
    return Seen("pass", "the remote lets finn read")


def _see_branch(site: Site) -> Seen:
    if (unasked := _unasked(site)) is not None:
        return unasked
    assert site.remote is not None
    try:
        there, here = _there(site, site.remote), _head(site)
    except FinnError:
        return Seen("info", "not known: the remote does not answer")
    data = {"here": here, "there": there}
    if there == here:
        return Seen("pass", f"{site.branch} is the same here and there", data=data)
    if here is None:
        what = f"the remote has {site.branch}, and nothing is archived here yet"
        return Seen("info", what, "nothing has to be done: a start takes what is newer, and a push joins both", data)
    if there is None or _is_below(site, there, here):
        what = f"{site.branch} is ahead of the remote: its newest commit is not there yet"
        return Seen("info", what, "nothing has to be done: the next archive pushes it", data)
    if _is_below(site, here, there):
        return Seen("warn", f"{site.branch} is behind the remote", "start `finn serve`: it takes what is newer", data)
    what = f"the remote's {site.branch} ({there[:12]}) holds commits that this archive ({here[:12]}) does not know"
    hint = "if another instance runs, that is its work; otherwise start `finn serve`: a push joins both, or goes beside"
    return Seen("warn", what, hint, data)


def _is_below(site: Site, older: str, newer: str) -> bool:
    """Whether one commit is the other's past, as far as the own folder knows both."""
    return _git(site).run("merge-base", "--is-ancestor", "--end-of-options", older, newer).ok


def _see_conflicts(site: Site) -> Seen:
    if not _folder(site).is_dir() or not site.branch:
        return UNSET
    try:
        pattern = f"{_ref(site)}-conflict-*"
        found = (
            _git(site).run("for-each-ref", "--format=%(refname)", "--", pattern).out.decode(errors="replace").split()
        )
    except FinnError:
        return Seen("info", "not looked at")
    names = [name.removeprefix("refs/heads/") for name in found]
    hint = f"look at both branches, then set another FINN_GIT_BRANCH, or remove {site.branch} at the remote"
    return some(names, "warn", "the branch has one history", "another history held the branch; pushed beside it", hint)


# ---------------------------------------------------------------- how far behind


def _state(site: Site) -> State | None:
    head = _head(site)
    if head is None:
        return None
    answer = _git(site).run("cat-file", "blob", f"{head}:{tree.STATE}")
    return tree.decode(answer.out, head) if answer.ok else None


def _see_lag(site: Site) -> Seen:
    if site.remote is None or not _folder(site).is_dir():
        return Seen("pass", "nothing is archived yet" if site.remote else "no archive is set")
    try:
        state = _state(site)
    except GitMissing:
        return Seen("info", "not looked at: there is no git")
    except (Damaged, FinnError) as error:
        return Seen("info", f"the newest commit cannot be read: {error.message}")
    seq = site.past.head.seq
    if state is None:
        return Seen("pass", "nothing is archived yet")
    lag, age = max(0, seq - state.seq), max(0.0, site.clock.now() - state.time)
    data = {"records": lag, "seconds": round(age), "seq": state.seq}
    said = f"the newest commit has record {state.seq} of {seq}, and is {age / 3600:.1f} h old"
    limit = max(LAG_S, 2 * float(site.settings.get("FINN_ARCHIVE_INTERVAL") or 0))
    if state.seq > seq and site.running is None:  # one that runs may have archived more since the log was read
        what = f"git is further than the log here: record {state.seq}, the log ends with {seq}"
        return Seen("warn", what, "start `finn serve`: it takes what is newer", data)
    if lag and age > limit:
        todo = (
            "see in /health why nothing is archived"
            if site.running
            else "start `finn serve`: it archives when it starts"
        )
        return Seen("warn", said, todo, data)
    return Seen("pass", said, data=data)


# ---------------------------------------------------------------- what is in addresses and in the workspace


def _see_address(site: Site) -> Seen:
    remote = site.remote
    if remote is None:
        return Seen("pass", "no remote is set")
    if remote.password and remote.url.startswith("http://"):
        what = f"the token of FINN_GIT_REMOTE travels readable to {remote.url}"
        return Seen("warn", what, "use https://, or ssh with a key of its own")
    if remote.password:
        return Seen(
            "info",
            "FINN_GIT_REMOTE holds a token; finn keeps it apart, but whoever sees the environment sees it",
            "keep it in .env of the data directory (mode 0600), and let it open this one repository only",
        )
    return Seen("pass", f"{remote.url} holds nothing secret")


def _see_workspace(site: Site) -> Seen:
    hooks = site.root / "workspace" / ".git" / "hooks"
    if not hooks.is_dir() or hooks.parent.is_symlink() or hooks.is_symlink():
        return Seen("pass", "the workspace has no git hooks")
    found = [
        name for name in site.disk.names(hooks) if not name.endswith(".sample") and os.access(hooks / name, os.X_OK)
    ]
    hint = "nothing has to be done: finn's own git never looks there; your own git in that folder would run them"
    return some(found[:HOOKS_MOST], "info", "the workspace's repository has no hooks of its own", "hooks in it", hint)


CHECKS: tuple[Check, ...] = (
    Check("git.present", "git is there", _see_present),
    Check("git.folder", "the archive's own folder proves itself", _see_folder, _mend_folder, alone=True),
    Check("git.locks", "no lock was left behind in the archive's folder", _see_locks, _mend_locks, alone=True),
    Check("git.config", "the archive's folder has finn's configuration", _see_config, _mend_config, alone=True),
    Check("git.remote", "the archive's remote answers", _see_remote, far=True),
    Check("git.access", "the archive's remote lets finn in", _see_access, far=True),
    Check("git.branch", "the branch is the same here and at the remote", _see_branch, far=True),
    Check("git.conflicts", "the archive's branch has one history", _see_conflicts),
    Check("git.lag", "what was said is archived", _see_lag),
    Check("git.address", "the remote's address holds nothing secret", _see_address),
    Check("git.workspace_hooks", "the workspace has no git hooks", _see_workspace),
)
