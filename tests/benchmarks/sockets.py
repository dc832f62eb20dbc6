"""What an open WebSocket costs that nobody speaks on: the growth of the server's memory, by a thousand of them."""

import socket
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import history
from tests.benchmarks.processes import Process, finn, token, upgrade
from tests.benchmarks.rounds import Goal, Measured, Round

ADDRESSES = tuple(f"127.0.0.{host}" for host in range(2, 12))  # one address may open 256
WARM = 50  #: sockets that have come and gone before the first count


def measure(folder: Path, quick: bool) -> Iterator[Measured]:
    data = folder / "data"
    (session,) = history.write(data, (100,))
    count, rounds = (200 if quick else 1000), []
    for _ in range(1 if quick else 3):
        with finn(data) as process:
            process.answers("/readyz")
            hang_up(opened(process, token(data), session, WARM))
            before = process.rss()
            sockets = opened(process, token(data), session, count)
            rounds.append(Round(None, (process.rss() - before) * 1024 / count))
            hang_up(sockets)
    yield Measured(f"an idle WebSocket, of {count:,}", "KiB", "", rounds, Goal("ours", most=40))


def opened(process: Process, bearer: str, session: str, count: int) -> list[socket.socket]:
    """Sockets that have said hello."""
    return [one(process.port, bearer, session, ADDRESSES[number % len(ADDRESSES)]) for number in range(count)]


def one(port: int, bearer: str, session: str, address: str) -> socket.socket:
    """A socket from an address of loopback, with its hello read."""
    opening = socket.create_connection(("127.0.0.1", port), source_address=(address, 0), timeout=30)
    opening.sendall(upgrade(port, bearer, session))
    received = b""
    while b'"hello"' not in received:
        more = opening.recv(65536)
        if not more:
            raise ConnectionError(f"the socket was refused: {received!r}")
        received += more
    return opening


def hang_up(sockets: list[socket.socket]) -> None:
    """Closes them all."""
    for each in sockets:
        each.close()
