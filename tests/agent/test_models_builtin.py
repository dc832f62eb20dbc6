"""What the model without a model understands, what it makes of results, and that it does not pretend."""

import pytest

from agent.model import Answer, Assistant, Request, Result, TextDelta, User
from agent.models.builtin import HELLO, HELP, LOST, TASK, Builtin, Call, Reply, State, route
from agent.tool import Declaration
from persistence.events import TextBlock, ToolCallBlock, Value

READS = [
    ("read notes.md", "notes.md"),
    ("Read the file notes.md.", "notes.md"),
    ("please open 'my file.txt'", "my file.txt"),
    ("cat README", "README"),
    ("show me notes/plan.md", "notes/plan.md"),
    ("Could you view `src/a b.py`?", "src/a b.py"),
    ("list files", "."),
    ("List the files here!", "."),
    ("ls", "."),
    ("ls -la", "."),
    ("what files are there?", "."),
    ("list files in docs", "docs"),
    ("please list the files in `my dir`", "my dir"),
    ("could you show me the files in src/", "src/"),
    ("show me all files in the folder docs, please", "docs"),
    ("list files in .", "."),
    ("list files in ..", ".."),
    ("what's in docs/", "docs/"),
    ("What is in the folder docs?", "docs"),
]
FINDS = [
    ("find config.yaml", {"pattern": "config.yaml"}),
    ("search for *.py in src", {"pattern": "*.py", "path": "src"}),
    ("find files named notes in the folder docs", {"pattern": "notes", "path": "docs"}),
    ("find all files called `my notes`", {"pattern": "my notes"}),
    ("find lines containing TODO", {"pattern": "*", "text": "TODO"}),
    ("find files that contain “a b” in src", {"pattern": "*", "text": "a b", "path": "src"}),
    ("grep TODO in src", {"pattern": "*", "text": "TODO", "path": "src"}),
    ("where is config.yaml?", {"pattern": "config.yaml"}),
]
RUNS = [
    ("run ls -la", "ls -la"),
    ("RUN echo hi!", "echo hi!"),
    ("execute `make test`", "make test"),
    ("please run the command echo 'a b'", "echo 'a b'"),
    ("run:\n```sh\nls\npwd\n```", "ls\npwd"),
    ("$ ls", "ls"),
    ("run cat a.txt", "cat a.txt"),
]
REMEMBERS = [
    ("remember the door code is 4711", "the door code is 4711"),
    ("Remember that Ann likes tea.", "Ann likes tea."),
    ("please remember: buy milk", "buy milk"),
    ("note that the car is blue", "the car is blue"),
    ("Make a note: call Bob", "call Bob"),
    ("don't forget to call Bob", "call Bob"),
    ("can you remember that I like tea", "I like tea"),
    ("keep in mind that I am vegan", "I am vegan"),
]
RECALLS = [
    ("what do you remember about the door?", "door"),
    ("What do you know about Ann", "Ann"),
    ("do you remember my birthday?", "birthday"),
    ("what is my name?", "name"),
    ("What's my door code?", "door code"),
    ("can you remember what I said about tea?", "tea"),
    ("what did I tell you about “the car”?", "car"),
    ("recall tea", "tea"),
    ("what do you remember?", ""),
    ("show me your notes", ""),
]
TASKS = [
    ("add task water the plants", {"action": "add", "task": "water the plants"}),
    ("Please add a task to water the plants", {"action": "add", "task": "water the plants"}),
    ("add task: “buy milk”", {"action": "add", "task": "buy milk"}),
    ("create a new todo call Ann", {"action": "add", "task": "call Ann"}),
    ("list tasks", {"action": "list"}),
    ("show me my open tasks", {"action": "list"}),
    ("tasks", {"action": "list"}),
    ("list task", {"action": "list"}),
    ("what is left to do?", {"action": "list"}),
    ("which tasks are ready?", {"action": "ready"}),
    ("close task bd-4k2", {"action": "close", "task": "bd-4k2"}),
    ("close the task water the plants.", {"action": "close", "task": "water the plants"}),
    ("mark task bd-4k2 as done", {"action": "close", "task": "bd-4k2"}),
    ("show task bd-4k2", {"action": "show", "task": "bd-4k2"}),
]
CALLS = [
    *((said, Call("read", {"path": path})) for said, path in READS),
    *((said, Call("find", args)) for said, args in FINDS),
    *((said, Call("bash", {"command": command})) for said, command in RUNS),
    *((said, Call("remember", {"text": text})) for said, text in REMEMBERS),
    *((said, Call("recall", {"query": query})) for said, query in RECALLS),
    *((said, Call("bead", dict(args))) for said, args in TASKS),
]
NOT_UNDERSTOOD = [
    "write me a poem",
    "what is the capital of France?",
    "show me how to cook",
    "open sesame quickly",
    "do not remember this",
    "you should not run rm -rf /",
    "the program will run tomorrow",
    "I read a book yesterday",
    "my remember list",
    "rerun tests",
    "the task is to add a file",
    "close the door",
    "",
    "x" * 5000,
    "find " + "in a " * 2000,
    "x" + " ," * 1990,
    "hey" + " !" * 1900 + "x",
]


@pytest.mark.parametrize(("said", "call"), CALLS, ids=[said for said, _ in CALLS])
def test_a_plain_sentence_becomes_the_call_it_means(said: str, call: Call) -> None:
    assert route(said) == (call,)
    shouted = route(said.upper())
    assert isinstance(shouted, tuple)
    assert shouted[0].tool == call.tool


@pytest.mark.parametrize("said", ["find door code", "Look for the “door code”!", "please search for door code?"])
def test_what_may_be_a_name_or_a_text_is_sought_as_both(said: str) -> None:
    calls = route(said)
    assert isinstance(calls, tuple)
    assert [call.tool for call in calls] == ["find", "find"]
    assert [set(call.args) for call in calls] == [{"pattern"}, {"pattern", "text"}]


@pytest.mark.parametrize("said", NOT_UNDERSTOOD, ids=lambda said: said[:30] or "nothing")
def test_what_no_rule_means_is_not_guessed_at(said: str) -> None:
    assert route(said) == Reply(LOST)


@pytest.mark.parametrize("said", ["how are you", "Hi, how are you?", "how are you doing today?", "How's it going?"])
def test_how_are_you_is_a_question_about_the_state(said: str) -> None:
    assert route(said) == State()


@pytest.mark.parametrize("said", ["help", "Help me!", "?", "what can you do?", "Who are you?"])
def test_help_explains_everything(said: str) -> None:
    assert route(said) == Reply(HELP)


@pytest.mark.parametrize("said", ["hi", "Hello finn!", "good morning", "hey there"])
def test_a_greeting_is_greeted(said: str) -> None:
    assert route(said) == Reply(HELLO)


@pytest.mark.parametrize("text", [LOST, HELP])
def test_what_is_not_understood_is_told_how_to_get_a_model(text: str) -> None:
    for word in ("not a language model", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "FINN_MODEL", "FINN_MODEL_BASE_URL"):
        assert word in text


class Nothing(Value):
    """No arguments."""


TOOLS = tuple(Declaration(name, "", Nothing, frozenset()) for name in ("read", "find", "bash", "remember", "recall"))


def request(*messages: User | Assistant | Result, tools: tuple[Declaration, ...] = TOOLS) -> Request:
    return Request("system", messages, tools, "session")


async def answered(asked: Request) -> tuple[str, Answer]:
    deltas = [delta async for delta in Builtin().stream(asked)]
    answer = deltas[-1]
    assert isinstance(answer, Answer)
    return "".join(delta.text for delta in deltas[:-1] if isinstance(delta, TextDelta)), answer


async def reported(tool: str, args: dict[str, str], text: str, *, is_error: bool = False) -> str:
    call = ToolCallBlock(id="call_1", name=tool, arguments=args)
    said = User("do it"), Assistant((call,), "finn", "builtin"), Result("call_1", tool, text, is_error)
    return (await answered(request(*said)))[0]


async def test_a_prompt_for_a_tool_is_answered_by_one_call_and_no_text() -> None:
    streamed, answer = await answered(request(User("run ls")))
    (call,) = answer.content
    assert isinstance(call, ToolCallBlock)
    assert (streamed, answer.stop_reason, call.name, call.arguments) == ("", "tool_use", "bash", {"command": "ls"})


async def test_the_pieces_that_are_streamed_make_up_the_answer() -> None:
    streamed, answer = await answered(request(User("help")))
    assert answer.content == (TextBlock(text=streamed),)
    assert streamed == HELP
    assert answer.stop_reason == "stop"


async def test_the_same_request_gets_the_same_answer_and_each_call_of_a_session_its_own_id() -> None:
    first = request(User("run ls"))
    (_, one), (_, again) = await answered(first), await answered(first)
    assert one == again
    results = Result(one.content[0].id, "bash", "", False)  # type: ignore[union-attr]
    done = Assistant((TextBlock(text="ok"),), "finn", "builtin")
    _, two = await answered(
        request(*first.messages, Assistant(one.content, "finn", "builtin"), results, done, User("run ls"))
    )
    assert two.content[0].id != one.content[0].id  # type: ignore[union-attr]


async def test_a_tool_that_was_not_given_is_not_called() -> None:
    streamed, answer = await answered(request(User("run ls"), tools=()))
    assert (streamed, answer.stop_reason) == (
        "For that I would need the tool `bash`, which I was not given here.",
        "stop",
    )


async def test_an_output_is_shown_in_a_fence_that_it_cannot_close() -> None:
    assert await reported("bash", {"command": "cat `x`"}, "a\n````\nb") == (
        "I ran `` cat `x` ``:\n\n`````text\na\n````\nb\n`````"
    )


async def test_a_long_output_is_cut_and_the_cut_is_told() -> None:
    shown = await reported("read", {"path": "long.txt"}, "\n".join(map(str, range(100))))
    assert shown.endswith("59\n```\n\n40 more lines are in the tool's own output above.")


async def test_a_failure_is_not_told_as_a_success() -> None:
    assert await reported("remember", {"text": "x"}, "the disk is full", is_error=True) == (
        "That did not work. `remember` says:\n\n```text\nthe disk is full\n```"
    )


async def test_what_was_remembered_is_repeated() -> None:
    assert await reported("remember", {"text": "tea"}, "Remembered in NOTES.md.") == (
        "I will remember this:\n\n> tea\n\nRemembered in NOTES.md."
    )


async def test_what_is_recalled_is_a_list_of_facts_with_their_days() -> None:
    found = "grimoires/NOTES.md:7: - 2026-11-20: the door code is 4711\ngrimoires/memory/home.md:2: door: oak"
    assert await reported("recall", {"query": "door"}, found) == (
        "What I remember about `door`:\n\n- the door code is 4711 (2026-11-20)\n- door: oak"
    )


@pytest.mark.parametrize(("tool", "args"), [("recall", {"query": "x"}), ("find", {"pattern": "x"})])
async def test_finding_nothing_is_said_plainly(tool: str, args: dict[str, str]) -> None:
    assert await reported(tool, args, "Nothing found about x.") == "Nothing found about x."


async def test_how_it_is_tells_only_what_the_request_shows() -> None:
    streamed, _ = await answered(request(User("hi"), Assistant((), "finn", "builtin"), User("how are you?")))
    assert "can see in this conversation: 2\n" in streamed
    assert "`read`, `find`, `bash`, `remember`, `recall`" in streamed


async def test_a_steering_message_after_a_result_is_answered_itself() -> None:
    call = ToolCallBlock(id="call_1", name="bash", arguments={"command": "ls"})
    asked = request(
        User("run ls"), Assistant((call,), "finn", "builtin"), Result("call_1", "bash", "a", False), User("help")
    )
    assert (await answered(asked))[0] == HELP


def test_a_long_word_in_a_task_takes_no_time() -> None:
    """A search from each of its characters would take minutes, and nobody else is served meanwhile."""
    assert TASK.search("a" * 1_000_000) is None
    found = TASK.search(f"Added bd-1 [P2 task, proposed] {'a' * 1_000_000}")
    assert found is not None
    assert found["id"] == "bd-1"
