"""The model of a finn without a key: rules, no language model, and it says so.

    prompt ─▶ route ─▶ Reply                                what it can answer by itself
                    └▶ Call ─▶ the tool ─▶ report ─▶ text   what a tool has to do, through the same loop as any model

PHRASES is the whole of what it understands, tried in order; a phrase matches the whole sentence or not at all. What
none matches gets an honest answer instead of a guess.
"""

import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import cache

from agent.model import About, Answer, Assistant, Delta, Message, Request, Result, TextDelta, User
from agent.models.calls import call_id
from persistence.events import Block, Json, TextBlock, ToolCallBlock, Usage

WINDOW = 200_000  # tokens; it reads only the end of a request, so any window would do
PROMPT_LIMIT = 4_000  # characters a rule is tried on; longer texts are not commands
SHOWN_LINES = 60  # of a tool's output in the answer; the whole stands in the tool's own card
SHOWN_CHARACTERS = 4_000
PIECE = re.compile(r"\S{1,40}\s*|\s+")  # what is streamed at a time: about a word


# ---------------------------------------------------------------- what it says by itself

WAYS = """\
- **Files**: `list files`, `list files in docs`, `read notes.md`, `find TODO`
- **Commands**: `run python3 --version`
- **Memory**: `remember the door code is 4711`, `what do you remember about the door?`
- **Tasks**: `add task water the plants`, `list tasks`, `close task water the plants`
- **About me**: `how are you`, `how do I give you a model`"""

SETUP = """\
To give me a language model, set one of these before finn starts, or put it into the file `.env` in its data directory:

- `ANTHROPIC_API_KEY` for Claude
- `OPENAI_API_KEY` for GPT
- `FINN_MODEL=openai:NAME` with `FINN_MODEL_BASE_URL=http://localhost:11434/v1` for any server that speaks OpenAI's \
Chat Completions, a local one included

Then restart. This conversation and everything I remember stay."""

WHAT_I_AM = "I am finn's built-in model: a short list of rules, not a language model, so I work without a key."

HELP = f"{WHAT_I_AM} What I understand:\n\n{WAYS}\n\n{SETUP}"
LOST = (
    f"I did not understand that. {WHAT_I_AM} I can list, `read` and `find` files, `run` a command, keep tasks,"
    " `remember` something and tell you what I remember; `help` shows how to say it.\n\n"
    "For real conversation give me a model: set `ANTHROPIC_API_KEY` or `OPENAI_API_KEY`, or `FINN_MODEL` with"
    " `FINN_MODEL_BASE_URL`, and restart me."
)
HELLO = f"Hello! {WHAT_I_AM} You could say:\n\n{WAYS}"
THANKS = "You are welcome."
PROPOSED = "It is proposed: nobody works on it until you make it ready (`finn beads label add {id} task:ready`)."
BYE = "Goodbye. Everything said here is kept; come back to it whenever you like."
REMEMBER_WHAT = "What should I remember? Say it in one sentence, for example `remember the door code is 4711`."
READ_WHAT = "Which file? Say for example `read notes.md`, or `list files` to see what is there."
FIND_WHAT = "What should I look for? Say for example `find TODO`."
ADD_WHAT = "What is to be done? Say for example `add task water the plants`."
CLOSE_WHAT = "Which task? Say for example `close task water the plants`, or `list tasks` to see them."
RUN_WHAT = "Which command? Say for example `run python3 --version`."


@dataclass(frozen=True)
class Reply:
    """An answer in markdown."""

    text: str


@dataclass(frozen=True)
class Call:
    """A tool to be asked first; `report` makes the answer of what it gives back."""

    tool: str
    args: dict[str, Json]


@dataclass(frozen=True)
class State:
    """A question about finn itself, answered from the request."""


Route = Reply | State | tuple[Call, ...]


# ---------------------------------------------------------------- what it understands

# What a sentence may open with and a rule need not know: an address, a courtesy, the form of a question.
OPENING = re.compile(
    r"^(?:(?:hey|hi|hello|ok|okay|so|well|now|and|then|please|finn|just|kindly|let us|let's|i (?:want|need) you to"
    r"|i(?:'d| would) like you to"
    r"|(?:can|could|would|will) you(?! (?:remember|recall) (?:what|when|where|who|how|why)\b))\b[\s,!.:]*)+",
    re.IGNORECASE,
)
CLOSING = re.compile(r"(?<![\s,])[\s,]+(?:please|for me|now|thanks|thank you|finn)[\s.!?]*$", re.IGNORECASE)
QUOTES = {"`": "`", '"': '"', "'": "'", "“": "”", "‘": "’", "«": "»"}
FENCED = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)
FIELDS = {
    "{path}": r"""(?P<path>`[^`]+`|"[^"]+"|'[^']+'|“[^”]+”|«[^»]+»|[^\s`"“”«»]+)""",
    "{x}": r"(?P<x>\S.*)",
    "{in}": "(?:in|inside|of|under|at|within)(?: (?:the|my|your|this))?(?: (?:folder|directory))?(?: named)?",
}
# English's little words: after "read" or "open" they are never the name of a file.
NO_PATH = frozenset(
    {
        *("it", "this", "that", "them", "these", "those", "me", "my", "mine", "you", "your", "him", "her", "us", "up"),
        *("on", "out", "more", "something", "anything", "everything", "nothing", "again", "aloud", "what", "about"),
        *("all", "one"),
    }
)

NAME = re.compile(r"[*?/]|\.\w+$")  # what can only be meant as the name of a file

Make = Callable[[re.Match[str]], Route | None]


def pattern(phrase: str) -> re.Pattern[str]:
    """The expression of a phrase: `(a|b)` one of them, ` [a|b]` one or none, and the {parts} of WORDS and FIELDS."""
    for part, words in WORDS.items():
        phrase = phrase.replace(part, words)
    expression = re.sub(r" \[([^\]]*)\]", r"(?: (?:\1))?", phrase.replace("(", "(?:")).replace("'", "['’]")
    for field, meaning in FIELDS.items():
        expression = expression.replace(field, meaning)
    return re.compile(expression.replace(" ", r"\s+") + r"[\s.!?]*", re.IGNORECASE | re.DOTALL)


def unquoted(text: str) -> str:
    """`text` without the quotes, backticks or code fence around it, or the punctuation that ends its sentence."""
    text = text.strip()
    if fenced := FENCED.match(text):
        return fenced[1].strip()
    quote = QUOTES.get(text[:1])
    bare = text.rstrip(" ?!.,;") if quote else text
    if quote and len(bare) > 2 and bare.endswith(quote):
        return bare[1:-1].strip()
    return text


def topic(text: str) -> str:
    """What a question is about: without quotes, question mark and the little words in front."""
    return re.sub(r"^(?:(?:the|my|a|an|about)\s+)+", "", unquoted(text.rstrip(" ?!.")), flags=re.IGNORECASE)


def path(text: str) -> str | None:
    """The path that is meant, or None where the word is none."""
    bare = unquoted(text)
    if bare != text.strip():
        return bare
    return None if bare.lower() in NO_PATH or bare.startswith("-") else re.sub(r"(?<=\w)[.?!,;]+$|[?!,;]+$", "", bare)


def says(text: str) -> Make:
    return lambda match: Reply(text)


def state(match: re.Match[str]) -> Route | None:
    return State()


def read(match: re.Match[str]) -> Route | None:
    found = path(match["path"])
    return (Call("read", {"path": found}),) if found else None


def read_if_path(match: re.Match[str]) -> Route | None:
    return read(match) if re.search(r"[./]", match["path"]) else None


def here(match: re.Match[str]) -> Route | None:
    return (Call("read", {"path": "."}),)


def find(match: re.Match[str]) -> Route | None:
    """By name and by content, side by side; a name that can only be one is sought by name."""
    x = unquoted(match["x"].rstrip("?!"))
    named = Call("find", {"pattern": x if NAME.search(x) else f"*{x}*", **where(match)})
    return (named,) if NAME.search(x) else (named, Call("find", {"pattern": "*", "text": x, **where(match)}))


def find_named(match: re.Match[str]) -> Route | None:
    return (Call("find", {"pattern": unquoted(match["x"].rstrip("?!")), **where(match)}),)


def find_text(match: re.Match[str]) -> Route | None:
    return (Call("find", {"pattern": "*", "text": unquoted(match["x"].rstrip("?!")), **where(match)}),)


def where(match: re.Match[str]) -> dict[str, Json]:
    """The folder to search, where the sentence names one."""
    folder = path(match["path"]) if match.re.groupindex.get("path") else None
    return {"path": folder} if folder else {}


def find_if_path(match: re.Match[str]) -> Route | None:
    found = path(match["path"])
    return (Call("find", {"pattern": found}),) if found and NAME.search(found) else None


def run(match: re.Match[str]) -> Route | None:
    return (Call("bash", {"command": unquoted(match["x"])}),)


def remember(match: re.Match[str]) -> Route | None:
    return (Call("remember", {"text": unquoted(match["x"])}),)


def recall(match: re.Match[str]) -> Route | None:
    return (Call("recall", {"query": topic(match["x"])}),)


def add_task(match: re.Match[str]) -> Route | None:
    return (Call("bead", {"action": "add", "task": unquoted(match["x"])}),)


def list_tasks(match: re.Match[str]) -> Route | None:
    return (Call("bead", {"action": "list"}),)


def ready_tasks(match: re.Match[str]) -> Route | None:
    return (Call("bead", {"action": "ready"}),)


def close_task(match: re.Match[str]) -> Route | None:
    return (Call("bead", {"action": "close", "task": unquoted(match["x"].rstrip(" ?!."))}),)


def show_task(match: re.Match[str]) -> Route | None:
    return (Call("bead", {"action": "show", "task": unquoted(match["x"].rstrip("?!"))}),)


def recall_all(match: re.Match[str]) -> Route | None:
    return (Call("recall", {"query": ""}),)


# Parts of phrases that several of them share.
WORDS = {
    "{files}": "[all] [of] [the|my|your|our] (files|folders|files and folders|directory|folder|workspace|contents)",
    "{seek}": "(find|search for|search|look for|locate)",
    "{show}": "(list|show|print|display|give|get) [me] [a list of]",
    "{give}": "(give|add|set|set up|connect|configure|choose|change) [you] (a|an|the|your) {model}",
    "{model}": "[real|language|api] (model|llm|key)",
    "{named}": "[all|any|every|the] [the] (files|file) (called|named|matching)",
    "{holding}": "[all|any|every|the] [the] (files|file|lines) (containing|with|that contain|that say)",
    "{task}": "(task|todo|to-do|bead)",
    "{tasks}": "(tasks|todos|to-dos|beads)",
    "{done}": "(done|closed|complete|completed|finished)",
    "{note}": "(remember|memorise|memorize|note|note down|keep in mind|make a note|take a note|take note|write down)",
}

# What to make of a phrase, and the phrase. A name that begins with `what_` asks back.
PHRASES = r"""
# commands come first: what follows `run` is the shell's and no other rule's
run           (run|execute|exec) (the|this|a) [shell|bash] command:? {x}
run           (run|execute|exec):? {x}
run           \$ {x}
what_run      (run|execute) [a|the|this] [command]
# tasks
add_task      (add|create|make|open|new) [a|an|the|another] [new] {task} [to|called|named|that says]:? {x}
what_add      (add|create|make|new) [a|an|another] [new] {task}
ready_tasks   {show} [all] [of] [my|the|your|our] ready {tasks}
ready_tasks   (what|which) {tasks} are ready
list_tasks    {show} [all] [of] [my|the|your|our] [open] {tasks}
list_tasks    {tasks}
list_tasks    list [my|the|open] {task}
list_tasks    (my|the|open|my open|the open) {tasks}
list_tasks    (what|which) [open] {tasks} [are there|are open|are left|do i have|do you have|do we have]
list_tasks    what('s| is) (there|left) to do
list_tasks    what('s| is) on (my|the|your) (list|todo list|to-do list|task list)
close_task    (close|finish|complete|end) [the|my] {task}:? {x}
close_task    mark [the|my] {task} {x} as {done}
close_task    {task} {x} is {done}
what_close    (close|finish|complete) [a|the|my|this|that] {task}
show_task     (show|describe|tell) [me] [about] [the|my] {task} {x}
# itself
help          help [me]
help          \?
help          commands
help          what can (you|i) (do|say|ask) [here|for me]
help          (who|what) are you
help          how do (i|you) (use|work) [with] [you|this]
help          what do you (do|understand)
setup         {give}
setup         how (do|can|should) (i|we) {give}
setup         (which|what) (model|llm) (are you|do you use|is this)
state         how are you [doing] [today|now]
state         how do you feel [today|now]
state         how('s| is) it going
state         how are things
state         are you (ok|okay|alive|well|there|fine|up)
state         what('s| is) up
state         what('s| is) your (status|state)
state         status
hello         (hi|hello|hey|greetings|howdy|moin) [there|finn|again]
hello         good (morning|afternoon|evening|day)
thanks        (thanks|thank you) [a lot|so much|very much|finn]
bye           (bye|bye bye|goodbye|good night|see you) [later|soon|finn]
# memory: questions before statements
recall_all    what [else] (do|did|can) you (remember|recall|know|note) [so far]
recall_all    what have you (noted|learned|remembered)
recall_all    (show|list) [me] [all] [of] [your|the|my] (memory|memories|notes)
recall_all    recall [everything]
recall_all    what('s| is) in your memory
recall_all    what do you (remember|know) about me
recall        what [else] (do|did|can) you (remember|recall|know|note) (about|of|on|for) {x}
recall        what (have|did) (i|you) (tell|told|say|said|note|noted|learn|learned|remember) [you|me] (about|of|on) {x}
recall        (do|can|could|did) you [still] (remember|recall|know) what (i|we) (said|told you|noted) about {x}
recall        (do|can|could|did) you [still] (remember|recall|know) [anything|something|what] [about] {x}
recall        (what|when|where|who|which)('s| is| are| was| were) my {x}
recall        (search|look in|look through|check) (your|the|my) (memory|memories|notes) for {x}
recall        recall {x}
remember      (don't|do not|never) forget [that|to|about]:? {x}
remember      {note} [that|of|about|this]:? {x}
remember      (remember|memorise|memorize|note): {x}
what_note     (remember|note|memorise|memorize) [this|that|it]
what_note     (make|take) a note
# folders
read          {show} {files} {in} {path}
read          (ls|dir) {path}
read          (ls|dir) -\w+ {path}
read          (what|which) (files|folders) [are|are there|do you have|do you see|can you see] {in} {path}
read          (list|show|open) [me] [the] (folder|directory) [called|named] {path}
read          what('s| is) (in|inside) [the] (folder|directory|file) {path}
here          {show} {files} [here]
here          (list|ls|ll|dir|files|ls -\w+)
here          (what|which) files [are|are there|do you have|do you see|can you see|exist] [here|there]
here          what('s| is) (here|in here|in the workspace|in your workspace|in my workspace|in this folder)
read_if_path  (list|what('s| is) (in|inside)|what does) {path} [say|contain]
# search
find_named    {seek} {named} {x} {in} {path}
find_named    {seek} {named} {x}
find_text     {seek} {holding} {x} {in} {path}
find_text     {seek} {holding} {x}
find_text     (grep|grep for) {x} {in} {path}
find_text     (grep|grep for) {x}
find          {seek} {x} {in} {path}
find          {seek} {x}
find_if_path  where is [the|my] [file] {path}
what_find     {seek} [something]
what_find     grep
# files
read          (read|open|cat|view|show) [me] [the|my] [contents of|text of] [the|my] [file] {path}
what_read     (read|open|cat|show) [a|the|this|that] [file|it|this|that]
"""

MAKERS: dict[str, Make] = {
    "run": run,
    "what_run": says(RUN_WHAT),
    "help": says(HELP),
    "setup": says(f"{WHAT_I_AM}\n\n{SETUP}"),
    "state": state,
    "hello": says(HELLO),
    "thanks": says(THANKS),
    "bye": says(BYE),
    "add_task": add_task,
    "what_add": says(ADD_WHAT),
    "list_tasks": list_tasks,
    "ready_tasks": ready_tasks,
    "close_task": close_task,
    "what_close": says(CLOSE_WHAT),
    "show_task": show_task,
    "recall_all": recall_all,
    "recall": recall,
    "remember": remember,
    "what_note": says(REMEMBER_WHAT),
    "read": read,
    "here": here,
    "read_if_path": read_if_path,
    "find_named": find_named,
    "find_text": find_text,
    "find": find,
    "find_if_path": find_if_path,
    "what_find": says(FIND_WHAT),
    "what_read": says(READ_WHAT),
}


@cache
def rules() -> tuple[tuple[re.Pattern[str], Make], ...]:
    """PHRASES, compiled on first use: expressions are dear, and a start to the first answer need not pay for them."""
    lines = (line.split(maxsplit=1) for line in PHRASES.splitlines() if line and not line.startswith("#"))
    return tuple((pattern(phrase), MAKERS[name]) for name, phrase in lines)


def route(text: str) -> Route:
    """What to do about a prompt. Depends on nothing but the text."""
    sentence = text.strip()
    if len(sentence) > PROMPT_LIMIT:
        return Reply(LOST)
    bare = OPENING.sub("", sentence, count=1)
    for candidate in (bare, CLOSING.sub("", bare), sentence):
        for expression, make in rules():
            if (match := expression.fullmatch(candidate)) and (found := make(match)):
                return found
    return Reply(LOST)


# ---------------------------------------------------------------- what it makes of a tool's result


NOTE = re.compile(r"\S+?:\d+: (?:- )?(?:(?P<day>\d{4}-\d\d-\d\d): )?(?P<text>.+)")  # a line of recall's result


def report(call: ToolCallBlock, result: Result) -> str:
    """The answer to the prompt, from what the tool gave back."""
    if result.is_error:
        return f"That did not work. `{call.name}` says:\n\n{fenced(result.text)}"
    return REPORTS[call.name](call.arguments, result.text)


def of_read(args: dict[str, Json], text: str) -> str:
    shown = "The workspace" if args["path"] == "." else code(args["path"])
    return f"{shown}:\n\n{fenced(text)}" if text.strip() else f"{shown} is empty."


def of_find(args: dict[str, Json], text: str) -> str:
    if text.startswith("Nothing found"):
        return text
    sought = f"Lines that hold {code(args['text'])}" if "text" in args else f"Files named {code(args['pattern'])}"
    return f"{sought}:\n\n{fenced(text)}"


def of_bash(args: dict[str, Json], text: str) -> str:
    return f"I ran {code(args['command'])}:\n\n{fenced(text)}"


def of_remember(args: dict[str, Json], text: str) -> str:
    return f"I will remember this:\n\n{quoted(args['text'])}\n\n{text}"


def of_recall(args: dict[str, Json], text: str) -> str:
    found = [match for line in text.splitlines() if (match := NOTE.fullmatch(line))]
    if not found:
        return text
    about = f" about {code(args['query'])}" if args["query"] else ""
    notes = "\n".join(f"- {match['text']}" + (f" ({match['day']})" if match["day"] else "") for match in found)
    return f"What I remember{about}:\n\n{notes}"


# a line of bead's result
TASK = re.compile(r"(?<!\S)(?P<id>\S+) \[P(?P<priority>\d) (?P<type>\w+), (?P<status>[\w ]+)\] (?P<title>.+)")


def of_bead(args: dict[str, Json], text: str) -> str:
    tasks = [match for line in text.splitlines() if (match := TASK.search(line))]
    match args["action"]:
        case "add" if tasks:
            said = PROPOSED.format(id=tasks[0]["id"])
            return f"Added the task {code(tasks[0]['id'])}:\n\n{quoted(tasks[0]['title'])}\n\n{said}"
        case "close" if tasks:
            return f"Closed the task {code(tasks[0]['id'])}:\n\n{quoted(tasks[0]['title'])}"
        case "list" | "ready" if tasks:
            shown = (f"- {code(one['id'])} {one['title']} ({one['status']}, P{one['priority']})" for one in tasks)
            more = text.rpartition("\n")[2]
            rest = f"\n\n{more}" if more.startswith("[") else ""
            return f"{'Ready' if args['action'] == 'ready' else 'Open'} tasks:\n\n" + "\n".join(shown) + rest
    return fenced(text) if tasks else text


REPORTS: dict[str, Callable[[dict[str, Json], str], str]] = {
    "read": of_read,
    "find": of_find,
    "bash": of_bash,
    "remember": of_remember,
    "recall": of_recall,
    "bead": of_bead,
}


def code(text: str) -> str:
    """`text` as code within a line, however many backticks and lines it has."""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{' '.join(text.split())}{pad}{ticks}"


def fenced(text: str) -> str:
    """The beginning of `text` as a block of code that nothing in it can close, and how much was left out."""
    lines = text.rstrip().splitlines()
    shown = "\n".join(lines[:SHOWN_LINES])[:SHOWN_CHARACTERS]
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    left_out = len(lines) - shown.count("\n") - 1
    more = f"\n\n{left_out} more lines are in the tool's own output above." if left_out > 0 else ""
    return f"{fence}text\n{shown}\n{fence}{more}"


def quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.strip().splitlines())


def how_it_is(request: Request) -> str:
    """Facts that the request itself proves, and where the others are."""
    said = sum(isinstance(message, User) for message in request.messages)
    tools = ", ".join(code(tool.name) for tool in request.tools) or "none"
    return (
        "I am running, and what we say here is kept on disk.\n\n"
        f"- Messages of yours that I can see in this conversation: {said}\n"
        f"- Tools I was given: {tools}\n"
        "- Model: built in, rules only\n\n"
        "For the state of the whole system, run `finn status` in a terminal."
    )


# ---------------------------------------------------------------- the model


class Builtin:
    """The default model. The same request always gets the same answer; it costs nothing and never fails."""

    about = About(
        name="builtin",
        provider="finn",
        api="builtin",
        window=WINDOW,
        note="rules, no language model; ANTHROPIC_API_KEY, OPENAI_API_KEY or FINN_MODEL gives finn one",
    )

    async def stream(self, request: Request) -> AsyncGenerator[Delta, None]:
        """A tool call for a prompt that needs one, a text for everything else."""
        reply = answer(request)
        if not isinstance(reply, Reply):
            calls = (ToolCallBlock(id=call_id(request, n), name=c.tool, arguments=c.args) for n, c in enumerate(reply))
            yield Answer(tuple(calls), Usage(), "tool_use")
            return
        for piece in PIECE.findall(reply.text):
            yield TextDelta(piece)
        yield Answer((TextBlock(text=reply.text),), Usage(), "stop")


def answer(request: Request) -> Reply | tuple[Call, ...]:
    """What follows from the end of the request: a report of what tools gave back, or the route of what was said."""
    if results := trailing_results(request.messages):
        calls = {block.id: block for block in said_before(request.messages) if isinstance(block, ToolCallBlock)}
        return Reply("\n\n".join(report(calls[result.call], result) for result in results))
    said = next((message.text for message in reversed(request.messages) if isinstance(message, User)), "")
    found = route(said)
    if isinstance(found, State):
        return Reply(how_it_is(request))
    if isinstance(found, Reply):
        return found
    given = {tool.name for tool in request.tools}
    missing = next((call.tool for call in found if call.tool not in given), None)
    return Reply(f"For that I would need the tool {code(missing)}, which I was not given here.") if missing else found


def trailing_results(messages: tuple[Message, ...]) -> list[Result]:
    """The results that nobody has answered yet, in order; none if the owner has spoken since."""
    results: list[Result] = []
    for message in reversed(messages):
        if not isinstance(message, Result):
            break
        results.insert(0, message)
    return results


def said_before(messages: tuple[Message, ...]) -> tuple[Block, ...]:
    return next((message.content for message in reversed(messages) if isinstance(message, Assistant)), ())
