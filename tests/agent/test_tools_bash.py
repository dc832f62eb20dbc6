"""bash: what a command says, head and tail, and nobody left when it is over."""

import asyncio
import errno
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest

from agent.tool import Site, ToolResult
from agent.tools.bash import BASH, Arguments
from agent.tools.excerpt import BYTES, HALF_LINES, LINES, Ends
from persistence.clock import SystemClock
from tests.site import call, sandboxed, shows_nothing, site


@pytest.fixture(params=["bwrap", "none"])
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """With and without a sandbox."""
    return sandboxed(tmp_path, request.param)


@pytest.fixture
def inside(tmp_path: Path) -> Site:
    return sandboxed(tmp_path)


@contextmanager
def watched(here: Site) -> Iterator[TextIO]:
    """A pipe `alive` in the workspace: a process that has it open for writing lives until we read its end."""
    os.mkfifo(here.workspace / "alive")
    with open(os.open(here.workspace / "alive", os.O_RDONLY | os.O_NONBLOCK)) as alive:
        os.set_blocking(alive.fileno(), True)
        yield alive


async def run(here: Site, command: str, timeout: int = 30) -> ToolResult:
    return await call(here, "bash", command=command, timeout=timeout)


# ---------------------------------------------------------------- what it says


async def test_a_command_gives_its_output(here: Site) -> None:
    result = await run(here, "echo one; echo two >&2; echo three")
    assert (result.text, result.is_error, result.truncated) == ("one\ntwo\nthree", False, False)
    assert result.details == {"exitCode": 0, "timedOut": False}


async def test_it_runs_in_the_workspace_without_input(here: Site) -> None:
    assert (await run(here, "pwd; wc -c; tty")).text == f"{here.workspace}\n0\nnot a tty\n\nCommand exited with code 1"


async def test_a_failure_is_an_error_with_its_code(here: Site) -> None:
    result = await run(here, "echo no; exit 3")
    assert (result.text, result.is_error) == ("no\n\nCommand exited with code 3", True)
    assert result.details == {"exitCode": 3, "timedOut": False}


async def test_silence_is_said(here: Site) -> None:
    assert (await run(here, "true")).text == "(no output)"


async def test_a_command_that_is_killed_says_so(here: Site) -> None:
    result = await run(here, "bash -c 'kill -9 $$'; exit $?")
    assert result.text.endswith("Command exited with code 137")


async def test_a_command_is_given_to_the_shell_and_to_nothing_before_it(here: Site) -> None:
    assert (await run(here, "-c 'echo x'")).is_error
    assert (await run(here, "echo \"$0\" '--' $#")).text.endswith("-- 0")


async def test_bytes_that_are_no_text_become_signs(here: Site) -> None:
    assert (await run(here, r"printf 'caf\xe9 \xf0\x9f\x98'; printf '\x80'")).text == "caf\ufffd 😀"


async def test_a_nul_in_the_command_is_an_error_and_no_crash(here: Site) -> None:
    result = await run(here, "echo\0")
    assert result.text == "The command could not be started: embedded null byte"


async def test_a_workspace_that_is_gone_is_an_error_and_no_crash(here: Site) -> None:
    here.workspace.rmdir()
    assert (await run(here, "true")).is_error


async def test_where_the_sandbox_refuses_the_reason_is_the_result(tmp_path: Path) -> None:
    result = await BASH.run(Arguments(command="touch x"), site(tmp_path), shows_nothing)
    assert (result.text, result.is_error) == ("bash is not available: not in this test", True)


# ---------------------------------------------------------------- how much


async def test_long_output_keeps_both_ends_and_counts_what_is_missing(here: Site) -> None:
    result = await run(here, "seq 1 10000")
    lines = result.text.split("\n")
    assert lines[:HALF_LINES] == [str(number) for number in range(1, HALF_LINES + 1)]
    assert lines[HALF_LINES] == "[... 8000 lines, 39.1KB left out ...]"
    assert lines[HALF_LINES + 1 :] == [str(number) for number in range(9001, 10001)]
    assert result.truncated


async def test_a_line_without_end_keeps_both_ends(here: Site) -> None:
    result = await run(here, "printf begin; head -c 1000000 /dev/zero | tr '\\0' x; printf end")
    assert result.text.startswith("beginxxx")
    assert result.text.endswith("xxxend")
    assert len(result.text) <= BYTES + 100


@pytest.mark.slow
async def test_a_gigabyte_is_passed_over_in_little_memory(here: Site) -> None:
    tracemalloc.start()
    try:
        result = await run(here, "echo first; head -c 1000000000 /dev/zero | tr '\\0' 'x'; echo; echo last")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert result.text.startswith("first\nxxx")
    assert "953." in result.text
    assert result.text.endswith("xxx\nlast")
    assert peak < 8 * 2**20


@pytest.mark.parametrize("sizes", [(1,), (7, 8191), (BYTES,), (BYTES + 1,), (3 * BYTES,)])
@pytest.mark.parametrize("letter", ["x", "é", "😀", "\n", "\r\n"])
def test_however_a_stream_is_cut_its_ends_are_whole(sizes: tuple[int, ...], letter: str) -> None:
    """Against the plain way: all of it in memory."""
    stream = f"start{letter * 60_000}stop".encode()
    ends, at, turn = Ends(), 0, 0
    while at < len(stream):
        ends.feed(stream[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    text, cut = ends.text()
    first, note, last = (
        text.partition("[... ")[0],
        text.partition("[... ")[2].partition("\n")[0],
        text.rpartition("...]\n")[2],
    )
    whole = stream.decode()
    assert cut
    assert whole.startswith(first.rstrip("\n"))
    assert whole.endswith(last)
    assert note.endswith("left out ...]")
    assert len(text.encode()) <= BYTES + 100
    assert text.count("\n") <= LINES + 2


@pytest.mark.parametrize("text", ["", "x", "x" * BYTES, "\n" * LINES])
def test_what_fits_is_given_as_it_is(text: str) -> None:
    ends = Ends()
    ends.feed(text.encode())
    assert ends.text() == (text, False)


# ---------------------------------------------------------------- while it runs


async def test_output_is_shown_while_the_command_runs(here: Site) -> None:
    """The command waits for a file that only the one who sees its first line makes."""
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        (here.workspace / "seen").touch()

    command = "echo one; until [ -e seen ]; do sleep 0.01; done; echo two"
    result = await BASH.run(Arguments(command=command), here, show)
    assert result.text == "one\ntwo"
    assert shown[0] == "one\n"


async def test_a_flood_is_shown_in_small_pieces(here: Site) -> None:
    shown: list[str] = []
    cut = asyncio.Event()

    def show(text: str) -> None:
        shown.append(text)
        if text.startswith("[...]\n"):
            cut.set()

    running = asyncio.create_task(BASH.run(Arguments(command="yes"), replace(here, clock=SystemClock()), show))
    await asyncio.wait({running, asyncio.create_task(cut.wait())}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert cut.is_set()
    assert all(len(text) <= 10_000 for text in shown)


# ---------------------------------------------------------------- how it ends


async def test_a_command_that_takes_too_long_is_ended_with_what_it_said(here: Site) -> None:
    with watched(here) as alive:
        result = await run(here, "exec 3> alive; echo said; sleep 1000", timeout=1)
        assert alive.read() == ""
    assert result.text == "said\n\nCommand timed out after 1 seconds; it and everything it started was killed"
    assert result.details == {"exitCode": None, "timedOut": True}
    assert result.is_error


async def test_a_command_that_will_not_stop_is_killed(here: Site) -> None:
    with watched(here) as alive:
        result = await run(here, "trap '' TERM; exec 3> alive; while :; do sleep 0.1; done", timeout=1)
        assert alive.read() == ""
    assert result.is_error


async def test_endless_output_ends_with_the_time(here: Site) -> None:
    result = await run(here, "yes", timeout=1)
    assert result.text.startswith("y\ny\n")
    assert "left out" in result.text
    assert result.truncated


async def test_a_background_child_does_not_hold_the_command_and_ends_with_it(here: Site) -> None:
    with watched(here) as alive:
        result = await run(here, "(exec 3> alive; sleep 1000) & until [ -e /proc/$! ]; do :; done; echo done")
        assert alive.read() == ""
    assert result.text == "done"


async def test_a_child_in_a_session_of_its_own_ends_with_the_sandbox(inside: Site) -> None:
    with watched(inside) as alive:
        result = await run(inside, "setsid bash -c 'exec 3> alive; touch up; sleep 1000' & until [ -e up ]; do :; done")
        assert alive.read() == ""
    assert result.text == "(no output)"


@pytest.mark.parametrize("bomb", ["while :; do sleep 1000 & done", "f() { sleep 0.2; f & f & wait; }; f"])
async def test_a_fork_bomb_ends_with_the_time(inside: Site, bomb: str) -> None:
    with watched(inside) as alive:
        result = await run(inside, f"exec 3> alive; {bomb}", timeout=1)
        assert alive.read() == ""
    assert result.details == {"exitCode": None, "timedOut": True}


@pytest.mark.parametrize("command", ["sleep 1000", "trap '' TERM; while :; do sleep 0.1; done", "yes"])
async def test_a_cancelled_command_leaves_nobody(here: Site, command: str) -> None:
    started = asyncio.Event()
    with watched(here) as alive:
        asked = Arguments(command=f"exec 3> alive; echo started; {command}")
        running = asyncio.create_task(BASH.run(asked, here, lambda text: started.set()))
        await started.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert running.cancelled()
        assert alive.read() == ""


async def test_a_command_cancelled_twice_leaves_nobody(here: Site) -> None:
    started = asyncio.Event()
    with watched(here) as alive:
        asked = Arguments(command="trap '' TERM; exec 3> alive; echo started; while :; do sleep 0.1; done")
        running = asyncio.create_task(BASH.run(asked, here, lambda text: started.set()))
        await started.wait()
        running.cancel()
        await asyncio.sleep(0)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert alive.read() == ""


async def test_a_command_cancelled_while_it_starts_leaves_nobody(here: Site) -> None:
    with watched(here) as alive:
        for turns in range(8):
            running = asyncio.create_task(BASH.run(Arguments(command="exec 3> alive; sleep 1000"), here, shows_nothing))
            for _ in range(turns):
                await asyncio.sleep(0)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        assert alive.read() == ""


async def test_a_command_that_cannot_be_watched_is_not_left_running(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with watched(here) as alive:
        monkeypatch.setattr(os, "pidfd_open", none_left)
        result = await run(here, "exec 3> alive; sleep 1000")
        assert alive.read() == ""
    assert result.text == "The command could not be started: [Errno 24] Too many open files"


async def test_many_commands_leave_no_descriptor_and_no_task(here: Site) -> None:
    await run(here, "true")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await run(here, "echo x")
        await run(here, "exit 1")
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(asyncio.all_tasks()) == 1


async def test_the_loop_turns_while_a_command_writes(here: Site) -> None:
    """Between two looks at the pipe others get their turn."""
    turns = 0
    running = asyncio.create_task(run(here, "yes | head -c 200000000"))
    while not running.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 1000


async def test_no_secret_of_ours_gets_into_a_result(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-1b7e")
    assert "CANARY-1b7e" not in (await run(here, "env; set; export -p")).text
