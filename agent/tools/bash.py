"""bash: a shell command in the sandbox, with its output, until it ends, its time is up or the turn is stopped.

    argv ─▶ its own session ─▶ one pipe for stdout and stderr ─▶ Ends (bounded) ─▶ result
               │                         └─ every 100 ms ─▶ show
               └─ over, late or cancelled ─▶ SIGTERM ─ 1 s ─▶ SIGKILL to the whole group

A child left in the background may hold the pipe open; it is killed when the command itself has ended. Under bubblewrap
the end of the first process is the end of all of them, also of those that made themselves a session of their own.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated

from pydantic import Field

from agent.sandbox import Sandbox
from agent.tool import Declaration, Show, Site, ToolResult
from agent.tools.excerpt import Ends
from persistence.clock import Clock
from persistence.events import Value

TIMEOUT_S = 120
LONGEST_S = 600
GRACE_S = 1.0  #: between SIGTERM and SIGKILL
LAST_WORDS_S = 0.1  #: for what is still in the pipe when the command has ended
SHOW_S = 0.1
SHOWN_CHARS = 4096  #: of what came in SHOW_S
READ_BYTES = 64 * 1024


class Arguments(Value):
    command: Annotated[str, Field(min_length=1)]
    timeout: Annotated[int, Field(ge=1, le=LONGEST_S)] = TIMEOUT_S


class Output:
    """The reading end of a command's pipe."""

    def __init__(self, show: Show, clock: Clock) -> None:
        self.kept = Ends()
        self.ended = asyncio.Event()
        self._show = show
        self._clock = clock
        self._unshown = ""
        self._fresh = asyncio.Event()

    @asynccontextmanager
    async def pipe(self) -> AsyncIterator[int]:
        """Gives the writing end. Inside, what is written is taken as it comes."""
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        loop.add_reader(reading, self._take, reading)
        try:
            async with asyncio.TaskGroup() as group:
                showing = group.create_task(self._showing())
                yield writing
                showing.cancel()
        finally:
            loop.remove_reader(reading)
            os.close(reading)

    def _take(self, reading: int) -> None:
        with suppress(BlockingIOError):
            data = os.read(reading, READ_BYTES)
            if not data:
                asyncio.get_running_loop().remove_reader(reading)
                self.ended.set()
            self._unshown += self.kept.feed(data)
        if len(self._unshown) > 2 * SHOWN_CHARS:
            self._unshown = "[...]\n" + self._unshown[-SHOWN_CHARS:]
        if self._unshown:
            self._fresh.set()

    async def _showing(self) -> None:
        while True:
            await self._fresh.wait()
            await self._clock.sleep(SHOW_S)
            self._fresh.clear()
            text, self._unshown = self._unshown, ""
            self._show(text)


class Bash:
    """The Tool. Asked where the sandbox refuses, it gives the sandbox's reason."""

    declaration = Declaration(
        name="bash",
        description="Run a shell command in the workspace.",
        args=Arguments,
        capabilities=frozenset({"read", "write", "exec"}),
        alone=True,
    )

    async def run(self, args: Arguments, site: Site, show: Show) -> ToolResult:
        """The output, head and tail, and the exit code. Cancelled, it ends the command and everything it started."""
        if site.sandbox.refused:
            return ToolResult(f"bash is not available: {site.sandbox.rung.reason}", is_error=True)
        output = Output(show, site.clock)
        async with output.pipe() as writing:
            try:
                command = Command(args.command, site.sandbox, writing)
            except (OSError, ValueError) as error:
                return ToolResult(f"The command could not be started: {error}", is_error=True)
            finally:
                os.close(writing)
            in_time = await command.finished(args.timeout)
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await output.ended.wait()
        return _result(output.kept, command.code if in_time else None, args.timeout)


class Command:
    """A command that was started, watched through a pidfd.

    asyncio's own processes can be lost when a task is cancelled while they start, and are reaped behind our back: then
    the number of the group could be somebody else's when it is killed. This one starts before anybody can cancel, and
    is reaped after the last signal.
    """

    def __init__(self, command: str, sandbox: Sandbox, writing: int) -> None:
        """Starts it, with `writing` as its output. Raises OSError or ValueError."""
        self._process = sandbox.start(command, writing)
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:  # no descriptor left to watch it with
            self._signal(signal.SIGKILL)
            self._process.wait()
            raise
        self._over = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._over.set)

    @property
    def code(self) -> int:
        """The exit code, as a shell tells it; known when it has finished."""
        code = self._process.returncode
        return 128 - code if code < 0 else code

    async def finished(self, limit_s: float) -> bool:
        """Whether it ended by itself in time. However this is left, nothing of its group is."""
        try:
            async with asyncio.timeout(limit_s):
                await self._over.wait()
            return True
        except TimeoutError:
            return False
        finally:
            await self._end()

    async def _end(self) -> None:
        """Asks the group to stop, then stops it, also when this is cancelled in its turn."""
        try:
            if not self._over.is_set():
                self._signal(signal.SIGTERM)
                with suppress(TimeoutError):
                    async with asyncio.timeout(GRACE_S):
                        await self._over.wait()
        finally:
            self._signal(signal.SIGKILL)
            try:
                await self._over.wait()
            finally:
                self._reap()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()  # it is dead


def _result(kept: Ends, code: int | None, timeout: int) -> ToolResult:
    text, cut = kept.text()
    said = text.rstrip("\n") or "(no output)"
    if code is None:
        said += f"\n\nCommand timed out after {timeout} seconds; it and everything it started was killed"
    elif code:
        said += f"\n\nCommand exited with code {code}"
    details = {"exitCode": code, "timedOut": code is None}
    return ToolResult(said, is_error=code != 0, truncated=cut, details=details)


BASH = Bash()
