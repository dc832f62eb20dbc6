"""The listening socket, and who is in the way where there is none to be had."""

import errno
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from persistence.errors import BindError

BACKLOG = 1024


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises BindError, which says who is in the way if it can."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise BindError(f"{host} is not a host name that is known here ({error})", hint="set FINN_HOST") from None
    family, kind, proto, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _bind_error(host, port, error) from None
    return listener


def _bind_error(host: str, port: int, error: OSError) -> BindError:
    where = f"port {port} of {host}"
    if error.errno == errno.EADDRINUSE:
        by = holder(port)
        return BindError(
            f"{where} is in use{f' by {by}' if by else ''}", hint="stop that program, or choose another with --port"
        )
    if error.errno == errno.EACCES:
        return BindError(f"{where} is not allowed to this user", hint="choose a port above 1023 with --port")
    if error.errno == errno.EADDRNOTAVAIL:
        return BindError(f"{host} is not an address of this machine", hint="set FINN_HOST to one of its own")
    return BindError(f"{where} cannot be listened on: {error.strerror}", hint="choose another with --port or --host")


def holder(port: int) -> str | None:
    """`python3 (pid 4711)`, the program that listens on a port, as far as /proc shows it to this user."""
    wanted = {f"socket:[{inode}]" for inode in _listening(port)}
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):  # another user's process, or one that just ended
            if any(str(each.readlink()) in wanted for each in descriptors.iterdir()):
                return f"{(descriptors.parent / 'comm').read_text().strip()} (pid {descriptors.parent.name})"
    return None


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a port."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):  # no Linux, or no IPv6
            for line in table.read_text().splitlines()[1:]:
                _, local, _, state, *_, inode = line.split()[:10]
                if state == "0A" and int(local.rpartition(":")[2], 16) == port:
                    yield inode
