"""The git tier: the agent in readable form on a branch of a repository, one commit after the other.

    commit   picture ─▶ what differs from the last commit ─▶ git fast-import ─▶ commit        nothing differs: none
    push     taken ─▶ done        rejected ─▶ fetch ─▶ a later reign       Fenced
                                                       our own past        merge: two parents, our tree ─▶ push again
                                                       somebody else's     a branch of our own beside it, and said
    heads    which commits there are, here and at the remote: one question, nothing is fetched
    latest   the newest state, in the own folder or at the remote ─▶ restore
    body     a single chunk or file of it, where every other copy of that is gone

Never by force, so no commit is lost, whoever made it. The own folder is a copy of a copy: what stands in the way there
is removed, and where it is damaged it goes to quarantine and is begun anew; the next push joins it to the remote.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from persistence import quarantine, tree
from persistence.ancestry import Kin, Place, kin
from persistence.clock import Ids
from persistence.codec import blobs_in
from persistence.disk import Disk
from persistence.errors import (
    ArchiveError,
    ArchiveRefused,
    ArchiveSlow,
    ArchiveUnreachable,
    Damaged,
    Fenced,
    GitMissing,
    Newer,
    NotFound,
    UsageError,
)
from persistence.git import LOCAL_S, REMOTE_S, Answer, Git, Remote, away, branch, failed
from persistence.picture import Picture, Source, of
from persistence.reigns import REIGNS, Reigns
from persistence.relation import digest_at
from persistence.replay import Means, Paths
from persistence.retrieval import SNAPSHOT_BYTES, Retrieved, retrieve, unpacked
from persistence.tree import BLOBS, Entry, State

FOLDER = "git"
SEEN = "refs/finn/seen"  #: what the remote's branch was when we last heard of it
REPLANTED = "refs/finn/replanted"
TRIES = 5  #: how often a push begins again because the remote moved meanwhile
PACKS = 50  #: with more files than these the repository is put together

MOVED = ("[rejected]", "cannot lock ref", "failed to update ref", "incorrect old value")
SHALLOW = "shallow update not allowed"


@dataclass(frozen=True)
class Newest:
    """A commit of ours: what it says it is, and the entries of its tree by path."""

    commit: str
    state: State | None
    index: Mapping[str, Entry] = field(repr=False)

    def at(self, commit: str) -> "Newest":
        """The same tree in another commit."""
        return Newest(commit, replace(self.state, commit=commit) if self.state else None, self.index)


@dataclass(frozen=True)
class Pushed:
    """What the remote has now. `merged`: with commits of somebody else below. `conflict`: on which other branch."""

    commit: str
    merged: bool = False
    conflict: str = ""


class Archive:
    """The archive of one data directory, used by whoever holds its lock; one thread at a time.

    Every method waits for the disk or the network. They raise ArchiveError (try again later, unless it is not
    `retryable`), StorageError, and `push` also Fenced. `problems` says what the last call left out or found.
    """

    def __init__(
        self, disk: Disk, paths: Paths, ids: Ids, *, branch_name: str = "state/main", remote: Remote | None = None
    ) -> None:
        """Raises UsageError for a branch or remote that cannot be used."""
        if remote and remote.folder and remote.folder.resolve().is_relative_to(paths.root.resolve()):
            # Its hooks would be run, and what lies there may be written by tools.
            raise UsageError("the git remote lies in the data directory", hint="choose a folder outside of it")
        self.problems: tuple[str, ...] = ()
        self._disk = disk
        self._paths = paths
        self._ids = ids
        self._branch = branch(branch_name)
        self._ref = f"refs/heads/{self._branch}"
        self._git = Git(disk, paths.root / FOLDER, remote)
        self._tip: Newest | None = None
        self._shelf: Mapping[str, str] | None = None  # where each body lies, once one was asked for
        self._prepared = False
        self._proven = False  # all objects were read by git, and none has come since

    @property
    def remote(self) -> Remote | None:
        """Where it is copied to, or None."""
        return self._git.remote

    # ------------------------------------------------------------ commit

    def commit(self, picture: Picture, source: Source, limit_s: float = LOCAL_S) -> str | None:
        """Adds a commit with this picture and returns its id; None where the last one shows the same.

        What cannot be read is left out and told in `problems`. Raises StoreError where bytes have to come from there.
        """
        self.problems = ()
        try:
            return self._commit(picture, source, limit_s)
        except ArchiveError as error:
            self._heal(error)
            return self._commit(picture, source, limit_s)

    def _commit(self, picture: Picture, source: Source, limit_s: float) -> str | None:
        tip, state = self._load(), tree.state_of(picture)
        if tip and tip.state and _same(tip.state, state):
            return None
        index = dict(tip.index) if tip else {}
        parents = (tip.commit,) if tip else ()
        start = tree.begun(self._ref, tree.message(state), state.time, parents)
        changes = self._changes(index, picture, state, source)
        commit = self._import((*start,), changes, limit_s)
        self._tip = Newest(commit, replace(state, commit=commit), index)
        self._tidy()
        return commit

    def _changes(self, index: dict[str, Entry], picture: Picture, state: State, source: Source) -> Iterator[bytes]:
        """The changes of the tree, worked out while git starts; `index` becomes what it then holds."""
        wanted = tree.entries(picture, state.encode())
        # Removed first: a path may have been a file and be a folder now.
        for path in [path for path in index if path not in wanted and not path.startswith(BLOBS)]:
            del index[path]
            yield tree.removed(path)
        for path, entry in wanted.items():
            before = index.get(path)
            if before is None or (before.mode, before.sha256) != (entry.mode, entry.sha256):
                yield from self._written(index, path, entry, source)

    def _written(self, index: dict[str, Entry], path: str, entry: Entry, source: Source) -> Iterator[bytes]:
        try:
            data = entry.text if entry.kind == "text" else _fetched(source, entry)
        except (NotFound, Damaged) as error:
            self._tell(f"{path} is not in the archive: {error}")
            return
        if path.startswith(tree.SESSIONS):
            for sha in blobs_in(data.splitlines()):
                if tree.blob_path(sha) not in index:
                    yield from self._written(index, tree.blob_path(sha), Entry(tree.PLAIN, sha, "blob"), source)
        index[path] = entry._replace(text=b"")
        yield from tree.written(path, entry.mode, data)

    def _import(self, start: Iterable[bytes], changes: Iterable[bytes], limit_s: float = LOCAL_S) -> str:
        """Makes a commit of what `git fast-import` is told. Only then does the branch move. Returns its id."""

        def pieces() -> Iterator[bytes]:
            yield from start
            yield from changes
            yield tree.ended()

        self._proven = False
        answer = self._git.run("fast-import", "--quiet", feed=pieces(), limit_s=limit_s)
        if not answer.ok:
            raise failed("fast-import", answer)
        return answer.out.decode().strip()

    def _tidy(self) -> None:
        """A commit is a file of its own; now and then they are put together, the large ones rarely."""
        packs = [name for name in self._disk.names(self._git.folder / "objects/pack") if name.endswith(".pack")]
        if len(packs) > PACKS:
            self._git.ask("repack", "--geometric=2", "-d", "-q")

    # ------------------------------------------------------------ push

    def push(self, limit_s: float = REMOTE_S) -> Pushed | None:
        """Brings the remote's branch to the last commit; None where there is none yet, or no remote.

        Raises Fenced where the remote is of a later reign; ArchiveUnreachable, ArchiveRefused.
        """
        self.problems = ()
        remote, merged = self._git.remote, False
        for _ in range(TRIES):
            tip = self._load()
            if tip is None or remote is None:
                return None
            answer = self._send(tip.commit, self._ref, limit_s)
            if answer.ok:
                self._git.ask("update-ref", SEEN, tip.commit)
                return Pushed(tip.commit, merged)
            if _says(answer, SHALLOW):
                self._replant(tip)
            elif not _says(answer, *MOVED):
                raise self._failed(remote, answer)
            elif (theirs := self._fetch(remote, limit_s)) is not None:
                if self._kin(tip, theirs) is Kin.FOREIGN:
                    return self._beside(tip, remote, limit_s)
                self._merge(tip, theirs)
                merged = True
        raise ArchiveError(f"{remote.url if remote else ''} moved with every push", hint="it is tried again")

    def _send(self, commit: str, ref: str, limit_s: float) -> Answer:
        assert self._git.remote is not None
        url = self._git.remote.url
        return self._git.run("push", "--porcelain", "--", url, f"{commit}:{ref}", remote=True, limit_s=limit_s)

    def _failed(self, remote: Remote, answer: Answer) -> ArchiveError:
        error = away("push", remote, answer)
        if not isinstance(error, ArchiveUnreachable | ArchiveRefused) and not self._sound():
            self._set_aside(error)
        return error

    def _fetch(self, remote: Remote, limit_s: float) -> str | None:
        """The remote's branch, brought here; None where it has none. The first time without what lies before it."""
        commit = self._listed(remote, limit_s)
        if commit is None:
            return None
        if self._git.run("cat-file", "-e", f"{commit}^{{commit}}").ok:
            self._git.ask("update-ref", SEEN, commit)
            return commit
        deep = () if self._commit_of(SEEN) else ("--depth=1",)
        options = (
            *deep,
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-recurse-submodules",
        )
        spec = f"+{self._ref}:{SEEN}"
        self._proven = False
        answer = self._git.run("fetch", *options, "--", remote.url, spec, remote=True, limit_s=limit_s)
        if not answer.ok:
            raise away("fetch", remote, answer)
        return self._commit_of(SEEN)

    def _listed(self, remote: Remote, limit_s: float) -> str | None:
        """The commit of the remote's branch, which is not brought here; None where it has none."""
        listed = self._git.run("ls-remote", "--", remote.url, self._ref, remote=True, limit_s=limit_s)
        if not listed.ok:
            raise away("ls-remote", remote, listed)
        return next(
            (line.split()[0].decode() for line in listed.out.splitlines() if line.endswith(self._ref.encode())), None
        )

    def _kin(self, tip: Newest, commit: str) -> Kin:
        """What the remote's commit is to ours. Raises Fenced."""
        try:
            state = self._state(commit)
            theirs = self._place(state)
        except (Damaged, ArchiveError):
            return Kin.FOREIGN  # whatever it is, it is not ours to bury
        if tip.state is None:
            return Kin.FOREIGN
        mine, known = self._place(tip.state), state.seq <= tip.state.seq
        chain = digest_at(self._disk, self._paths.wal, state.seq) if known else None
        found = kin(mine, self._reigns(tip.state), theirs, chain)
        if found is Kin.LATER:
            raise Fenced(
                f"the archive is of epoch {state.epoch} now, and this is epoch {tip.state.epoch}",
                hint="another instance has taken over this agent",
            )
        return found

    def _merge(self, tip: Newest, theirs: str) -> None:
        """A commit of ours above theirs, with our tree: nothing of theirs is lost, and the push goes forward."""
        assert tip.state is not None
        text = f"Join what the remote had\n\n{tree.message(tip.state)}"
        start = tree.begun(self._ref, text, tip.state.time, (tip.commit, theirs))
        self._tip = tip.at(self._import(start, ()))

    def _beside(self, tip: Newest, remote: Remote, limit_s: float) -> Pushed:
        """Pushes to a branch of our own, the same one each time."""
        known = self._git.ask("for-each-ref", "--format=%(refname)", f"{self._ref}-conflict-*").decode().split()
        for ref in (*known[-1:], f"{self._ref}-conflict-{self._ids.new()}"):
            answer = self._send(tip.commit, ref, limit_s)
            if answer.ok:
                self._git.ask("update-ref", ref, tip.commit)
                name = ref.removeprefix("refs/heads/")
                self._tell(
                    f"the branch {self._branch} at {remote.url} holds another history; this one is pushed to {name}. "
                    "Look at both, then set FINN_GIT_BRANCH or remove one"
                )
                return Pushed(tip.commit, conflict=name)
        raise self._failed(remote, answer)

    def _replant(self, tip: Newest) -> None:
        """The remote was made anew and lacks the past that we never fetched: the last commit begins again there."""
        assert tip.state is not None
        root = self._git.ask("rev-parse", f"{tip.commit}^{{tree}}").decode().strip()
        text = f"Begin again without what came before {tip.commit}\n\n{tree.message(tip.state)}"
        start = tree.begun(REPLANTED, text, tip.state.time, ())
        commit = self._import(start, (b"M 040000 %b \n" % root.encode(),))
        self._git.ask("update-ref", f"refs/finn/before/{tip.commit}", tip.commit)
        self._git.ask("update-ref", self._ref, commit, tip.commit)
        self._git.ask("update-ref", "-d", REPLANTED)
        self._tip = tip.at(commit)

    # ------------------------------------------------------------ latest, restore

    def heads(self, limit_s: float = REMOTE_S) -> frozenset[str]:
        """The commits at the end of the branch, here and at the remote, which has `limit_s` to answer."""
        self._prepare()
        there = self._listed(self._git.remote, limit_s) if self._git.remote else None
        return frozenset(filter(None, (self._commit_of(self._ref), there)))

    def kin(self, state: State, theirs: Place) -> Kin:
        """What a history that ends there is to the one whose newest state this is. Raises Damaged, ArchiveError."""
        chain = state.chain_sha if theirs.seq == state.seq else None
        return kin(self._place(state), self._reigns(state), theirs, chain)

    def latest(self, limit_s: float = REMOTE_S) -> State | None:
        """The newest state that the archive has, here or at the remote; None where both are there and have none.

        Raises ArchiveUnreachable or ArchiveRefused where the remote cannot be asked and nothing is here.
        """
        self.problems = ()
        here = self._here()
        there: State | None = None
        if self._git.remote:
            try:
                there = self._there(self._git.remote, limit_s)
            except (ArchiveError, Damaged, Newer) as error:
                if here is None:
                    raise
                self._tell(str(error))
        found = [state for state in (here, there) if state]
        return max(found, key=lambda state: (state.epoch, state.seq), default=None)

    def restore(self, state: State, into: Path, means: Means, *, epoch: int) -> Retrieved:
        """Builds a data directory's wal, snapshots, chunks and blobs in `into` from the commit of this state.

        `Journal.open` takes it; `epoch` is what its first records carry. Raises Damaged where it cannot be proven.
        """
        self._prepare()
        if not self._proven and not (answer := self._fsck()).ok:
            raise Damaged(f"the archive does not prove itself: {answer.gist}", hint="another source is used")
        self._proven = False  # for this once: a disk is not trusted for long
        return retrieve(self._git, state, into, means, epoch)

    def body(self, sha: str) -> bytes:
        """The chunk, file or long text of this hash, out of the newest commits. Raises NotFound, ArchiveError."""
        if self._shelf is None:
            self._shelf = dict(self._shelved())
        if sha not in self._shelf:
            raise NotFound(f"the archive has no {sha}")
        try:
            [data] = self._git.objects([self._shelf[sha]])
        except Damaged as error:
            raise NotFound(error.message) from error
        if sha256(data).hexdigest() != sha:
            raise NotFound(f"{self._shelf[sha]} in the archive is not what it was")
        return data

    def _shelved(self) -> Iterator[tuple[str, str]]:
        """By its hash every body that is here or at the remote."""
        self._prepare()
        commits = [self._commit_of(self._ref)]
        if self._git.remote:
            try:
                commits.append(self._fetch(self._git.remote, REMOTE_S))
            except ArchiveError:
                if commits == [None]:
                    raise
        for commit in filter(None, commits):
            for path, entry in self._read(commit).index.items():
                if entry.kind != "text":
                    yield entry.sha256, f"{commit}:{path}"

    def _here(self) -> State | None:
        if not self._git.folder.is_dir():
            return None
        try:
            self._prepare()
            commit = self._commit_of(self._ref)
            return self._state(commit) if commit and self._sound() else None
        except GitMissing:
            raise
        except (ArchiveError, Damaged, Newer) as error:
            self._tell(str(error))
            return None

    def _there(self, remote: Remote, limit_s: float) -> State | None:
        self._prepare()
        commit = self._fetch(remote, limit_s)
        return self._state(commit) if commit else None

    # ------------------------------------------------------------ the own folder

    def _load(self) -> Newest | None:
        """The last commit of our branch, with what is in it; read once, for nobody else writes here."""
        self._prepare()
        if self._tip is None and (commit := self._commit_of(self._ref)):
            self._tip = self._read(commit)
        return self._tip

    def _read(self, commit: str) -> Newest:
        listed = [path for path, _ in unpacked(self._git, commit)]
        try:
            state = self._state(commit)
            known = tree.entries(self._picture(state))
            tails = {tree.tail_path(name): Entry(tree.PLAIN, sha, "text") for name, sha in state.tails.items()}
        except Damaged:
            return Newest(commit, None, {path: Entry("", "", "text") for path in listed})
        blobs = {path: Entry(tree.PLAIN, path.removeprefix(BLOBS).replace("/", ""), "blob") for path in listed}
        names = {**{path: one for path, one in blobs.items() if path.startswith(BLOBS)}, **known, **tails}
        return Newest(commit, state, {path: names.get(path, Entry("", "", "text")) for path in listed})

    def _state(self, commit: str) -> State:
        """What a commit says it is. Raises Damaged, Newer."""
        return tree.decode(self._blob(commit, tree.STATE), commit)

    def _picture(self, state: State) -> Picture:
        return of(tree.snapshot_of(state, self._blob(state.commit, tree.SNAPSHOT)))

    def _place(self, state: State) -> Place:
        return Place(state.epoch, state.seq, state.chain_sha, self._picture(state).streams.keys())

    def _reigns(self, state: State) -> Reigns:
        taken = tree.snapshot_of(state, self._blob(state.commit, tree.SNAPSHOT))
        return REIGNS.load(taken.folds[REIGNS.name]["state"])

    def _blob(self, commit: str, path: str) -> bytes:
        [data] = self._git.objects([f"{commit}:{path}"], SNAPSHOT_BYTES)
        return data

    def _commit_of(self, ref: str) -> str | None:
        """The commit that a ref names, or None where there is no such ref. Raises ArchiveError for a damaged one."""
        answer = self._git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if answer.ok:
            return answer.out.decode().split()[-1]
        if (self._git.folder / ref).exists():
            raise ArchiveError(f"{ref} in {self._git.folder} is damaged", hint="the archive is begun anew")
        return None

    def _prepare(self) -> None:
        if not self._prepared:
            self._git.prepare()
            self._prepared = True

    def _sound(self) -> bool:
        return self._fsck().ok

    def _fsck(self) -> Answer:
        answer = self._git.run("fsck", "--full", "--no-dangling", "--no-progress")
        self._proven = answer.ok
        return answer

    def _heal(self, error: ArchiveError) -> None:
        """Makes way for a second attempt: what a command left behind goes, and a damaged folder. Else raises again."""
        self._tip, self._prepared = None, False
        if isinstance(error, GitMissing | ArchiveSlow):
            raise error
        self._prepare()
        if not self._sound():
            self._set_aside(error)

    def _set_aside(self, error: ArchiveError) -> None:
        """The own folder goes to quarantine, with a note why."""
        name = f"git-{self._ids.new()}"
        quarantine.move(self._disk, self._git.folder, self._paths.quarantine, name, why=str(error))
        self._tip, self._prepared = None, False
        self._tell(f"the archive's own folder was damaged and is begun anew; the old one is {name} in quarantine")

    def _tell(self, sentence: str) -> None:
        self.problems = (*self.problems, sentence)


def _same(one: State, other: State) -> bool:
    """Whether two commits would show the same: not when, nor beside which manifest."""
    return (one.seq, one.chain_sha, one.state_sha) == (other.seq, other.chain_sha, other.state_sha)


def _fetched(source: Source, entry: Entry) -> bytes:
    return source.chunk(entry.sha256) if entry.kind == "chunk" else source.blob(entry.sha256)


def _says(answer: Answer, *words: str) -> bool:
    text = answer.out.decode(errors="replace") + answer.error
    return any(word in text for word in words)
