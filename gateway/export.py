"""A session as a markdown file that a person reads."""

from agent.session import Session
from gateway.transcript import forwards
from persistence.clock import iso
from persistence.events import Json
from persistence.journal import Journal

PAGE = 1000
FENCE = "```"


async def markdown(journal: Journal, session: str, state: Session) -> bytes:
    """The whole session, what waits included. Raises Damaged, NotFound."""
    parts = [f"# {state.title or 'Untitled'}\n\n*{session}, begun {iso(state.created_at / 1000)}*\n"]
    after = 0
    while True:
        page = await forwards(journal, session, after, PAGE, notes=True)
        parts.extend(_part(one) for one in page.messages)
        if page.next is None:
            return "\n".join(parts).encode(errors="replace")
        after = int(page.next)


def _part(message: dict[str, Json]) -> str:
    stamp = f"<sub>{message['created_at']}</sub>"
    match message["role"]:
        case "user":
            return f"## You {stamp}\n\n{message['text']}\n"
        case "assistant":
            calls = [f"`{one['name']}` {one['arguments']}" for one in message["content"] if one["type"] == "toolCall"]
            ended = "" if message["stop_reason"] in ("stop", "tool_use") else f"\n\n*({message['stop_reason']})*"
            asked = "\n\n" + "\n".join(f"- {call}" for call in calls) if calls else ""
            return f"## finn {stamp}\n\n{message['text']}{asked}{ended}\n"
        case "toolResult":
            fence = FENCE + "`" * message["text"].count(FENCE)
            return f"### {message['tool_name']} {stamp}\n\n{fence}\n{message['text']}\n{fence}\n"
        case "note":
            return f"> {message['text']}\n"
        case "context_cut":
            return f"> The {message['left_out']} oldest entries were left out of what the model was sent.\n"
        case _:
            return f"> The turn ended: {message['stop_reason']}.\n"
