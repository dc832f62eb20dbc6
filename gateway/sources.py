"""The copies that the settings name, ready to be asked; nothing is asked, nor loaded, before.

FINN_STORE_URL, AWS_* ─▶ store_of        FINN_GIT_REMOTE, FINN_GIT_BRANCH ─▶ archive_of
"""

from gateway.settings import Settings
from persistence import git
from persistence.archive import Archive
from persistence.clock import Ids
from persistence.disk import Disk
from persistence.replay import Paths
from persistence.store import Access, Below, Store
from persistence.stores import open_store


def store_of(settings: Settings) -> Store | None:
    """The store of this agent, or None where none is set. Raises UsageError."""
    if settings.store_url is None:
        return None
    key_id, secret, token = settings.aws_access_key_id, settings.aws_secret_access_key, settings.aws_session_token
    access = Access(
        endpoint=settings.aws_endpoint_url_s3 or "",
        region=settings.aws_region or "",
        key_id=key_id.reveal() if key_id else "",
        secret=secret.reveal() if secret else "",
        session_token=token.reveal() if token else "",
    )
    return Below(open_store(settings.store_url, access), settings.agent_id)


def remote_of(settings: Settings) -> git.Remote | None:
    """The archive's remote, or None where none is set."""
    remote = settings.git_remote
    return git.Remote(remote.url, remote.user, remote.reveal()) if remote else None


def archive_of(settings: Settings, disk: Disk, paths: Paths, ids: Ids, remote: git.Remote | None) -> Archive:
    """The archive of a data directory. Raises UsageError for a branch or remote that cannot be used."""
    return Archive(disk, paths, ids, branch_name=settings.archive_branch, remote=remote)
